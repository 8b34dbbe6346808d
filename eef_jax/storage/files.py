"""Atomic file writes and JSON files, on local disks and in object stores."""

import contextlib
import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import buckets

TEMP_SUFFIX = ".tmp"  # suffix of what an interrupted write may leave on a local disk


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is in this machine's file system, not in an object store (gs://)."""
    return "://" not in os.fspath(path)


def expand(text: str) -> str:
    """A path as a user writes it in a flag or config, with `~` as the home folder.

    Raises:
        ConfigError: it is in an object store that cannot be used, or whose libraries are missing.
    """
    if is_local(text):
        return os.path.expanduser(text)
    if not text.startswith(buckets.PREFIX):
        raise ConfigError(f"{text} is neither on a local disk nor on {buckets.PREFIX}")
    buckets.set_up()
    return text


def to_path(path: epath.PathLike) -> epath.Path:
    """The path that a flag or config names; errors as `expand`."""
    return epath.Path(expand(os.fspath(path)))


def reach(path: epath.PathLike) -> epath.Path:
    """As `to_path`, after a look whether a path on gs:// is in a bucket that can be read.

    Raises:
        DataError: there is no such bucket, or it may not be read.
    """
    found = to_path(path)
    if not is_local(found):
        buckets.check_readable(os.fspath(found))
    return found


def absolute(path: epath.PathLike) -> epath.Path:
    """The path from the root of its disk, or as it is in a bucket; errors as `expand`."""
    path = to_path(path)
    # etils takes gs:// for a relative path here.
    return path.resolve() if is_local(path) else path


def parents(path: epath.PathLike) -> list[epath.Path]:
    """The folders above a path, nearest first, up to the root of its disk or to its bucket."""
    path = absolute(path)
    above = [p for p in path.parents if is_local(p) == is_local(path)]
    return [p for p in above if os.fspath(p) != buckets.PREFIX]


def local_copy(folder: epath.PathLike, *, only: Collection[str] = ("*",)) -> Path:
    """A folder for libraries that open files by name or map them into memory.

    A local folder is returned as it is. A folder on gs:// is copied once into this machine's cache
    (`$XDG_CACHE_HOME/eef_jax` or `~/.cache/eef_jax`), shared by all processes; a folder whose
    objects have changed is copied again.

    Args:
        folder: a local or remote folder.
        only: patterns of the file names that are needed, relative to the folder, e.g. `"*.json"`.

    Raises:
        DataError: nothing that is needed is at a remote `folder`, or it cannot be read.
    """
    text = expand(os.fspath(folder))
    if is_local(text):
        return Path(text)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return buckets.copy_folder(text, Path(home) / "eef_jax", only)


def entries(folder: epath.PathLike) -> list[epath.Path]:
    """The files and folders in a folder, in no order; none where there is no such folder."""
    # A bucket has no empty folders: one that was made, and not yet filled, is not there.
    folder = epath.Path(folder)
    try:
        # An empty object with the folder's name (consoles make them) is listed as an entry of it.
        return [p for p in folder.iterdir() if p.name != folder.name or p.exists()]
    except FileNotFoundError:
        return []


@contextlib.contextmanager
def naming(path: epath.PathLike) -> Iterator[None]:
    """Errors of the operating system name a file; those of an open file do not by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Write a file atomically: a reader sees the old content or the new one, never a part."""
    # On a local disk: temporary file, fsync, rename. An object store shows an object only when it
    # is complete, so there the write itself is atomic.
    path = epath.Path(path)
    if not is_local(path):
        path.write_bytes(data)
        return
    temporary = Path(f"{os.fspath(path)}.{os.getpid()}{TEMP_SUFFIX}")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)  # makes the rename itself durable
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a text file atomically, as UTF-8.

    Halves of surrogate pairs, which some web shops' texts hold and UTF-8 lacks, become JSON's
    escapes, so that JSON is read back equal.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write a JSON file atomically, indented and as UTF-8."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text of a JSON file: indented, with a line break at its end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def rerun(folder: epath.PathLike) -> str:
    """The remedy for a damaged file in a stage's folder: the stage has to run again."""
    # Not "delete": it may hold answers that were paid for.
    return f"move {folder} away, so that its stage runs again"


def read_json(path: epath.PathLike, expected: type = dict, *, remedy: str, what: str = "") -> Any:
    """Read a JSON file whose top level is an object or a list.

    Args:
        path: the file.
        expected: `dict` or `list`.
        remedy: what the user can do if the file cannot be read; the end of the error message.
        what: what the file holds, e.g. `"goal numbers"`; the start of the error message.

    Raises:
        DataError: the file is missing, is not valid JSON, or holds another type.
    """
    label = f"{what}: {path}" if what else os.fspath(path)
    try:
        value = json.loads(epath.Path(path).read_bytes())
    except FileNotFoundError:
        raise DataError(f"{label} is missing; {remedy}") from None
    except OSError as error:
        raise DataError(f"{label} cannot be read ({error.strerror or error}); {remedy}") from error
    except ValueError as error:
        raise DataError(f"{label} is not valid JSON ({error}); {remedy}") from error
    if not isinstance(value, expected):
        raise DataError(
            f"{label} holds a JSON {type(value).__name__}, expected a {expected.__name__}; {remedy}"
        )
    return value
