"""ScienceWorld: elementary science in a text world of ten rooms, 30 task types, 7,207 variations.

The simulator is the package `scienceworld` (Wang et al., EMNLP 2022, https://arxiv.org/abs/2203.07540),
run in JVMs with flags that make it deterministic, with the dynamics of its Python wrapper. Episodes
are action lists over a bounded pool of JVMs (`eef_jax.envs._jvm`).

Modules: `task_types`, `splits` (variations and step caps), `simplify` (simplifications),
`prompts`, `simulator` and `gold` (the package's solutions).
"""

import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence

from eef_jax.config.fields import field
from eef_jax.envs._jvm.config import SimulatorConfig
from eef_jax.envs._jvm.game import ReplayGame, RewardConvention
from eef_jax.envs._jvm.pool import JvmPool, usable_cores
from eef_jax.envs._jvm.process import find_java, find_package
from eef_jax.envs._prompt import Preset, split_limits
from eef_jax.envs.scienceworld import prompts, simplify, splits
from eef_jax.envs.scienceworld.gold import GoldPathGenerator, shorten_with_teleports
from eef_jax.envs.scienceworld.simulator import (
    ObservationFormat,
    ScienceWorldSimulator,
    parse_payload,
)
from eef_jax.envs.scienceworld.splits import SPLITS
from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.types import Message, Task

__all__ = ["ScienceWorld", "make"]

_log = logging.getLogger(__name__)
EXTRAS = ("scienceworld",)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config(SimulatorConfig):
    """The section `env` of ScienceWorld."""

    tasks: str = field(
        "all",
        "task types of the official splits: all, eto (24), agentgym (23), or names, numbers and "
        "patterns with commas, such as find-*,lifespan-*",
    )
    simplifications: str = field("eto", "eto, easy, none, or labels with commas")
    prompt: str = field("action", "prompt preset: react (ETO's convention), agentgym or action")
    prompt_messages: str = field(
        "", "JSON list of messages before the task instead of the preset's own", path=True
    )
    train_indices: str = field(
        "",
        "JSON list of [task, variation] (ETO's format), or of AgentGym's numbers or item ids; with "
        "one or more of these files, they are the splits",
        path=True,
    )
    dev_indices: str = field("", "index file of the dev split", path=True)
    test_indices: str = field("", "index file of the test split", path=True)
    train_tasks: int = field(0, "first tasks of the train split; 0: all", at_least=0)
    step_caps: str = field(
        "eto",
        "caps on an agent's steps by task type: eto, agentgym (30), or a JSON object's path",
        path=True,
    )
    max_steps: int = field(0, "one cap for all task types instead; 0: none", at_least=0)
    move_limit: int = field(
        0, "simulator ticks that end an episode (ETO 200, AgentGym 100); 0: none", at_least=0
    )
    reward: RewardConvention = field(
        "final",
        "final: the score at the end, 0 after a failure; best: its running maximum, as ETO counts",
    )


def make(config: Config) -> "ScienceWorld":
    """Make the environment.

    Raises:
        ConfigError: the package is not installed, or a name is unknown.
        DataError: a file is missing or damaged.
        EnvError: Java is not installed.
    """
    package, version = find_package("scienceworld", extra="scienceworld")
    find_java()
    files = {
        "train": config.train_indices,
        "dev": config.dev_indices,
        "test": config.test_indices,
    }
    task_types = splits.select_task_types(config.tasks)
    if any(files.values()):
        variations = {s: splits.read_variations(path) if path else [] for s, path in files.items()}
    else:
        variations = {split: splits.official_split(task_types, split) for split in SPLITS}
    limits = split_limits(
        train_tasks=config.train_tasks, dev_tasks=config.dev_tasks, test_tasks=config.test_tasks
    )
    variations = {split: variations[split][: limit or None] for split, limit in limits.items()}
    return ScienceWorld(
        package,
        version,
        variations,
        preset=prompts.find(config.prompt, config.prompt_messages),
        labels=simplify.parse_labels(config.simplifications),
        caps=splits.step_caps(config.step_caps, config.max_steps),
        move_limit=config.move_limit,
        reward=config.reward,
        jvms=config.jvms or usable_cores(),
        timeout_s=config.timeout_s,
    )


class ScienceWorld:
    """Implements `eef_jax.envs.base.Env`; create it with `make`.

    JVMs start with the first games and stop with `close`, the environment, or the process.

    Args:
        package: folder of the package scienceworld.
        version: its version.
        variations: the variations of each split.
        preset: prompt format.
        labels: labels of the simplifications.
        caps: cap on an agent's steps for each task type.
        move_limit: ticks of the simulator after which an episode is truncated; 0: no limit.
        reward: `final` or `best`, the score that is paid.
        jvms: maximum number of JVMs.
        timeout_s: wall-clock limit of one call of the simulator, in seconds.
    """

    name = "scienceworld"

    def __init__(
        self,
        package: pathlib.Path,
        version: str,
        variations: dict[str, list[splits.Variation]],
        *,
        preset: Preset,
        labels: tuple[str, ...],
        caps: Mapping[str, int],
        move_limit: int,
        reward: RewardConvention,
        jvms: int,
        timeout_s: float,
    ):
        self._preset = preset
        self._labels = labels
        self._reward = reward
        self._tasks = {
            split: tuple(
                _make_task(split, task_type, n, labels, caps) for task_type, n in variations[split]
            )
            for split in SPLITS
        }
        task_caps = [task.max_steps for split in SPLITS for task in self._tasks[split]]
        self.max_steps = max(task_caps, default=max(caps.values()))
        self.overlap = splits.shared_variations(variations)
        for pair, count in self.overlap.items():
            _log.warning("scienceworld: the splits %s share %d variations", pair, count)
        observation_format = ObservationFormat(
            opening=preset.opening, observation=preset.observation, move_limit=move_limit
        )
        # Everything that determines tasks, observations and rewards.
        identity = (version, self._tasks, preset.opening, preset.observation, move_limit, reward)
        self.dataset_id = hashlib.sha256(repr(identity).encode()).hexdigest()
        self.pool: JvmPool = JvmPool(
            lambda: ScienceWorldSimulator(package, observation_format, timeout_s=timeout_s),
            size=jvms,
        )
        self._gold_paths = GoldPathGenerator(package)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of `train`, `dev` or `test` in a fixed order.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(
                f"unknown split {split!r} of scienceworld; {did_you_mean(split, SPLITS)}"
            )
        return self._tasks[split]

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Return the messages before the task; they are the same for all tasks."""
        return self._preset.messages

    @property
    def instructions(self) -> str:
        """What an untuned agent has to be told where `prompt` does not; else ""."""
        return self._preset.untold()

    def parse(self, message: str) -> str | None:
        """Return the action in a message, or None."""
        return self._preset.parse(message)

    def render(self, action: str, thought: str = "") -> str:
        """Return a message that says `action`, after `thought` where the prompt has thoughts."""
        return self._preset.render(action, thought)

    def invalid(self, message: str) -> str:
        """Return the observation after a message without an action."""
        return self._preset.invalid

    def is_win(self, reward: float) -> bool:
        """Whether the score is 100, under either reward convention."""
        return round(100 * reward) >= 100

    def game(self) -> ReplayGame:
        """Create a game over the shared JVMs in O(1)."""
        return ReplayGame(self.pool, convention=self._reward)

    def gold_path(self, task: Task, *, short: bool = True) -> list[str]:
        """Return the package's solution of a task.

        Args:
            task: the task.
            short: whether to replace walks by teleports if these are allowed.

        Raises:
            EnvError: the package has no solution.
        """
        name, variation, simplifications = parse_payload(task)
        path = self._gold_paths.generate(name, variation, simplifications)
        if short and simplify.can_teleport(self._labels):
            return shorten_with_teleports(path, name)
        return path

    def close(self) -> None:
        """Stop all JVMs. Idempotent."""
        self.pool.close()
        self._gold_paths.close()


def _make_task(
    split: str,
    task_type: splits.TaskType,
    variation: int,
    labels: tuple[str, ...],
    caps: Mapping[str, int],
) -> Task:
    payload = {
        "task": task_type.name,
        "variation": variation,
        "simplifications": simplify.simulator_string(labels, task_type),
    }
    return Task(
        id=f"scienceworld/{split}/{task_type.name}/{variation}",
        env="scienceworld",
        split=split,
        goal=f"{task_type.name.replace('-', ' ')}, variation {variation}",
        payload=json.dumps(payload),
        tags=(task_type.name,),
        max_steps=caps[task_type.name],
    )
