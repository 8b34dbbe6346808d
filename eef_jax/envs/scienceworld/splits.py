"""Which variations are trained on, tuned on and tested with, and how many steps each may take.

Official splits come from the table; index files (ETO's format, a JSON list of `[task, variation]`,
or AgentGym's numbers) by path. Tasks are ordered by their place within their type, so the first n
of a split are spread over the types. Knows numbers and names, no simulator.
"""

import fnmatch
from collections.abc import Mapping
from typing import Any

from eef_jax.envs import _prompt
from eef_jax.envs.scienceworld import task_types
from eef_jax.envs.scienceworld.task_types import TaskType
from eef_jax.errors import ConfigError, DataError, check_at_least, did_you_mean
from eef_jax.storage.files import read_json

SPLITS = ("train", "dev", "test")
# ETO's caps for the types that ETO leaves out.
DEFAULT_CAP = 120
AGENTGYM_CAP = 30  # `max_round` of its evaluation
# AgentGym's 23 types: all but those whose gold paths do not fit its rounds.
_NOT_IN_AGENTGYM = ("5-1", "5-2", "9-", "10-")

Variation = tuple[TaskType, int]  # a task type and the number of a variation


def select_task_types(text: str) -> tuple[TaskType, ...]:
    """Task types by name: `all`, `eto` (24), `agentgym` (23), or names and patterns with commas.

    Raises:
        ConfigError: a name or pattern that no type has.
    """
    known = tuple(task_types.TASK_TYPES.values())
    if text == "all":
        return known
    if text == "eto":
        return tuple(kind for kind in known if kind.eto)
    if text == "agentgym":
        return tuple(kind for kind in known if not kind.number.startswith(_NOT_IN_AGENTGYM))
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
    return tuple(kind for kind in known if kind.name in chosen)


def official_split(chosen: tuple[TaskType, ...], split: str) -> list[Variation]:
    """The variations of an official split, one of each type, then the next of each."""
    games = [(kind, number) for kind in chosen for number in kind.variations(split)]
    return interleave(games)


def interleave(games: list[Variation]) -> list[Variation]:
    """The same in the order of each variation's place within its type."""
    seen: dict[str, int] = {}
    keyed = []
    for kind, number in games:
        place = seen[kind.name] = seen.get(kind.name, -1) + 1
        keyed.append((place, kind, number))
    return [(kind, number) for _, kind, number in sorted(keyed, key=lambda row: row[0])]


def read_index_file(path: str) -> list[Variation]:
    """The variations of an index file, each once, in its order.

    Entries are ETO's `[task, variation]`, or AgentGym's: a place in its list of games (see
    `agentgym`), bare or as `{"item_id": "sciworld_12"}`.

    Raises:
        DataError: the file is missing, damaged, or names what is not there.
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
    """AgentGym's 4,639 games in its order: all variations of each of its types."""
    return [(kind, number) for kind in select_task_types("agentgym") for number in range(kind.test)]


def _entry(row: Any, numbered: list[Variation]) -> Variation:
    item = row["item_id"] if isinstance(row, dict) and "item_id" in row else row
    if isinstance(item, str) and item.rpartition("_")[2].isdecimal():
        item = int(item.rpartition("_")[2])
    if isinstance(item, int) and not isinstance(item, bool):
        if not 0 <= item < len(numbered):
            raise ValueError(f" is game {item} of AgentGym's, which are 0 to {len(numbered) - 1}")
        return numbered[item]
    right = isinstance(item, list) and len(item) == 2 and isinstance(item[0], str)
    if not right or isinstance(item[1], bool) or not isinstance(item[1], int):
        raise ValueError(
            f" is {row!r}, expected [task name, variation], or AgentGym's number or item_id"
        )
    try:
        kind = task_types.find_task_type(item[0])
    except DataError as error:
        raise ValueError(f": {error}") from error
    if not 0 <= item[1] < kind.test:
        raise ValueError(f" is variation {item[1]} of {kind.name}, which has 0 to {kind.test - 1}")
    return kind, item[1]


def shared_variations(splits: Mapping[str, list[Variation]]) -> dict[str, int]:
    """How many variations two splits share, as `{"train, dev": 54}`, where they share any."""
    shared = {}
    for place, first in enumerate(SPLITS):
        for second in SPLITS[place + 1 :]:
            if common := set(splits[first]) & set(splits[second]):
                shared[f"{first}, {second}"] = len(common)
    return shared


def step_caps(text: str, max_steps: int) -> Mapping[str, int]:
    """The cap on agent steps of each task type.

    Args:
        text: `eto`, `agentgym`, or the path of a JSON object from task names to caps; names that
            it lacks have ETO's.
        max_steps: one cap for all types instead; 0: none.

    Raises:
        ConfigError: `text` is neither.
        DataError: the file is not what it should be.
    """
    check_at_least("env.max_steps", max_steps, 0)
    if max_steps:
        return dict.fromkeys(task_types.TASK_TYPES, max_steps)
    if text == "agentgym":
        return dict.fromkeys(task_types.TASK_TYPES, AGENTGYM_CAP)
    found = {kind.name: kind.eto or DEFAULT_CAP for kind in task_types.TASK_TYPES.values()}
    if text == "eto":
        return found
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
        found[task_types.find_task_type(name).name] = cap
    return found
