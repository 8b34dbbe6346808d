"""ScienceWorld: elementary science in a text world of ten rooms, 30 task types, 7,207 variations.

The simulator is the package `scienceworld` (Wang et al., EMNLP 2022), in JVMs of our own that are
started so that it is deterministic, and played by the rules of its Python wrapper (see `world`).
Episodes are lists of actions over a bounded pool of JVMs (`eef_jax.envs._jvm`).

Files: `table` (task types), `splits` (variations, step caps), `simplify` (reliefs), `prompts` (how
an agent is spoken to), `world` (the simulator) and `gold` (its own solutions). This file ties them
to the `Env` protocol and knows nothing of models.
"""

import hashlib
import json
import logging
import pathlib
from collections.abc import Mapping, Sequence

from eef_jax.envs._jvm.game import REWARD_CONVENTIONS, ReplayGame, RewardConvention
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
from eef_jax.errors import ConfigError, check_at_least, check_one_of, did_you_mean
from eef_jax.types import Message, Task

__all__ = ["ScienceWorld", "make"]

_log = logging.getLogger(__name__)


def make(
    *,
    tasks: str = "all",
    simplifications: str = "eto",
    prompt: str = "action",
    prompt_messages: str = "",
    train_indices: str = "",
    dev_indices: str = "",
    test_indices: str = "",
    train_tasks: int = 0,
    dev_tasks: int = 0,
    test_tasks: int = 0,
    step_caps: str = "eto",
    max_steps: int = 0,
    move_limit: int = 0,
    reward: RewardConvention = "final",
    jvms: int = 0,
    timeout_s: float = 60.0,
) -> "ScienceWorld":
    """Make the environment.

    Args:
        tasks: task types of the official splits: `all`, `eto` (24), `agentgym` (23), or names,
            numbers and patterns with commas, as `"find-*,lifespan-*,power-component"`.
        simplifications: `eto`, `easy`, `none`, or labels with commas; see `simplify`.
        prompt: `react` (ETO's convention), `agentgym` or `action`; see `prompts`.
        prompt_messages: path of a JSON list of messages that stand before the task instead of the
            preset's own, e.g. with a worked example.
        train_indices: path of a JSON list of `[task, variation]`, ETO's format, or of AgentGym's
            numbers or item ids; with one or more of these, they are the splits, those that are not
            given are empty, and what two of them share is said in a warning (ETO's own train and
            dev files share 54).
        dev_indices: likewise.
        test_indices: likewise.
        train_tasks: number of tasks of `train`, its first ones; 0: all.
        dev_tasks: number of tasks of `dev`, its first ones; 0: all.
        test_tasks: number of tasks of `test`, its first ones; 0: all.
        step_caps: caps on an agent's steps by task type: `eto`, `agentgym` (30), or the path of a
            JSON object.
        max_steps: one cap for all task types instead; 0: none.
        move_limit: ticks of the simulator that end an episode (ETO 200, AgentGym 100); 0: none.
        reward: `final`, the score at the end (0 after a failure), or `best`, its running maximum,
            as ETO stats. Both stand in each step's `info["rewards"]`.
        jvms: bound on the simulators' processes; 0: one for each core this process may use.
        timeout_s: wall-clock limit of one call of the simulator; its JVM is then replaced.

    Raises:
        ConfigError: the package is not installed, or a name is unknown.
        DataError: a file is missing or damaged.
        EnvError: there is no Java.
    """
    check_one_of("env.reward", reward, REWARD_CONVENTIONS)
    for field, value in (("env.jvms", jvms), ("env.move_limit", move_limit)):
        check_at_least(field, value, 0)
    package, version = find_package("scienceworld", extra="scienceworld")
    find_java()
    files = {"train": train_indices, "dev": dev_indices, "test": test_indices}
    chosen = splits.select_task_types(tasks)
    if any(files.values()):
        games = {s: splits.read_index_file(path) if path else [] for s, path in files.items()}
    else:
        games = {split: splits.official_split(chosen, split) for split in SPLITS}
    limits = split_limits(train_tasks=train_tasks, dev_tasks=dev_tasks, test_tasks=test_tasks)
    games = {split: games[split][: limit or None] for split, limit in limits.items()}
    return ScienceWorld(
        package,
        version,
        games,
        preset=prompts.find(prompt, prompt_messages),
        labels=simplify.parse(simplifications),
        caps=splits.step_caps(step_caps, max_steps),
        move_limit=move_limit,
        reward=reward,
        jvms=jvms or usable_cores(),
        timeout_s=timeout_s,
    )


class ScienceWorld:
    """The `Env` (see `eef_jax.envs.base.Env`); make it with `make`.

    JVMs start with the first games and end with `close`, with the environment, or with the process.

    Args:
        package: folder of the package scienceworld.
        version: its version.
        games: task types and variations of each split.
        preset: how the agent is spoken to.
        labels: simplifications.
        caps: cap on an agent's steps of each task type.
        move_limit: see `make`.
        reward: see `make`.
        jvms: bound on the number of JVMs.
        timeout_s: see `make`.
    """

    name = "scienceworld"

    def __init__(
        self,
        package: pathlib.Path,
        version: str,
        games: dict[str, list[splits.Variation]],
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
            split: tuple(_task(split, kind, n, labels, caps) for kind, n in games[split])
            for split in SPLITS
        }
        named = [task.max_steps for split in SPLITS for task in self._tasks[split]]
        self.max_steps = max(named, default=max(caps.values()))
        self.overlap = splits.shared_variations(games)
        for pair, count in self.overlap.items():
            _log.warning("scienceworld: the splits %s share %d variations", pair, count)
        frame = ObservationFormat(
            opening=preset.opening, observation=preset.observation, move_limit=move_limit
        )
        decides = (version, self._tasks, preset.opening, preset.observation, move_limit, reward)
        self.dataset_id = hashlib.sha256(repr(decides).encode()).hexdigest()
        self.pool: JvmPool = JvmPool(
            lambda: ScienceWorldSimulator(package, frame, timeout_s=timeout_s), size=jvms
        )
        self._gold_paths = GoldPathGenerator(package)

    def tasks(self, split: str) -> Sequence[Task]:
        """Tasks of `train`, `dev` or `test`, in a fixed order, the task types taking turns.

        Raises:
            ConfigError: there is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(
                f"unknown split {split!r} of scienceworld; {did_you_mean(split, SPLITS)}"
            )
        return self._tasks[split]

    def prompt(self, task: Task) -> tuple[Message, ...]:
        """Messages before the task; they do not depend on it."""
        return self._preset.messages

    def parse(self, message: str) -> str | None:
        """The action in a message, or None."""
        return self._preset.parse(message)

    def render(self, action: str) -> str:
        """A message that says `action`."""
        return self._preset.render(action)

    def invalid(self, message: str) -> str:
        """What an agent reads after a message without an action."""
        return self._preset.invalid

    def is_win(self, reward: float) -> bool:
        """Whether the score is 100, in either convention."""
        return round(100 * reward) >= 100

    def game(self) -> ReplayGame:
        """A new game over the shared JVMs: O(1)."""
        return ReplayGame(self.pool, convention=self._reward)

    def gold_path(self, task: Task, *, short: bool = True) -> list[str]:
        """The package's solution of a task.

        Args:
            task: what to solve.
            short: whether walks become teleports where these are allowed.

        Raises:
            EnvError: there is none.
        """
        name, variation, simplifications = parse_payload(task)
        path = self._gold_paths.generate(name, variation, simplifications)
        return (
            shorten_with_teleports(path, name)
            if short and simplify.can_teleport(self._labels)
            else path
        )

    def close(self) -> None:
        """End all JVMs; closing twice is fine."""
        self.pool.close()
        self._gold_paths.close()


def _task(
    split: str,
    kind: splits.TaskType,
    variation: int,
    labels: tuple[str, ...],
    caps: Mapping[str, int],
) -> Task:
    payload = {
        "task": kind.name,
        "variation": variation,
        "simplifications": simplify.simulator_string(labels, kind),
    }
    return Task(
        id=f"scienceworld/{split}/{kind.name}/{variation}",
        env="scienceworld",
        split=split,
        goal=f"{kind.name.replace('-', ' ')}, variation {variation}",
        payload=json.dumps(payload),
        tags=(kind.name,),
        max_steps=caps[kind.name],
    )
