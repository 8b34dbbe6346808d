"""One trajectory as JSON: an object with the fields of `types.Trajectory`, on one line of UTF-8.

`task` and each of `steps` are objects with the fields of `types.Task` and `types.Step`. Fields with
a default may be missing. Other programs may read and write these records:

    {"schema": 1, "id": "...", "task": {"id": "...", "env": "webshop", ...},
     "steps": [{"observation": "...", "message": "...", "action": "...", ...}, ...],
     "final_observation": "...", "reward": 0.5, "win": false, "outcome": "failed", ...}
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from eef_jax.types import SCHEMA_VERSION, Outcome, Step, Task, Trajectory


def dump(value: Any) -> bytes:
    """JSON values on one line of UTF-8, without its line break."""
    # Product titles hold unpaired surrogates, which UTF-8 cannot: they become JSON's \\udXXX.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def to_json(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as JSON values."""
    # Not dataclasses.asdict: it copies every token id by itself.
    record = _shallow(trajectory)
    return record | {
        "task": _shallow(trajectory.task),
        "steps": list(map(_shallow, record["steps"])),
    }


def from_json(record: Mapping[str, Any]) -> Trajectory:
    """A trajectory from its JSON values; fields with a default may be missing.

    Raises:
        ValueError: another version's record, or one with missing, unknown or ill-typed fields.
    """
    if record.get("schema") != SCHEMA_VERSION:
        raise ValueError(f"schema {record.get('schema')!r}, this version reads {SCHEMA_VERSION}")
    values = dict(record)
    values["task"] = Task(**_fields(Task, {**values["task"]}, tuples=("tags",)))
    values["steps"] = tuple(
        Step(**_fields(Step, {**step}, tuples=("tokens", "logprobs"))) for step in values["steps"]
    )
    values["outcome"] = Outcome(values["outcome"])
    return Trajectory(**_fields(Trajectory, values))


def _shallow(value: Task | Step | Trajectory) -> dict[str, Any]:
    return {name: getattr(value, name) for name in _DECLARED[type(value)]}


def _fields(kind: type, values: dict[str, Any], tuples: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check the values of a dataclass's plain fields; convert lists to tuples."""
    declared = _DECLARED[kind]
    for name, value in values.items():
        if name in tuples:
            values[name] = tuple(value)
        elif not _fits(value, declared.get(name)):
            raise ValueError(f"{kind.__name__}.{name} is {value!r}, expected {declared[name]}")
    return values


# Records are read by the hundred thousand: the types are looked up once.
_DECLARED: dict[type, dict[str, Any]] = {
    kind: {field.name: field.type for field in dataclasses.fields(kind)}
    for kind in (Task, Step, Trajectory)
}
_PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    float: (float, int),  # a float may come as a whole number
    str | None: (str, type(None)),
}


def _fits(value: object, declared: object) -> bool:
    """Whether a value has a declared plain type; others are not checked."""
    plain = _PLAIN.get(declared)
    if plain is None:
        return True
    if isinstance(value, bool) and declared is not bool:
        return False
    return isinstance(value, plain)


def foreign_format(text: str) -> str:
    """The importer that reads a file of conversations, by its first record; "": none does."""
    try:
        record = json.loads(text)
    except ValueError:
        try:
            record = json.loads(text.partition("\n")[0])
        except ValueError:
            return ""
    if isinstance(record, list):
        record = record[0] if record else None
    if not isinstance(record, dict):
        return ""
    if str(record.get("schema_version", "")).startswith("ATIF"):
        return "atif"
    if "messages" in record:
        return "openai"
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        return ""
    if "item_id" in record:
        return "agentgym"
    return "eto" if "from" in turns[0] else "agentinstruct"
