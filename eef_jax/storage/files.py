"""Files that are written whole, on local disks and object stores alike. Knows bytes and JSON."""

import json
import os
from pathlib import Path
from typing import Any

from etils import epath

from eef_jax.errors import DataError

TEMP_SUFFIX = ".tmp"  # suffix of what an interrupted write may leave on a local disk


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is on this machine's file system (else: gs:// and its like)."""
    return "://" not in os.fspath(path)


def write_bytes(path: epath.PathLike, data: bytes) -> None:
    """Write a file whole: whoever opens it finds the old content or the new one, never a part.

    On a local disk by temporary file, fsync and rename. An object store shows an object only when
    it is complete, so there the write itself is the commit.
    """
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
    directory = os.open(path.parent, os.O_RDONLY)  # the rename, too, has to reach the disk
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a text file whole, see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write a JSON file whole, see `write_bytes`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: epath.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        DataError: it is missing or damaged.
    """
    path = epath.Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path} is missing: was the run that makes it finished?") from None
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}): delete {path.parent}, so that it is made again"
        ) from error
