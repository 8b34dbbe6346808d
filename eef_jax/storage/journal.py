"""Records that are kept as they come, so that a process that dies loses next to none.

On a disk each record is appended to a file and flushed at once, and synchronized within a second.
An object store cannot append: there the records of a second become a small numbered object. A line
is a CRC-32C in hexadecimal, a space and the record; a torn or damaged line is left out on reading.
Each start of each process writes files of its own, and reads those of all.
"""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c
from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import buckets, files

_PERIOD_S = 0.5  # a record is safe from a machine's death after this long and one write
_SUFFIX = ".journal"
_CRC = 8  # hexadecimal digits


class Journal:
    """Appends records to a folder; use it as a context manager.

    Args:
        folder: made if it does not exist.
        writer: number of the process.

    Raises:
        DataError: on writing, if the storage refuses it; what was written before is kept.
    """

    def __init__(self, folder: epath.PathLike, *, writer: int = 0):
        self._folder = epath.Path(folder)
        self._name = _next_name(self._folder, writer)
        self._file: BinaryIO | None = None
        self._waiting: list[bytes] = []
        self._parts = 0
        self._dirty = False
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eef-journal", daemon=True)

    def __enter__(self) -> "Journal":
        with self._explained():
            self._folder.mkdir(parents=True, exist_ok=True)
            if files.is_local(self._folder):
                self._file = open(self._folder / f"{self._name}{_SUFFIX}", "xb")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join()
        try:
            with self._explained():
                self._sync()
        finally:
            if self._file is not None:
                self._file.close()

    def append(self, record: bytes) -> None:
        """Keep a record, which holds no line break."""
        line = b"%08x %b\n" % (google_crc32c.value(record), record)
        with self._lock, self._explained():
            if self._failure is not None:
                raise OSError(str(self._failure)) from self._failure
            self._dirty = True
            if self._file is None:
                self._waiting.append(line)
            else:
                self._file.write(line)
                self._file.flush()

    def _run(self) -> None:
        while not self._closing.wait(_PERIOD_S):
            try:
                self._sync()
                self._failure = None
            except Exception as error:  # buckets raise many types
                self._failure = error  # the next append tells of it, unless a later write works

    def _sync(self) -> None:
        """Make what was appended outlive the machine."""
        with self._lock:
            if not self._dirty:
                return
            self._dirty = False
            waiting, self._waiting = self._waiting, []
        if self._file is not None:
            os.fsync(self._file.fileno())
        elif waiting:
            part = self._folder / f"{self._name}-{self._parts:08d}{_SUFFIX}"
            try:
                part.write_bytes(b"".join(waiting))
            except BaseException:
                with self._lock:
                    self._waiting, self._dirty = waiting + self._waiting, True
                raise
            self._parts += 1

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DataError(
                f"{self._folder} cannot be written ({error.strerror or error}): mend that and run "
                "the same command again; what was written before is kept"
            ) from error


@contextlib.contextmanager
def local(folder: epath.PathLike) -> Iterator[epath.Path]:
    """A folder's journal on this machine: itself, or a copy for as long as the context lasts."""
    folder = epath.Path(folder)
    if files.is_local(folder) or not files.entries(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="eef-journal-") as copy:
        cache = epath.Path(copy)
        yield epath.Path(buckets.copy_folder(os.fspath(folder), cache, [f"*{_SUFFIX}"]))


def read(folder: epath.Path) -> Iterator[tuple[epath.Path, int, bytes]]:
    """The whole records of all writers: the file, the place in it, and the record.

    Args:
        folder: on a local disk; one that is not there has no records.

    Yields:
        Writer by writer, in the order they were appended.
    """
    for path in sorted(files.entries(folder)):
        if path.suffix != _SUFFIX:
            continue
        with path.open("rb") as file:
            offset = 0
            for line in file:
                begin, offset = offset + _CRC + 1, offset + len(line)
                record = line[_CRC + 1 : -1]
                head = b"%08x " % google_crc32c.value(record)
                if line.startswith(head) and line.endswith(b"\n"):
                    yield path, begin, record


def _next_name(folder: epath.Path, writer: int) -> str:
    """The name of the next start of a process: no file is written by two."""
    mine = [p.name.split("-") for p in files.entries(folder) if p.suffix == _SUFFIX]
    starts = [int(name[1].partition(".")[0]) for name in mine if name[0] == f"{writer:05d}"]
    return f"{writer:05d}-{max(starts, default=-1) + 1:05d}"
