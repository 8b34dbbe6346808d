"""The tasks of a split, each put together when it is asked for."""

import json
from collections.abc import Sequence

from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.lazy import LazySequence
from eef_jax.types import Task


def split_tasks(dataset: Dataset, split: str, limit: int = 0) -> Sequence[Task]:
    """Tasks of one split in task order.

    Args:
        dataset: the goals and the splits.
        split: which split.
        limit: number of tasks, the first ones; 0: all.
    """
    numbers = dataset.splits[split][: limit or None]

    def task(place: int) -> Task:
        number = int(numbers[place])
        goal = dataset.goals[number]
        return Task(
            id=f"webshop/{split}/{place}",
            env="webshop",
            split=split,
            goal=goal.instruction,
            payload=json.dumps({"goal": number}),
            tags=goal.tags,
        )

    return LazySequence(len(numbers), task)
