"""The tasks of a split as a sequence that makes each when it is asked for.

A dataset may hold millions of goals, and the text of each is put together from its product's; what
nobody plays costs nothing. Knows goals and their numbers, nothing of games.
"""

import json
from collections.abc import Sequence
from typing import overload

from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.types import Task


class Tasks(Sequence[Task]):
    """Tasks of one split in task order; equal to any sequence of equal tasks.

    Args:
        dataset: the goals and the splits.
        split: which split.
        limit: only the first so many tasks; 0: all.
    """

    def __init__(self, dataset: Dataset, split: str, limit: int = 0):
        self._dataset = dataset
        self._split = split
        self._numbers = dataset.splits[split][: limit or None]

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, place: int) -> Task: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Task, ...]: ...

    def __getitem__(self, place: int | slice) -> Task | tuple[Task, ...]:
        if isinstance(place, slice):
            return tuple(self._task(n) for n in range(*place.indices(len(self))))
        return self._task(range(len(self))[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list

    def _task(self, place: int) -> Task:
        number = int(self._numbers[place])
        goal = self._dataset.goals[number]
        return Task(
            id=f"webshop/{self._split}/{place}",
            env="webshop",
            split=self._split,
            goal=goal.instruction,
            payload=json.dumps({"goal": number}),
            tags=goal.tags,
        )
