"""Google Cloud Storage: its setup, and what `etils.epath` lacks there.

Files on gs:// are read and written through `etils.epath`. This module adds writes that fail when
the object has changed (a lock needs them), and copies of whole folders (libraries that open files
by name need them).
"""

import concurrent.futures
import contextlib
import dataclasses
import fcntl
import fnmatch
import functools
import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from eef_jax.errors import ConfigError, DataError

PREFIX = "gs://"
INSTALL = "pip install -e '.[gcs]'"
_MODULES = ("gcsfs", "google.cloud.storage")
_DOWNLOADS = 8  # files at once

# etils takes TensorFlow's file system where TensorFlow is installed, another reader with other
# credentials. It looks once, at the first use of any path.
os.environ.setdefault("EPATH_USE_TF", "0")


@functools.cache
def set_up() -> None:
    """Set up the libraries that read gs://; must run before the first such path is used.

    Raises:
        ConfigError: they are not installed.
    """
    if not all(map(_is_installed, _MODULES)):
        raise ConfigError(f"paths on {PREFIX} need the extra 'gcs': {INSTALL}")
    # Asks for each bucket's kind, with a permission that many service accounts lack, and logs that.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config

    # Listings are kept for ever otherwise: a process would not see what another one has written.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """An object's content, and the generation that names this version of it (0: there is none)."""

    data: bytes
    generation: int


ABSENT = Versioned(data=b"", generation=0)


def check_readable(path: str) -> None:
    """Look whether a path's bucket is there and may be listed.

    Raises:
        DataError: it is not; the library that etils uses would end in a traceback.
    """
    with _explained(path):
        next(iter(client().list_blobs(_split(path)[0], max_results=1)), None)


def read(path: str) -> Versioned:
    """Read an object; `ABSENT` where there is none.

    Raises:
        DataError: the bucket cannot be read.
    """
    from google.api_core.exceptions import NotFound, PreconditionFailed

    with _explained(path):
        for _ in range(5):
            blob = _bucket(path).get_blob(_split(path)[1])
            if blob is None:
                return ABSENT
            try:
                data = blob.download_as_bytes(if_generation_match=blob.generation)
            except (NotFound, PreconditionFailed):
                continue  # between the two requests it was written again: look again
            return Versioned(data=data, generation=blob.generation)
    raise DataError(f"{path} is written all the time by another process")


def replace(path: str, data: bytes, *, generation: int) -> int | None:
    """Write an object if it still is the version that was read.

    Args:
        path: the object.
        data: its new content.
        generation: of the version that was read; 0 where there was none.

    Returns:
        The generation of what was written; None if another process has written in between.

    Raises:
        DataError: the bucket cannot be written.
    """
    from google.api_core.exceptions import PreconditionFailed

    blob = _bucket(path).blob(_split(path)[1])
    with _explained(path):
        try:
            blob.upload_from_string(data, if_generation_match=generation)
        except PreconditionFailed:
            return None
    return int(blob.generation)


def copy_folder(folder: str, cache: pathlib.Path, only: Collection[str]) -> pathlib.Path:
    """A local copy of a folder's objects; made once for each content, by one process at a time.

    Args:
        folder: the folder on gs://.
        cache: local folder that copies are kept in.
        only: patterns of file names, as `fnmatch` reads them, relative to the folder.

    Raises:
        DataError: there is nothing at `folder`, or it cannot be read.
    """
    folder = folder.rstrip("/")
    objects = _objects(folder, only)
    content = repr((folder, objects))
    target = cache / hashlib.sha256(content.encode()).hexdigest()[:32]
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{target.name}.lock"):
        if not target.is_dir():  # another process may have made it meanwhile
            partial = target.with_name(f"{target.name}.partial")
            _download(folder, objects, partial)
            partial.rename(target)
    return target


def _objects(folder: str, only: Collection[str]) -> list[tuple[str, int]]:
    """Name below the folder and generation of each object that is wanted."""
    bucket, prefix = _split(folder)
    prefix = prefix and f"{prefix}/"
    with _explained(folder):
        fields = "items(name,generation),nextPageToken"
        listed = list(client().list_blobs(bucket, prefix=prefix, fields=fields))
    names = [(blob.name.removeprefix(prefix), blob.generation) for blob in listed]
    wanted = [
        (name, generation)
        for name, generation in names
        # A name that ends in "/" only shows a folder in the console.
        if not name.endswith("/") and any(fnmatch.fnmatch(name, pattern) for pattern in only)
    ]
    if not wanted:
        what = f"none of {', '.join(only)}" if names else "nothing"
        raise DataError(f"{folder} holds {what}: is it the right folder?")
    return wanted


def _download(folder: str, objects: Sequence[tuple[str, int]], target: pathlib.Path) -> None:
    bucket, prefix = _bucket(folder), _split(folder)[1]

    def fetch(item: tuple[str, int]) -> None:
        name, generation = item
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = bucket.blob(f"{prefix}/{name}" if prefix else name)
        blob.download_to_filename(path, if_generation_match=generation)

    with (
        _explained(folder),
        concurrent.futures.ThreadPoolExecutor(_DOWNLOADS, "eef-download") as pool,
    ):
        list(pool.map(fetch, objects))


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def client() -> Any:
    """The client of Google's own library, with this machine's credentials or anonymous."""
    set_up()
    import google.auth.exceptions
    from google.cloud import storage

    try:
        return storage.Client(project=None)  # objects belong to buckets: no project is needed
    except google.auth.exceptions.DefaultCredentialsError:
        return storage.Client.create_anonymous_client()


def _bucket(path: str) -> Any:
    return client().bucket(_split(path)[0])


def _split(path: str) -> tuple[str, str]:
    """Bucket and object name."""
    bucket, _, name = path.removeprefix(PREFIX).partition("/")
    return bucket, name


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    """Errors of Google's library as one sentence."""
    import google.auth.exceptions
    import requests
    from google.api_core.exceptions import GoogleAPICallError, NotFound

    try:
        yield
    except NotFound as error:
        raise DataError(f"{path} is not there: does the bucket exist?") from error
    except (
        GoogleAPICallError,
        google.auth.exceptions.GoogleAuthError,
        requests.RequestException,
    ) as error:
        raise DataError(
            f"{path} cannot be reached ({str(error).strip().splitlines()[0]}): are you logged in "
            "(gcloud auth application-default login), and may you read and write this bucket?"
        ) from error
