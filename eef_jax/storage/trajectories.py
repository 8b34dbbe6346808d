"""Trajectories as JSON lines: one attempt a line, in shards, with a schema version.

A line is an object with the fields of `types.Trajectory`; `task` and each of `steps` are objects
with the fields of `types.Task` and `types.Step`. Fields with a default may be missing. Other
programs may read and write these files:

    {"schema": 1, "id": "...", "task": {"id": "...", "env": "webshop", ...},
     "steps": [{"observation": "...", "message": "...", "action": "...", ...}, ...],
     "final_observation": "...", "reward": 0.5, "win": false, "outcome": "failed", ...}
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files
from eef_jax.types import SCHEMA_VERSION, Outcome, Step, Task, Trajectory

FILE = "trajectories.jsonl"
_CORRECT = (
    "correct the line, or take another file; eef_jax/storage/trajectories.py documents the format"
)
SHARD_SIZE = 4096  # trajectories a file; about 20-100 MB


def write_trajectories(
    folder: epath.PathLike, trajectories: Iterable[Trajectory], *, shard: int = SHARD_SIZE
) -> int:
    """Write trajectories in their order, and return how many.

    Args:
        folder: gets `trajectories.jsonl`, and above `shard` trajectories `trajectories-00001.jsonl`
            and so on.
        trajectories: what to write.
        shard: number of trajectories in a file.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    written = shards = 0
    for trajectory in trajectories:
        if len(lines) == shard:
            _write_shard(folder, shards, lines)
            lines, shards = [], shards + 1
        lines.append(json.dumps(to_json(trajectory), ensure_ascii=False))
        written += 1
    _write_shard(folder, shards, lines)
    return written


def read_trajectories(path: epath.PathLike, *, remedy: str = "") -> tuple[Trajectory, ...]:
    """Read trajectories in the order they were written in.

    Args:
        path: a folder that `write_trajectories` filled, or one JSONL file.
        remedy: what to do about a damaged line, for the error message. By default the reader is
            told to correct the file, which may be the only copy of somebody's data.

    Raises:
        DataError: nothing is there, or a line is damaged (file and line are named).
    """
    path = epath.Path(path)
    shards = [path]
    if path.is_dir():
        stem = FILE.partition(".")[0]
        found = [p for p in files.entries(path) if p.name.startswith(stem) and p.suffix == ".jsonl"]
        shards = sorted(found, key=lambda p: (p.name != FILE, p.name))
    if not shards or not shards[0].exists():
        raise DataError(f"no trajectories at {path}: expected {FILE} there, or the file's own path")
    return tuple(
        trajectory for shard in shards for trajectory in _read_shard(shard, remedy or _CORRECT)
    )


def read_given(paths: str, tasks: Iterable[Task]) -> tuple[Trajectory, ...]:
    """Read an expert's trajectories that a user brings.

    Args:
        paths: a folder or file, or several with commas between them.
        tasks: the run's train tasks.

    Returns:
        The trajectories in the files' order; equal ids are told apart.

    Raises:
        DataError: a file cannot be read, or a trajectory's task is not one of `tasks`.
    """
    read = [one for path in paths.split(",") for one in read_trajectories(path.strip())]
    known = {task.id: task for task in tasks}
    for trajectory in read:
        _check_task(trajectory, known.get(trajectory.task.id), paths)
    return tell_apart(read)


def tell_apart(trajectories: Iterable[Trajectory]) -> tuple[Trajectory, ...]:
    """Give trajectories whose id was there before a new one: `id#2`, `id#3`, ..."""
    seen: set[str] = set()
    found = []
    for trajectory in trajectories:
        name, number = trajectory.id, 1
        while name in seen:
            number += 1
            name = f"{trajectory.id}#{number}"
        seen.add(name)
        found.append(dataclasses.replace(trajectory, id=name))
    return tuple(found)


def _check_task(trajectory: Trajectory, task: Task | None, paths: str) -> None:
    given = trajectory.task
    remedy = (
        "make the run with the data and seed that the file was made with, or import the file "
        "(python -m eef_jax.importers --format=eef, docs/experts.md)"
    )
    if task is None:
        raise DataError(
            f"trajectory {trajectory.id!r} of {paths} is of task {given.id!r}, not a train task "
            f"of this run (env.train_tasks and env.imported_tasks decide which are); {remedy}"
        )
    if (task.goal, task.payload) != (given.goal, given.payload):
        raise DataError(
            f"trajectory {trajectory.id!r} of {paths} was made with other data: its task "
            f"{given.id} is {given.goal!r} {given.payload}, in this run it is {task.goal!r} "
            f"{task.payload}; {remedy}"
        )


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
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _fields(kind: type, values: dict[str, Any], tuples: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check the values of a dataclass's plain fields; convert lists to tuples."""
    for field in dataclasses.fields(kind):
        if field.name not in values:
            continue
        value = values[field.name]
        if field.name in tuples:
            values[field.name] = tuple(value)
        elif not _fits(value, field.type):
            raise ValueError(f"{kind.__name__}.{field.name} is {value!r}, expected {field.type}")
    return values


def _fits(value: object, declared: object) -> bool:
    """Whether a value has a declared plain type; a float may come as a whole number."""
    plain = {str: str, int: int, bool: bool, float: (int, float), str | None: (str, type(None))}
    if declared not in plain:
        return True
    if isinstance(value, bool) and declared is not bool:
        return False
    return isinstance(value, plain[declared])  # type: ignore[index, arg-type]


def _write_shard(folder: epath.Path, number: int, lines: list[str]) -> None:
    stem, _, suffix = FILE.partition(".")
    name = f"{stem}-{number:05d}.{suffix}" if number else FILE
    files.write_text(folder / name, "".join(f"{line}\n" for line in lines))


def _read_shard(path: epath.Path, remedy: str) -> Iterator[Trajectory]:
    text = path.read_text().removeprefix("\ufeff")  # the mark that some editors put first
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield from_json(json.loads(line))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if format := foreign_format(text):
                raise DataError(
                    f"{path} holds conversations in the format {format}, not trajectories of this "
                    f"package: import it with python -m eef_jax.importers --format={format} "
                    f"--file={path} --config=... --out=FOLDER, and give that folder "
                    "(docs/experts.md)"
                ) from error
            if number == len(lines) and isinstance(error, json.JSONDecodeError):
                raise DataError(f"{path} is cut off in line {number}; {remedy}") from error
            raise DataError(
                f"{path}, line {number} is not a trajectory ({_complaint(error)}); {remedy}"
            ) from error


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


def _complaint(error: Exception) -> str:
    """An exception in words; a KeyError's text is only the key."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
