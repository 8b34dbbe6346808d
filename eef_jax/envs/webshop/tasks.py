"""The tasks of a split, each put together when it is asked for, and tasks that an import brings.

An imported task is a goal with the price bound that its expert was told, which the original draws
anew in each of its processes. Imported tasks are train tasks; their products leave dev and test.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.goals import NO_PRICE_BOUND, Goal, split_bound, with_bound
from eef_jax.envs.webshop.lazy import LazySequence
from eef_jax.errors import DataError
from eef_jax.storage.files import read_json
from eef_jax.types import Task

IMPORTED = "tasks.json"  # in the folder that an import makes
_INSTRUCTION = re.compile(r"Instruction:\s*(?:\[SEP\])?\s*(.+?)\s*(?:\[SEP\]|\n|$)")


def split_tasks(
    dataset: Dataset, split: str, limit: int = 0, imported: Sequence[Task] = ()
) -> Sequence[Task]:
    """Tasks of one split in task order, imported ones first.

    Args:
        dataset: the goals and the splits.
        split: which split.
        limit: number of tasks, the first ones; 0: all.
        imported: tasks of an import; train tasks, whatever the splits say.
    """
    numbers = dataset.splits[split]
    first = imported if split == "train" else ()
    places: Sequence[int] = range(len(numbers))
    if imported:
        places = _others(dataset, split, imported)
    count = len(first) + len(places)

    def task(place: int) -> Task:
        if place < len(first):
            return first[place]
        place = places[place - len(first)]
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

    return LazySequence(min(limit or count, count), task)


def _others(dataset: Dataset, split: str, imported: Sequence[Task]) -> list[int]:
    """Places of a split's own tasks that stay beside imported ones."""
    numbers = dataset.splits[split]
    goals = [dataset.goals[json.loads(task.payload)["goal"]] for task in imported]
    if split == "train":
        told = {task.goal for task in imported}
        return [
            p for p in range(len(numbers)) if dataset.goals[int(numbers[p])].instruction not in told
        ]
    products = {goal.asin for goal in goals}
    return [p for p in range(len(numbers)) if dataset.goals[int(numbers[p])].asin not in products]


def imported_task(number: int, goal: Goal, bound: float) -> Task:
    """The train task of a goal with a price bound in dollars (`NO_PRICE_BOUND`: without one)."""
    told = "any" if bound >= NO_PRICE_BOUND else f"{bound:g}"
    return Task(
        id=f"webshop/imported/{number}/{told}",
        env="webshop",
        split="train",
        goal=with_bound(goal, bound).instruction,
        payload=json.dumps({"goal": number, "price_upper": bound}),
        tags=goal.tags,
    )


def read_imported(path: str, dataset: Dataset) -> tuple[Task, ...]:
    """The tasks of an import, checked against a catalogue.

    Args:
        path: the folder of the import, or its `tasks.json`.
        dataset: the goals.

    Raises:
        DataError: the file is missing or damaged, or a task is not of this catalogue.
    """
    file = epath.Path(path).expanduser()
    file = file / IMPORTED if file.is_dir() else file
    rows = read_json(
        file, list, what="imported tasks", remedy="import the trajectories again (docs/experts.md)"
    )
    return tuple(_checked(row, dataset, f"{file}: entry {n}") for n, row in enumerate(rows))


def _checked(row: Mapping[str, Any], dataset: Dataset, place: str) -> Task:
    try:
        payload = json.loads(row["payload"])
        number = range(len(dataset.goals)).index(payload["goal"])
        task = imported_task(number, dataset.goals[number], float(payload["price_upper"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place} is {row!r}, expected a task with a goal below {len(dataset.goals)} and a "
            "price bound; was it imported for another catalogue (env.data_dir)?"
        ) from error
    if task.goal != row["goal"]:
        raise DataError(
            f"{place} is {row['goal']!r}, but goal {number} of this catalogue is {task.goal!r}: it "
            "was imported for another catalogue; set env.data_dir to that one, or import again"
        )
    return task


class GoalFinder:
    """Finds goals by what an agent read: the instruction without its price bound.

    Args:
        dataset: the goals.
    """

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        self._numbers: dict[str, list[int]] = {}
        for number, goal in enumerate(dataset.goals):
            words = _plain(split_bound(goal.instruction)[0])
            self._numbers.setdefault(words, []).append(number)

    def find(self, text: str) -> list[Task]:
        """Tasks of the goals that a text names, with the bound that it tells."""
        found = []
        for match in _INSTRUCTION.finditer(text):
            words, bound = split_bound(match[1])
            for number in self._numbers.get(_plain(words), ()):
                task = imported_task(number, self._dataset.goals[number], bound)
                if task not in found:
                    found.append(task)
        return found


def _plain(words: str) -> str:
    return " ".join(words.split()).rstrip(".")
