"""The manifest of a folder: size and SHA-256 of every file in it, and what its writer adds.

Written last, it says that the folder is complete; it carries a checksum of itself.
"""

import concurrent.futures
import fnmatch
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files, sealed

NAME = "manifest.json"
PARTS = "parts"  # folder of what an unfinished stage has so far; no part of a complete one
SCHEMA = 2  # version of the layout
_BLOCK = 1 << 20  # bytes read at a time
_READERS = 4  # files hashed at a time; hashing releases Python's lock


def write(folder: epath.Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Write the manifest of a folder.

    Args:
        folder: the folder.
        facts: what else the manifest says, as JSON values.

    Returns:
        The manifest: `schema`, the facts, and `files`, which gives `bytes` and `sha256` of every
        file by its path in the folder.
    """
    made = {"schema": SCHEMA, **facts, "files": _digests(folder)}
    sealed.write(folder / NAME, made)
    return made


def read(folder: epath.Path, *, remedy: str = "") -> dict[str, Any]:
    """Read the manifest of a folder; its files are not looked at.

    Args:
        folder: the folder.
        remedy: the end of the error message; by default that its stage is to run again.

    Raises:
        DataError: there is none, it was changed, or another version of this package wrote it.
    """
    path, remedy = folder / NAME, remedy or files.rerun(folder)
    value = sealed.read(path, remedy=remedy)
    if value.get("schema") != SCHEMA:
        raise DataError(
            f"{path} has schema {value.get('schema')!r}, this version of eef_jax reads "
            f"{SCHEMA}; {remedy}"
        )
    return value


def verify(folder: epath.Path, *, skip: Collection[str] = (), remedy: str = "") -> None:
    """Read the files of a folder and check them against its manifest.

    Args:
        folder: the folder.
        skip: patterns of paths that are not read, because readers of them check a checksum a
            record; they must exist with the right size all the same.
        remedy: as for `read`.

    Raises:
        DataError: the manifest cannot be read, or a file is missing, new or changed; the message
            names all of them.
    """
    wanted = read(folder, remedy=remedy)["files"]
    found = _digests(folder, skip)
    wrong = [f"{name} is missing" for name in wanted if name not in found]
    wrong += [f"{name} is not in the manifest" for name in found if name not in wanted]
    wrong += [
        f"{name} was changed"
        for name, facts in found.items()
        if name in wanted and any(facts[key] != wanted[name][key] for key in facts)
    ]
    if wrong:
        raise DataError(
            f"{folder} is not as it was written: {'; '.join(wrong)}; "
            f"{remedy or files.rerun(folder)}"
        )


def _digests(folder: epath.Path, skip: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Size and hash of all files of a folder by their paths, sorted; of skipped ones the size."""
    paths = {os.fspath(path.relative_to(folder)): path for path in walk(folder)}
    paths = {n: p for n, p in paths.items() if n != NAME and not n.startswith(f"{PARTS}/")}

    def facts(name: str) -> dict[str, Any]:
        if any(fnmatch.fnmatch(name, pattern) for pattern in skip):
            return {"bytes": paths[name].stat().length}
        size, hashed = digest(paths[name])
        return {"bytes": size, "sha256": hashed}

    with concurrent.futures.ThreadPoolExecutor(_READERS, "eef-hash") as pool:
        return dict(zip(sorted(paths), pool.map(facts, sorted(paths)), strict=True))


def digest(path: epath.Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    size, hashed = 0, hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            hashed.update(block)
            size += len(block)
    return size, hashed.hexdigest()


def walk(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder, in no order."""
    for path in files.entries(folder):
        if path.is_dir():
            yield from walk(path)
        else:
            yield path
