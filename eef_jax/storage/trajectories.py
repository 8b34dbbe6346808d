"""Trajectories of a stage, or of a file that a user brings: JSON lines, in shards, with an index.

`records` documents a line and `index` what is known of it without reading it. A folder's order is
the order it was written in.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c
from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files, index, records
from eef_jax.storage.index import Place, StoredAttempt
from eef_jax.types import Attempt, Task, Trajectory

FILE = "trajectories.jsonl"
_CORRECT = "correct the line, or take another file; eef_jax/storage/records.py documents the format"
SHARD_SIZE = 4096  # trajectories a file; about 20-100 MB
_MARK = b"\xef\xbb\xbf"  # that some editors put first


def write_trajectories(
    folder: epath.PathLike, attempts: Iterable[Attempt], *, shard: int = SHARD_SIZE
) -> int:
    """Write trajectories in their order, and their index; returns how many.

    Args:
        folder: gets `trajectories.jsonl`, above `shard` trajectories `trajectories-00001.jsonl` and
            so on, and `index.jsonl`.
        attempts: what to write; of stored ones the bytes are copied.
        shard: number of trajectories in a file.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[bytes] = []
    known: set[str] = set()
    data, names = bytearray(), _shard_names()
    name = next(names)
    for attempt in attempts:
        if len(rows) and len(rows) % shard == 0:
            files.write_bytes(folder / name, bytes(data))
            data, name = bytearray(), next(names)
        line = _line(attempt)
        row = index.row(attempt)
        if row["task"]["id"] in known:
            row["task"] = row["task"]["id"]
        known.add(attempt.task.id)
        checksum = google_crc32c.value(line)
        place = {"file": name, "offset": len(data), "bytes": len(line), "crc32c": checksum}
        rows.append(records.dump(row | place))
        data += line + b"\n"
    files.write_bytes(folder / name, bytes(data))
    # After the trajectories: a folder with an index has them all.
    files.write_bytes(folder / index.FILE, b"".join(row + b"\n" for row in rows))
    return len(rows)


def index_trajectories(folder: epath.PathLike) -> tuple[StoredAttempt, ...]:
    """The attempts of a stage's folder; their steps stay on the disk.

    Raises:
        DataError: the index is missing or damaged.
    """
    return tuple(index.read(epath.Path(folder)))


def read_trajectories(path: epath.PathLike, *, remedy: str = "") -> tuple[Trajectory, ...]:
    """Read trajectories in the order they were written in.

    Args:
        path: a folder that `write_trajectories` filled, or one JSONL file.
        remedy: what to do about a damaged line, for the error message. By default the reader is
            told to correct the file, which may be the only copy of somebody's data.

    Raises:
        DataError: nothing is there, or a line is damaged (file and line are named).
    """
    return tuple(trajectory for trajectory, _ in _scan(epath.Path(path), remedy or _CORRECT))


def index_given(paths: str) -> tuple[StoredAttempt, ...]:
    """The attempts of an expert's files, each line of which is read and checked.

    Args:
        paths: a folder or file, or several with commas between them.

    Raises:
        DataError: a file is missing or a line is damaged.
    """
    return tuple(index.of_record(trajectory, at) for trajectory, at in _scan_all(paths))


def read_given(paths: str, tasks: Iterable[Task]) -> Iterator[Trajectory]:
    """Read an expert's trajectories that a user brings, one at a time.

    Args:
        paths: a folder or file, or several with commas between them.
        tasks: the run's train tasks.

    Yields:
        The trajectories in the files' order; equal ids are told apart.

    Raises:
        DataError: a file cannot be read, or a trajectory's task is not one of `tasks`.
    """
    known = {task.id: task for task in tasks}

    def checked() -> Iterator[Trajectory]:
        for trajectory, _ in _scan_all(paths):
            _check_task(trajectory, known.get(trajectory.task.id), paths)
            yield trajectory

    return tell_apart(checked())


def tell_apart(trajectories: Iterable[Trajectory]) -> Iterator[Trajectory]:
    """Give trajectories whose id was there before a new one: `id#2`, `id#3`, ..."""
    seen: set[str] = set()
    for trajectory in trajectories:
        name, number = trajectory.id, 1
        while name in seen:
            number += 1
            name = f"{trajectory.id}#{number}"
        seen.add(name)
        yield dataclasses.replace(trajectory, id=name)


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


def _line(attempt: Attempt) -> bytes:
    if isinstance(attempt, StoredAttempt):
        return attempt.place.read()
    return records.dump(records.to_json(attempt.load()))


def _shard_names() -> Iterator[str]:
    yield FILE
    stem, _, suffix = FILE.partition(".")
    number = 0
    while True:
        number += 1
        yield f"{stem}-{number:05d}.{suffix}"


def _scan_all(paths: str) -> Iterator[tuple[Trajectory, Place]]:
    for path in paths.split(","):
        yield from _scan(epath.Path(path.strip()), _CORRECT)


def _scan(path: epath.Path, remedy: str) -> Iterator[tuple[Trajectory, Place]]:
    """Each trajectory of a folder or file, with its place."""
    shards = [path]
    if path.is_dir():
        stem = FILE.partition(".")[0]
        found = [p for p in files.entries(path) if p.name.startswith(stem) and p.suffix == ".jsonl"]
        shards = sorted(found, key=lambda p: (p.name != FILE, p.name))
    if not shards or not shards[0].exists():
        raise DataError(f"no trajectories at {path}: expected {FILE} there, or the file's own path")
    for shard in shards:
        with shard.open("rb") as file:
            yield from _scan_shard(shard, file, remedy)


def _scan_shard(
    path: epath.Path, file: BinaryIO, remedy: str
) -> Iterator[tuple[Trajectory, Place]]:
    offset = 0
    for number, line in enumerate(file, start=1):
        begin, offset = offset, offset + len(line)
        if number == 1 and line.startswith(_MARK):
            begin, line = begin + len(_MARK), line[len(_MARK) :]
        data = line.rstrip(b"\r\n")
        if not data.strip():
            continue
        try:
            trajectory = records.from_json(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(path, number, error, remedy) from error
        checksum = google_crc32c.value(data)
        yield trajectory, Place(path=path, offset=begin, size=len(data), checksum=checksum)


def _damaged(path: epath.Path, number: int, error: Exception, remedy: str) -> DataError:
    text = path.read_bytes().decode("utf-8-sig", "replace")
    if format := records.foreign_format(text):
        return DataError(
            f"{path} holds conversations in the format {format}, not trajectories of this "
            f"package: import it with python -m eef_jax.importers --format={format} "
            f"--file={path} --config=... --out=FOLDER, and give that folder (docs/experts.md)"
        )
    if number == len(text.split("\n")) and isinstance(error, json.JSONDecodeError):
        return DataError(f"{path} is cut off in line {number}; {remedy}")
    return DataError(f"{path}, line {number} is not a trajectory ({_complaint(error)}); {remedy}")


def _complaint(error: Exception) -> str:
    """An exception in words; a KeyError's text is only the key."""
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)
