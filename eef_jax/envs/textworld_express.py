"""TextWorldExpress: eight small text games, thousands of variations each, fast and deterministic.

The simulator is the package `textworld-express` (Jansen & Cote, 2022). What it takes to be an
environment over a Java simulator is this file: a `Simulator`, tasks and prompts; the rest is
`eef_jax.envs._jvm` and `eef_jax.envs._prompt`.
"""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from eef_jax.config.fields import field
from eef_jax.envs._jvm.config import SimulatorConfig
from eef_jax.envs._jvm.game import ReplayGame, RewardConvention
from eef_jax.envs._jvm.pool import JvmPool, usable_cores
from eef_jax.envs._jvm.process import Jvm, find_java, find_package
from eef_jax.envs._jvm.replay import ReplayState, run_at_state
from eef_jax.envs._jvm.simulator import SimulatorStatus
from eef_jax.envs._prompt import Preset, split_limits, told
from eef_jax.errors import ConfigError, EnvError, check_one_of, did_you_mean
from eef_jax.types import Message, Task

EXTRAS = ("textworld-express",)

GAMES = (
    *("cookingworld", "twc", "coin", "mapreader"),
    *("arithmetic", "sorting", "simonsays", "peckingorder"),
)
FOLDS = {"train": range(1000), "dev": range(10_000, 11_000), "test": range(20_000, 21_000)}
JAR = "textworld-express.jar"
ENTRY_POINT = "textworldexpress.runtime.PythonInterface"
CAP = 50  # default cap on an agent's actions; the package's wrapper stops at 100
_TASK = """\
You play a text game. Each turn you are told what you see and say one action, such as look around, \
inventory, move north, open fridge, take apple, put apple in box, read cookbook, cook apple in oven.
"""
_ACTION = "Answer with one action and nothing else; help tells the task again."
_REACT = """\
Answer with one thought and one action, in exactly this form:

Thought: why you do what you do next
Action: the action"""


PRESETS = {
    "action": Preset(
        instructions=_TASK + _ACTION,
        invalid="Say an action, such as: look around",
    ),
    "react": Preset(
        instructions=_TASK + _REACT,
        messages=told(_TASK + _REACT),
        thought="Thought: {thought}\n",
        marker="Action: ",
        invalid="Invalid format. Write 'Action: ' and then the action.",
    ),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config(SimulatorConfig):
    """The section `env` of TextWorldExpress."""

    games: str = field("cookingworld,twc,coin", "names of games with commas, or all")
    params: str = field(
        "",
        "the games' own settings, such as numLocations=3,includeDoors=0; all chosen games must "
        "have them; empty: their defaults",
    )
    prompt: Literal["action", "react"] = field(
        "action", "prompt preset; action: a message is an action; react: a thought, then an action"
    )
    train_tasks: int = field(
        0, "first tasks of the split, games in turn; 0: all, 1,000 of each game", at_least=0
    )
    max_steps: int = field(0, "cap on an agent's actions; 0: 50", at_least=0)
    reward: RewardConvention = field(
        "final",
        "final: the score at the end; best: its running maximum (they differ where a mistake ends "
        "the game)",
    )


def make(config: Config) -> "TextWorldExpress":
    """Make the environment.

    Raises:
        ConfigError: the package is not installed, or a name is unknown.
        EnvError: there is no Java.
    """
    named = tuple(name.strip() for name in config.games.split(","))
    chosen = GAMES if config.games == "all" else named
    for name in chosen:
        check_one_of("env.games", name, GAMES)
    limits = split_limits(
        train_tasks=config.train_tasks, dev_tasks=config.dev_tasks, test_tasks=config.test_tasks
    )
    package, version = find_package("textworld_express", extra="textworld-express")
    find_java()
    tasks = {
        split: tuple(_task(split, game, seed, config.params) for seed in seeds for game in chosen)
        for split, seeds in FOLDS.items()
    }
    return TextWorldExpress(
        package,
        version,
        {split: found[: limits[split] or None] for split, found in tasks.items()},
        preset=PRESETS[config.prompt],
        max_steps=config.max_steps or CAP,
        reward=config.reward,
        jvms=config.jvms or usable_cores(),
        timeout_s=config.timeout_s,
    )


class TextWorldExpressSimulator:
    """A simulator (see `eef_jax.envs._jvm.simulator.Simulator`)."""

    def __init__(self, package: pathlib.Path, *, timeout_s: float):
        self._jvm = Jvm(package / JAR, entry_point=ENTRY_POINT, timeout_s=timeout_s, cwd=package)
        self._server = self._jvm.entry_point
        self._last: dict[str, Any] = {}

    @property
    def alive(self) -> bool:
        """Whether the JVM runs."""
        return self._jvm.alive

    @property
    def pid(self) -> int:
        """The JVM's process id."""
        return self._jvm.pid

    def start(self, task: Task) -> str:
        """Make a game; its task and first room."""
        self._load(task, gold=False)
        return f"{self._description()}\n{self._last['observation']}"

    def act(self, action: str) -> str:
        """Do an action; `help` tells the task, as in the package's wrapper."""
        if action == "help":
            return self._description()
        text = action.encode("utf-8", "replace").decode()
        with self._jvm.translate_errors():
            self._last = json.loads(self._server.stepJSON(text))
        return str(self._last["observation"])

    def status(self) -> SimulatorStatus:
        """What came with the last observation."""
        score = float(self._last["score"])
        failed = bool(self._last["taskfailure"])
        return SimulatorStatus(
            score=score,
            terminated=failed or bool(self._last["tasksuccess"]) or score >= 1,
        )

    def admissible(self) -> list[str]:
        """Actions that came with the last observation, in a fixed order."""
        return sorted(self._last["validActions"])

    def gold_path(self, task: Task) -> list[str]:
        """The package's own solution; leaves the simulator at the game's start."""
        self._load(task, gold=True)
        with self._jvm.translate_errors():
            found = self._server.getGoldActionSequence()
        return self._jvm.fetch_strings(found)

    def close(self) -> None:
        """End the JVM."""
        self._server = None
        self._jvm.close()

    def _load(self, task: Task, *, gold: bool) -> None:
        try:
            fields = json.loads(task.payload)
            game, seed, fold = fields["game"], int(fields["seed"]), fields["fold"]
            params = fields["params"]
        except (ValueError, KeyError, TypeError) as error:
            raise EnvError(
                f"task {task.id!r} has payload {task.payload!r}, expected a JSON object with game, "
                "seed, fold and params; was the task made by another environment?"
            ) from error
        with self._jvm.translate_errors():
            if complaint := self._server.load(game, params):
                raise EnvError(f"TextWorldExpress cannot play task {task.id!r}: {complaint}")
            self._last = json.loads(self._server.generateNewGameJSON(seed, fold, gold))

    def _description(self) -> str:
        with self._jvm.translate_errors():
            return str(self._server.getTaskDescription())


class TextWorldExpress:
    """The `Env` (see `eef_jax.envs.base.Env`); make it with `make`."""

    name = "textworld_express"

    def __init__(
        self,
        package: pathlib.Path,
        version: str,
        tasks: dict[str, tuple[Task, ...]],
        *,
        preset: Preset,
        max_steps: int,
        reward: RewardConvention,
        jvms: int,
        timeout_s: float,
    ):
        self.max_steps = max_steps
        self.dataset_id = hashlib.sha256(repr((version, tasks, reward)).encode()).hexdigest()
        self.pool: JvmPool = JvmPool(
            lambda: TextWorldExpressSimulator(package, timeout_s=timeout_s), size=jvms
        )
        self._tasks = tasks
        self._preset = preset
        self._reward = reward

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of a split, the games taking turns."""
        if split not in self._tasks:
            raise ConfigError(f"unknown split {split!r}; {did_you_mean(split, self._tasks)}")
        return self._tasks[split]

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Messages before the task."""
        return self._preset.messages

    @property
    def instructions(self) -> str:
        """What an untuned agent has to be told where `prompt` does not; else ""."""
        return self._preset.untold()

    def parse(self, message: str) -> str | None:
        """The action in a message, or None."""
        return self._preset.parse(message)

    def render(self, action: str, thought: str = "") -> str:
        """A message that says `action`, after `thought` where the prompt has thoughts."""
        return self._preset.render(action, thought)

    def invalid(self, message: str) -> str:
        """What an agent reads after a message without an action."""
        return self._preset.invalid

    def is_win(self, reward: float) -> bool:
        """Whether the whole score was reached."""
        return reward > 1 - 1e-6

    def game(self) -> ReplayGame:
        """A new game over the shared JVMs."""
        return ReplayGame(self.pool, convention=self._reward)

    def gold_path(self, task: Task) -> list[str]:
        """The package's own solution of a task."""
        return run_at_state(
            self.pool,
            ReplayState(task=task),
            lambda simulator, _: (simulator.gold_path(task), None),
        )[0]

    def close(self) -> None:
        """End all JVMs; closing twice is fine."""
        self.pool.close()


def _task(split: str, game: str, seed: int, params: str) -> Task:
    return Task(
        id=f"textworld_express/{split}/{game}/{seed}",
        env="textworld_express",
        split=split,
        goal=f"{game}, seed {seed}",
        payload=json.dumps({"game": game, "seed": seed, "fold": split, "params": params}),
        tags=(game,),
    )
