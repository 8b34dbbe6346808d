"""How the careful shopper plays: `python -m benchmarks.webshop.expert --config.env.data_dir=DIR`.

Each of `--seeds` shoppers plays a split once. Then the same shopper without slips plays the tasks
that were lost, from the start and from the states that EEF explores in the lost episodes, under the
same cap: where it wins more often from the states, there is something to learn from the failures.
Prints a table and writes its figures to `webshop-expert-SPLIT.json`.
"""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from benchmarks.common import machine, tables
from eef_jax import cli
from eef_jax import config as config_lib
from eef_jax import scores as scores_lib
from eef_jax.envs.base import Env
from eef_jax.errors import ConfigError
from eef_jax.experts import webshop_careful as expert
from eef_jax.methods import _forks
from eef_jax.rollout import loop, play
from eef_jax.storage.files import write_json
from eef_jax.storage.provenance import collect_provenance
from eef_jax.types import Episode, Trajectory

RESULTS = pathlib.Path(__file__).parents[1] / "results"
DRAWS = 2000  # of the bootstrap
HEADER = (
    *("seeds", "win rate, %", "mean reward", "actions of failures"),
    *("words of wins", "95 % below", "wins from s_0, %", "from states, %", "ratio"),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One task played once with slips and, where it was lost, on from its states without them.

    Attributes:
        task: the task's id.
        reward: what the shopper with slips got (0-1).
        win: whether it won.
        actions: number of its actions.
        words: number of words in its observations and messages.
        from_start: wins of the shopper without slips from the start: 0 or 1; 0 after a win.
        from_states: its wins from the explored states; 0 after a win.
        states: number of explored states; 0 after a win.
    """

    task: str
    reward: float
    win: bool
    actions: int
    words: int
    from_start: int = 0
    from_states: int = 0
    states: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is printed of one shopper, or of several.

    Attributes:
        seeds: seeds of the shoppers.
        episodes: number of episodes with slips.
        win_rate: share of wins (0-1), with its Wilson interval.
        win_interval: the 95 % interval of `win_rate`, as if tasks were drawn anew for each seed.
        reward: mean reward (0-1).
        actions_of_failures: mean number of actions of lost episodes.
        words_of_wins: mean number of words of won episodes.
        words_of_long_wins: 95 in 100 won episodes have at most this number of words.
        from_start: share of lost tasks that are won without slips from the start.
        from_states: share of episodes from explored states that are won without slips.
        ratio: `from_states` over `from_start`.
        ratio_interval: its 95 % interval, by a bootstrap over tasks.
    """

    seeds: list[int]
    episodes: int
    win_rate: float
    win_interval: tuple[float, float]
    reward: float
    actions_of_failures: float
    words_of_wins: float
    words_of_long_wins: float
    from_start: float
    from_states: float
    ratio: float
    ratio_interval: tuple[float, float]

    def row(self) -> list[str]:
        """The cells of a line of the table."""
        low, high = self.win_interval
        down, up = self.ratio_interval
        seeds = f"{self.seeds[0]}" if len(self.seeds) == 1 else f"{self.seeds[0]}-{self.seeds[-1]}"
        return [
            seeds,
            f"{100 * self.win_rate:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            f"{self.reward:.2f}",
            f"{self.actions_of_failures:.1f}",
            f"{self.words_of_wins:,.0f}",
            f"{self.words_of_long_wins:,.0f}",
            f"{100 * self.from_start:.1f}",
            f"{100 * self.from_states:.1f}",
            f"{self.ratio:.2f} [{down:.2f}, {up:.2f}]",
        ]


def attempts(env: Env, profile: expert.Config, *, split: str, states: int) -> list[Attempt]:
    """Play each task of a split with slips and, where that loses, on without them.

    Args:
        env: the shop; its cap on actions holds.
        profile: the shopper with slips.
        split: which tasks.
        states: M, the number of states to explore in a lost episode.
    """
    first = play.from_start(env.tasks(split), env.max_steps, prefix="expert")
    played = _play(env, profile, first)
    again = [
        episode
        for lost in _forks.explored(played, "failed")
        for episode in _forks.episodes(
            lost.task,
            _forks.starts([lost], states=states, explore="failed", max_steps=env.max_steps),
            round=1,
            rollouts=1,
            max_steps=env.max_steps,
        )
    ]
    continued = collections.defaultdict(list)
    for trajectory in _play(env, expert.without_slips(profile), again):
        continued[trajectory.task.id].append(trajectory)
    return [_attempt(one, continued[one.task.id]) for one in played]


def _play(env: Env, profile: expert.Config, episodes: Sequence[Episode]) -> list[Trajectory]:
    policy = expert.make(profile, env=env)
    return loop.play_episodes_sync(env, policy, episodes, source="expert", progress=False)


def _attempt(played: Trajectory, continued: Sequence[Trajectory]) -> Attempt:
    texts = [text for step in played.steps for text in (step.observation, step.message)]
    forks = [trajectory for trajectory in continued if trajectory.parent is not None]
    return Attempt(
        task=played.task.id,
        reward=played.reward,
        win=played.win,
        actions=len(played.steps),
        words=sum(len(text.split()) for text in texts),
        from_start=sum(trajectory.win for trajectory in continued if trajectory.parent is None),
        from_states=sum(trajectory.win for trajectory in forks),
        states=len(forks),
    )


def summarize(by_seed: Mapping[int, Sequence[Attempt]]) -> Figures:
    """The figures of the attempts of one or several seeds on the same tasks.

    Raises:
        ConfigError: nothing was won or nothing was lost, so there is nothing to compare.
    """
    found = [attempt for seed in by_seed.values() for attempt in seed]
    wins, lost = ([one for one in found if one.win is win] for win in (True, False))
    if not wins or not lost:
        raise ConfigError(
            f"of {len(found)} episodes {len(wins)} were won, expected wins and failures: play more "
            "tasks (config.env.train_tasks), or another profile (config.expert)"
        )
    words = sorted(one.words for one in wins)
    totals = _totals(lost)
    from_start, from_states, ratio = map(float, _ratio(totals.sum(axis=0)))
    rng = np.random.default_rng(0)
    drawn = rng.integers(len(totals), size=(DRAWS, len(totals)))
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw without a win from the start
        ratios = np.sort(_ratio(totals[drawn].sum(axis=1))[2])  # undefined ones come last
    low, high = ratios[[round(0.025 * DRAWS), round(0.975 * DRAWS) - 1]]
    return Figures(
        seeds=list(by_seed),
        episodes=len(found),
        win_rate=len(wins) / len(found),
        win_interval=scores_lib.wilson_interval(len(wins), len(found)),
        reward=_mean([one.reward for one in found]),
        actions_of_failures=_mean([one.actions for one in lost]),
        words_of_wins=_mean(words),
        words_of_long_wins=words[math.ceil(0.95 * len(words)) - 1],
        from_start=from_start,
        from_states=from_states,
        ratio=ratio,
        ratio_interval=(float(low), float(high)),
    )


def _totals(lost: Sequence[Attempt]) -> np.ndarray:
    """Of each task lost with any seed: (times lost, wins from s_0, states, wins from states)."""
    found: dict[str, np.ndarray] = {}
    for one in lost:
        counts = np.array([1, one.from_start, one.states, one.from_states], float)
        found[one.task] = found.get(one.task, 0) + counts
    return np.stack(list(found.values()))


def _ratio(totals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Win shares from s_0 and from states, and the second over the first."""
    lost, from_start, states, from_states = np.moveaxis(totals, -1, 0)
    start, later = from_start / lost, from_states / states
    return start, later, later / start


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def main() -> None:
    """Print the table and write the figures."""
    given, config = flags.FLAGS, cli.read_config()
    assert config is not None, "the flag has a default"
    profile = config.expert.options
    if not isinstance(profile, expert.Config):
        raise ConfigError(
            f"config.expert.name is {config.expert.name!r}, expected 'webshop_careful'"
        )
    env = config_lib.make("env", config.env)
    states = config.method.options.states
    by_seed = {
        seed: attempts(
            env, dataclasses.replace(profile, seed=seed), split=given.split, states=states
        )
        for seed in range(profile.seed, profile.seed + given.seeds)
    }
    rows = [summarize({seed: found}) for seed, found in by_seed.items()]
    rows += [summarize(by_seed)] * (given.seeds > 1)
    played = {"expert": dataclasses.asdict(profile), "max_steps": env.max_steps, "states": states}
    figures = {
        "made_by": collect_provenance(played, profile.seed),
        "machine": machine.describe(),
        "dataset": env.dataset_id,
        "split": given.split,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    results = pathlib.Path(given.results)
    results.mkdir(parents=True, exist_ok=True)
    write_json(results / f"webshop-expert-{given.split}.json", figures | played)
    print("\n".join(tables.table(HEADER, [row.row() for row in rows])))


if __name__ == "__main__":
    flags.DEFINE_string("split", "train", "The tasks to play: train, dev or test.")
    flags.DEFINE_integer("seeds", 4, "Number of shoppers.", lower_bound=1)
    cli.define_path("results", str(RESULTS), "Folder of the figures.", local=True)
    cli.define_config("configs/webshop.py:official")
    cli.run(main)
