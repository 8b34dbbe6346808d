"""The index of stored trajectories: all that is known of an attempt but its text, and its place.

`index.jsonl` stands next to the trajectories of a stage, one row each in their order:

    {"id": "...", "task": {...} or its id, "reward": 0.5, "win": false, "outcome": "failed", ...,
     "prefixes": "<16 hex digits a message>", "file": "trajectories.jsonl", "offset": 0,
     "bytes": 1234, "crc32c": 567}

A task is written in full where it first occurs. What needs only outcomes reads the index; a
trajectory's text is read when it is asked for, and checked against the row's checksum.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import google_crc32c
from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files, records
from eef_jax.types import DIGEST_BYTES, Attempt, Outcome, Task, Trajectory, message_digests

FILE = "index.jsonl"

_PLAIN = ("reward", "win", "source", "agent", "round", "attempt", "parent", "fork_step")
_NOTHING: Mapping[str, Any] = {}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a record is.

    Attributes:
        path: the file, on a local disk.
        offset: of the record's first byte.
        size: bytes of the record, its line break left out.
        checksum: CRC-32C of these bytes.
    """

    path: epath.Path
    offset: int
    size: int
    checksum: int

    def read(self) -> bytes:
        """The record's bytes.

        Raises:
            DataError: the file is missing or damaged.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data: bytes = file.read(self.size)
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror or error})") from error
        if google_crc32c.value(data) != self.checksum:
            raise DataError(
                f"{self.path}: the record at byte {self.offset} has a wrong checksum, so it was "
                "changed or damaged after it was indexed; restore the file, or move its stage's "
                "folder away to have it made again"
            )
        return data


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StoredAttempt(Attempt):
    """An attempt of an index, whose text is on the disk.

    Attributes:
        prefixes: `types.message_digests` of its messages.
        more: its `rewards` and `reason`, where it has any.
        place: where its record is.
    """

    prefixes: bytes
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    place: Place

    @property
    def length(self) -> int:
        """Number of steps."""
        return len(self.prefixes) // DIGEST_BYTES

    def prefix(self, count: int) -> bytes:
        """Identifies the first `count` messages."""
        end = min(count, self.length) * DIGEST_BYTES
        return self.prefixes[max(end - DIGEST_BYTES, 0) : end]

    @property
    def rewards(self) -> Mapping[str, float]:
        """Final reward in each convention that its last step names."""
        found: Mapping[str, float] = self.more.get("rewards", _NOTHING)
        return found

    @property
    def reason(self) -> str:
        """Why it ended so."""
        return str(self.more.get("reason", ""))

    def load(self) -> Trajectory:
        """The whole trajectory.

        Raises:
            DataError: its file is missing or damaged.
        """
        return records.from_json(json.loads(self.place.read()))


def row(attempt: Attempt) -> dict[str, Any]:
    """An attempt's row, without its place."""
    if isinstance(attempt, StoredAttempt):
        prefixes = attempt.prefixes
    else:
        prefixes = message_digests(step.message for step in attempt.load().steps)
    values = {name: getattr(attempt, name) for name in _PLAIN}
    values |= {"prefixes": prefixes.hex()}
    more = {name: getattr(attempt, name) for name in ("rewards", "reason")}
    return {
        "id": attempt.id,
        "task": dataclasses.asdict(attempt.task),
        "outcome": attempt.outcome.value,
        **values,
        **{name: value for name, value in more.items() if value},
    }


class Rows:
    """Reads rows; equal tasks and texts of them are one object in memory."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task] = {}
        self._texts: dict[str, str] = {}

    def attempt(self, row: Mapping[str, Any], place: Place) -> StoredAttempt:
        """The attempt of a row.

        Raises:
            KeyError: a field is missing.
            TypeError, ValueError: a field has another type.
        """
        task = row["task"]
        if isinstance(task, Mapping):
            task = self._known(Task(**{**task, "tags": tuple(task["tags"])}))
        else:
            task = self._tasks[task]
        plain = {name: row[name] for name in _PLAIN}
        for name in ("source", "agent"):
            plain[name] = self._texts.setdefault(plain[name], plain[name])
        return StoredAttempt(
            id=row["id"],
            task=task,
            outcome=Outcome(row["outcome"]),
            prefixes=bytes.fromhex(row["prefixes"]),
            more={name: row[name] for name in ("rewards", "reason") if name in row} or _NOTHING,
            place=place,
            **plain,
        )

    def _known(self, task: Task) -> Task:
        return self._tasks.setdefault(task.id, task)


def of_record(trajectory: Trajectory, place: Place) -> StoredAttempt:
    """The attempt of a record that has just been read."""
    return Rows().attempt(row(trajectory), place)


def read(folder: epath.Path) -> Iterator[StoredAttempt]:
    """The attempts of a stage's folder, in their order.

    Raises:
        DataError: the index is missing or damaged.
    """
    path, rows = folder / FILE, Rows()
    # One request for each record would be slow: what is in an object store is copied.
    local = epath.Path(files.local_copy(folder, only=("trajectories*.jsonl",)))
    paths: dict[str, epath.Path] = {}
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    fields = json.loads(line)
                    name = fields["file"]
                    at = Place(
                        path=paths.setdefault(name, local / name),
                        offset=fields["offset"],
                        size=fields["bytes"],
                        checksum=fields["crc32c"],
                    )
                    yield rows.attempt(fields, at)
                except (ValueError, TypeError, KeyError) as error:
                    raise DataError(
                        f"{path}, line {number} is damaged ({error!r}); {files.rerun(folder)}"
                    ) from error
    except FileNotFoundError:
        raise DataError(f"{path} is missing; {files.rerun(folder)}") from None
