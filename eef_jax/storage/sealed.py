"""JSON files that carry a checksum of themselves, as `sha256`, their last key.

A reader accepts exactly the bytes that the writer made, so any change of the file is noticed, a
correction by hand included.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files

CHECKSUM = "sha256"


def write(path: epath.PathLike, value: Mapping[str, Any]) -> None:
    """Write a mapping of JSON values atomically, with its checksum."""
    files.write_text(path, _sealed(value))


def read(path: epath.PathLike, *, remedy: str) -> dict[str, Any]:
    """Read what `write` wrote, without the checksum.

    Args:
        path: the file.
        remedy: what the user can do if the file cannot be read; the end of the error message.

    Raises:
        DataError: the file is missing, or is not as it was written.
    """
    value: dict[str, Any] = files.read_json(path, remedy=remedy)
    if value.pop(CHECKSUM, None) is None:
        raise DataError(f"{path} has no checksum, this version of eef_jax writes one; {remedy}")
    if epath.Path(path).read_bytes() != _sealed(value).encode(errors="backslashreplace"):
        raise DataError(f"{path} was changed after it was written: its checksum differs; {remedy}")
    return value


def _sealed(value: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(files.json_text(value).encode(errors="backslashreplace")).hexdigest()
    return files.json_text({**value, CHECKSUM: digest})
