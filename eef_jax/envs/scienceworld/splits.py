"""The variations of each split, and the step cap of each task type.

Official splits come from `task_types`; others from index files (ETO's format, a JSON list of
`[task, variation]`, or AgentGym's numbers). The task types of an official split alternate, so its
first n tasks are spread over all types.
"""

import collections
import fnmatch
import itertools
from collections.abc import Mapping
from typing import Any

from eef_jax.envs import _prompt
from eef_jax.envs.scienceworld import task_types
from eef_jax.envs.scienceworld.task_types import TaskType
from eef_jax.errors import ConfigError, DataError, check_at_least, did_you_mean
from eef_jax.storage.files import read_json

SPLITS = ("train", "dev", "test")
DEFAULT_CAP = 120  # steps, for the task types that ETO leaves out
AGENTGYM_CAP = 30  # steps, `max_round` of its evaluation
# AgentGym has 23 types: without those whose gold paths are longer than its cap.
_NOT_IN_AGENTGYM = ("5-1", "5-2", "9-", "10-")

Variation = tuple[TaskType, int]  # task type and number of the variation, from 0


def select_task_types(text: str) -> tuple[TaskType, ...]:
    """Return the task types that a string selects.

    Args:
        text: `all`, `eto` (24), `agentgym` (23), or names, numbers and patterns with commas.

    Raises:
        ConfigError: a name, number or pattern matches no type.
    """
    known = tuple(task_types.TASK_TYPES.values())
    if text == "all":
        return known
    if text == "eto":
        return tuple(task_type for task_type in known if task_type.eto_cap)
    if text == "agentgym":
        return tuple(
            task_type for task_type in known if not task_type.number.startswith(_NOT_IN_AGENTGYM)
        )
    chosen: set[str] = set()
    for pattern in filter(None, (part.strip() for part in text.split(","))):
        found = [k.name for k in known if k.number == pattern or fnmatch.fnmatch(k.name, pattern)]
        if not found:
            raise ConfigError(
                f"env.tasks={text!r}: {pattern!r} is not a task type; "
                f"{did_you_mean(pattern, task_types.TASK_TYPES)}; "
                "or all, eto, agentgym, or a pattern such as find-*"
            )
        chosen.update(found)
    if not chosen:
        raise ConfigError(f"env.tasks={text!r} names no task type; all names all of them")
    return tuple(task_type for task_type in known if task_type.name in chosen)


def official_split(chosen: tuple[TaskType, ...], split: str) -> list[Variation]:
    """Return an official split: the first variation of each type, then the second of each."""
    return interleave(
        [(task_type, number) for task_type in chosen for number in task_type.variations(split)]
    )


def interleave(variations: list[Variation]) -> list[Variation]:
    """Sort variations by their position within their task type, so that types alternate."""
    counts: collections.Counter[str] = collections.Counter()
    keyed = []
    for task_type, number in variations:
        keyed.append((counts[task_type.name], task_type, number))
        counts[task_type.name] += 1
    return [(task_type, number) for _, task_type, number in sorted(keyed, key=lambda row: row[0])]


def read_variations(path: str) -> list[Variation]:
    """Read the variations of an index file, in its order and without duplicates.

    Entries are ETO's `[task, variation]`, or AgentGym's: an index into `agentgym_games()`, bare or
    as `{"item_id": "sciworld_12"}`.

    Raises:
        DataError: the file is missing or damaged, or names an unknown task or variation.
    """
    numbered = agentgym_games()
    entries = _prompt.read_index_file(
        path,
        lambda row: _entry(row, numbered),
        what="variations",
        remedy='expected JSON such as [["find-plant", 3], ...]',
    )
    return list(dict.fromkeys(entries))  # each once, in order


def agentgym_games() -> list[Variation]:
    """Return AgentGym's 4,639 games in its order: all variations of each of its types."""
    chosen = select_task_types("agentgym")
    return [
        (task_type, number) for task_type in chosen for number in range(task_type.num_variations)
    ]


def _entry(row: Any, numbered: list[Variation]) -> Variation:
    item = row["item_id"] if isinstance(row, dict) and "item_id" in row else row
    if isinstance(item, str) and item.rpartition("_")[2].isdecimal():
        item = int(item.rpartition("_")[2])
    if isinstance(item, int) and not isinstance(item, bool):
        if not 0 <= item < len(numbered):
            raise ValueError(f" is game {item} of AgentGym's, which are 0 to {len(numbered) - 1}")
        return numbered[item]
    is_pair = isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)
    if not is_pair or isinstance(item[1], bool) or not isinstance(item[1], int):
        raise ValueError(
            f" is {row!r}, expected [task name, variation], or AgentGym's number or item_id"
        )
    try:
        task_type = task_types.find_task_type(item[0])
    except DataError as error:
        raise ValueError(f": {error}") from error
    if not 0 <= item[1] < task_type.num_variations:
        last = task_type.num_variations - 1
        raise ValueError(f" is variation {item[1]} of {task_type.name}, which has 0 to {last}")
    return task_type, item[1]


def shared_variations(splits: Mapping[str, list[Variation]]) -> dict[str, int]:
    """Return how many variations each pair of splits shares, as `{"train, dev": 54}`."""
    shared = {}
    for first, second in itertools.combinations(SPLITS, 2):
        if common := set(splits[first]) & set(splits[second]):
            shared[f"{first}, {second}"] = len(common)
    return shared


def step_caps(text: str, max_steps: int) -> Mapping[str, int]:
    """Return the cap on agent steps of each task type.

    Args:
        text: `eto`, `agentgym`, or the path of a JSON object that maps task names to caps;
            other types keep ETO's.
        max_steps: one cap for all types instead; 0: none.

    Raises:
        ConfigError: `text` is neither a name nor a path.
        DataError: the file is missing or damaged, or a cap is not a positive integer.
    """
    check_at_least("env.max_steps", max_steps, 0)
    if max_steps:
        return dict.fromkeys(task_types.TASK_TYPES, max_steps)
    if text == "agentgym":
        return dict.fromkeys(task_types.TASK_TYPES, AGENTGYM_CAP)
    caps = {
        task_type.name: task_type.eto_cap or DEFAULT_CAP
        for task_type in task_types.TASK_TYPES.values()
    }
    if text == "eto":
        return caps
    if not text.endswith(".json"):
        raise ConfigError(
            f"env.step_caps={text!r}: {did_you_mean(text, ('eto', 'agentgym'))}; or the path of a "
            ".json file"
        )
    for name, cap in read_json(
        text, what="step caps", remedy='expected JSON such as {"boil": 100, ...}'
    ).items():
        if isinstance(cap, bool) or not isinstance(cap, int) or cap < 1:
            raise DataError(f"{text}: the cap of {name!r} is {cap!r}, expected a whole number >= 1")
        caps[task_types.find_task_type(name).name] = cap
    return caps
