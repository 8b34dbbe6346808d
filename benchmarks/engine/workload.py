"""The workload that every engine is timed on: token ids with the structure of EEF exploration.

From the first state of an expert's trajectory and from later ones the policy plays some turns: it
generates a fixed number of tokens greedily, then reads an observation that depends on (expert,
state, turn) only. So all engines compute the same token for token. Needs numpy only, since it runs
in the peers' interpreters.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable

import numpy as np

Key = tuple[int, int]  # expert, state
Outputs = dict[Key, list[list[int]]]


@dataclasses.dataclass(frozen=True)
class Workload:
    """Sizes of the phase.

    Attributes:
        experts: number of expert trajectories.
        states: states of each that are played from, including the first one.
        turns: turns that the policy plays from each state.
        prompt: tokens before the first turn.
        action: tokens that the policy generates in a turn.
        observation: tokens of the observation after each turn.
        ids: range of the token ids, the upper end excluded.
        seed: decides all ids.
    """

    experts: int = 8
    states: int = 6
    turns: int = 3
    prompt: int = 128
    action: int = 16
    observation: int = 96
    ids: tuple[int, int] = (100, 40_000)
    seed: int = 0

    def episodes(self) -> list[Key]:
        """Return (expert, state) of every episode."""
        return [(e, s) for e in range(self.experts) for s in range(self.states)]

    def start(self, expert: int, state: int) -> list[int]:
        """Return the ids of the prompt and of the expert's turns up to a state."""
        ids = self._random_ids(0, expert, size=self.prompt)
        for turn in range(state):
            ids += self._random_ids(1, expert, turn, size=self.action + self.observation)
        return ids

    def observe(self, key: Key, turn: int) -> list[int]:
        """Return the ids of the observation after a turn of the policy."""
        return self._random_ids(2, *key, turn, size=self.observation)

    def conversation(self, key: Key, actions: list[list[int]]) -> list[int]:
        """Return the ids of an episode in which the policy took these actions."""
        ids = self.start(*key)
        for turn, action in enumerate(actions):
            ids += action + self.observe(key, turn)
        return ids

    @property
    def max_tokens(self) -> int:
        """Tokens of the longest conversation."""
        turn = self.action + self.observation
        return self.prompt + (self.states - 1 + self.turns) * turn

    def _random_ids(self, *place: int, size: int) -> list[int]:
        return np.random.default_rng([self.seed, *place]).integers(*self.ids, size).tolist()


def time_run(play: Callable[[Workload], Outputs], *, experts: int) -> dict[str, object]:
    """Play one turn of other ids to warm up, then time the whole workload."""
    play(Workload(experts=1, turns=1, seed=1))
    began = time.perf_counter()
    outputs = play(Workload(experts=experts))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "outputs": [[*key, outputs[key]] for key in sorted(outputs)]}


def print_result(result: dict[str, object]) -> None:
    """Print a result as the last line of a runner's output."""
    sys.stdout.flush()
    print("\n" + json.dumps(result), flush=True)


def play_by_turn(
    contexts: dict[Key, list[int]],
    workload: Workload,
    generate: Callable[[list[list[int]]], list[list[int]]],
    *,
    batch: int | None = None,
) -> Outputs:
    """Play all episodes turn by turn, with an engine that takes batches of whole contexts."""
    outputs: Outputs = {key: [] for key in contexts}
    keys = list(contexts)
    size = batch or len(keys)
    for turn in range(workload.turns):
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            for key, ids in zip(part, generate([contexts[k] for k in part]), strict=True):
                outputs[key].append(ids)
                contexts[key] = contexts[key] + ids + workload.observe(key, turn)
    return outputs
