"""Atomic file writes and JSON files, on local disks and in object stores."""

import json
import os
from pathlib import Path
from typing import Any

from etils import epath

from eef_jax.errors import DataError

TEMP_SUFFIX = ".tmp"  # suffix of what an interrupted write may leave on a local disk


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is in this machine's file system, not in an object store (gs://, s3://)."""
    return "://" not in os.fspath(path)


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
        with temporary.open("wb") as file:
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
    """Write a text file atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write a JSON file atomically, indented and as UTF-8."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def rerun(folder: epath.PathLike) -> str:
    """The remedy for a damaged file in a stage's folder: the stage has to run again."""
    return f"delete {folder}, so that its stage runs again"


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
        raise DataError(f"{label} cannot be read ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise DataError(f"{label} is not valid JSON ({error}); {remedy}") from error
    if not isinstance(value, expected):
        raise DataError(
            f"{label} holds a JSON {type(value).__name__}, expected a {expected.__name__}; {remedy}"
        )
    return value
