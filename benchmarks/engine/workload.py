"""What every engine is timed on: token ids with the shape of an EEF exploration phase.

An expert has played some turns. From the first state and from later ones the policy plays turns of
its own: a fixed number of tokens drawn greedily, then an observation that depends on (expert,
state, turn) alone. So all engines compute the same, token for token. Needs numpy alone: it runs in
the interpreters of the peers.
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
        experts: trajectories that are forked.
        states: states of each that are played from, the first one included.
        turns: that the policy plays from each.
        prompt: tokens before the first turn.
        action: tokens of a turn's answer.
        observation: tokens that follow it.
        ids: the ids that occur, from the first up to the second.
        seed: of all of it.
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
        """(expert, state) of every episode."""
        return [(e, s) for e in range(self.experts) for s in range(self.states)]

    def start(self, expert: int, state: int) -> list[int]:
        """Ids of the prompt and of the expert's turns up to a state."""
        ids = self._draw(0, expert, size=self.prompt)
        for turn in range(state):
            ids += self._draw(1, expert, turn, size=self.action + self.observation)
        return ids

    def answer(self, key: Key, turn: int) -> list[int]:
        """Ids of the observation after a turn of the policy's."""
        return self._draw(2, *key, turn, size=self.observation)

    def before(self, key: Key, answers: list[list[int]]) -> list[int]:
        """Ids of a conversation in which these answers were given."""
        ids = self.start(*key)
        for turn, answer in enumerate(answers):
            ids += answer + self.answer(key, turn)
        return ids

    @property
    def longest(self) -> int:
        """Tokens of the longest conversation."""
        turn = self.action + self.observation
        return self.prompt + (self.states - 1 + self.turns) * turn

    def _draw(self, *place: int, size: int) -> list[int]:
        return np.random.default_rng([self.seed, *place]).integers(*self.ids, size).tolist()


def time_it(play: Callable[[Workload], Outputs], *, experts: int) -> dict[str, object]:
    """Play one turn of other ids to warm up, then the real workload against the clock."""
    play(Workload(experts=1, turns=1, seed=1))
    began = time.perf_counter()
    outputs = play(Workload(experts=experts))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "outputs": [[*key, outputs[key]] for key in sorted(outputs)]}


def tell(result: dict[str, object]) -> None:
    """Print a result as the last line of a runner's output."""
    sys.stdout.flush()
    print("\n" + json.dumps(result), flush=True)


def in_turns(
    contexts: dict[Key, list[int]],
    workload: Workload,
    generate: Callable[[list[list[int]]], list[list[int]]],
    *,
    batch: int | None = None,
) -> Outputs:
    """Play all episodes turn by turn with an engine that takes batches of whole contexts."""
    outputs: Outputs = {key: [] for key in contexts}
    keys = list(contexts)
    size = batch or len(keys)
    for turn in range(workload.turns):
        for start in range(0, len(keys), size):
            part = keys[start : start + size]
            for key, ids in zip(part, generate([contexts[k] for k in part]), strict=True):
                outputs[key].append(ids)
                contexts[key] = contexts[key] + ids + workload.answer(key, turn)
    return outputs
