"""The work folder: one folder for each stage, committed by a manifest that is written last.

    <workdir>/config.json, numerics.json, lock, report.md, report.html
    <workdir>/expert/
    <workdir>/round_0/{select,tune,evaluate}/
    <workdir>/round_<i>/{explore,select,tune,evaluate}/
    <workdir>/compiled/                                   not a stage: JAX's compilation cache

A stage is finished once its folder has a manifest; a folder without one is incomplete and is
cleared when its stage starts again. Works on local disks and in object stores, which cannot rename.
"""

import contextlib
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import lock, manifest, sealed
from eef_jax.storage.files import TEMP_SUFFIX, entries, reach
from eef_jax.storage.provenance import config_hash, json_values

CONFIG = "config.json"
LOCK = "lock"
COMPILED = "compiled"
CHECKPOINT = "checkpoint"  # of a tune stage

_REMEDY = "name the --workdir of a run, or start one in another --workdir"
_DAMAGED = "bring it back from a copy, or take another --workdir; the stages' folders are untouched"
_ABSENT = "(absent)"
# TFRecords have a checksum a record, a checkpoint has a manifest of its own.
_CHECKED_BY_READERS = ("dataset/*.tfrecord-*", f"{CHECKPOINT}/*")
_SHOWN = 12  # differing keys that an error lists


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage's folder.

    Attributes:
        name: path of the folder inside the work folder, e.g. `round_1/explore`.
        folder: the folder of the stage's files.
    """

    name: str
    folder: epath.Path

    def done(self) -> bool:
        """Whether the stage was committed."""
        return (self.folder / manifest.NAME).exists()

    @property
    def parts(self) -> epath.Path:
        """Folder of what is finished of a stage that is not; no part of the committed stage."""
        return self.folder / manifest.PARTS

    def start(self, *, keep: Collection[str] = ()) -> epath.Path:
        """Clear what an interrupted or earlier run left, and return the folder.

        Args:
            keep: names of files and folders in it that the stage goes on from.
        """
        # The manifest goes first: a crash in between must not leave a finished stage that lacks
        # files.
        (self.folder / manifest.NAME).unlink(missing_ok=True)
        for path in entries(self.folder):
            if path.name not in keep:
                path.rmtree() if path.is_dir() else path.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder

    def commit(
        self,
        counts: Mapping[str, Any],
        provenance: Mapping[str, Any] | None = None,
        *,
        made_from: Mapping[str, str] | None = None,
        numerics: Sequence[Mapping[str, Any]] = (),
        content: str = "",
    ) -> dict[str, Any]:
        """Finish the stage by writing its manifest.

        Args:
            counts: counts of what came in and went out, as JSON values.
            provenance: commit, config hash, seed and versions (`provenance.collect_provenance`).
            made_from: a hash of each input (`lineage`).
            numerics: the numerics it was made with; several if they were changed in between.
            content: hash of what the stage made; by default that of its files.

        Returns:
            The manifest: that of `storage.manifest`, with these facts and `stage`.
        """
        facts = {
            "stage": self.name,
            "counts": dict(counts),
            "provenance": dict(provenance or {}),
            "made_from": dict(made_from or {}),
            "numerics": list(numerics),
            "content": content,
        }
        made = manifest.write(self.folder, facts)
        self.clear_parts()
        return made

    def clear_parts(self) -> None:
        """Delete the parts of a committed stage, of which it holds everything."""
        if self.parts.exists():
            self.parts.rmtree(missing_ok=True)

    def content(self) -> str:
        """A hash of what the stage made, which what is made from it can keep.

        Raises:
            DataError: the manifest cannot be read.
        """
        return content_of(self.manifest())

    def manifest(self) -> dict[str, Any]:
        """The manifest of a committed stage.

        Raises:
            DataError: there is none, it was changed, or another version of this package wrote it.
        """
        return manifest.read(self.folder)

    def verify(self) -> None:
        """Check the stage's files against its manifest, but those whose readers check them.

        Raises:
            DataError: a file is missing, new or changed; the message names all of them.
        """
        manifest.verify(self.folder, skip=_CHECKED_BY_READERS)


def content_of(manifest: Mapping[str, Any]) -> str:
    """The hash of what a committed stage made: as its maker says it, or of its files."""
    return str(manifest.get("content") or config_hash(manifest["files"]))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workdir:
    """A run's folder.

    Attributes:
        root: the folder.
        config: the run's config as plain JSON values.
    """

    root: epath.Path
    config: Mapping[str, Any]

    def stage(self, name: str) -> Stage:
        """The stage `name`, e.g. `expert` or `round_1/explore`; nothing is made yet."""
        return Stage(name=name, folder=self.root / name)

    @property
    def compiled(self) -> epath.Path:
        """Folder of compiled programs, which may be deleted at any time."""
        return self.root / COMPILED

    def holder(self) -> str:
        """Who holds the folder's lock, as JSON."""
        return json.dumps(lock.holder(self.root / LOCK))


@contextlib.contextmanager
def open_workdir(
    path: epath.PathLike,
    config: Mapping[str, Any],
    *,
    may_differ: Collection[str] = (),
    overwrite: bool = False,
) -> Iterator[Workdir]:
    """Open a work folder for writing, new or to be continued, and hold its lock.

    Args:
        path: the folder, local or in an object store.
        config: the run's config, JSON values in nested mappings.
        may_differ: dotted keys that change no result, so that a run may go on with other values.
        overwrite: delete what an earlier run left here and start afresh.

    Raises:
        ConfigError: the folder is in use, was made by another config (the differing keys are named)
            or holds something else than a run. Nothing in it is touched then.
    """
    root = reach(path)
    values = json_values(config)
    check_workdir(root, values, may_differ=may_differ, overwrite=overwrite)
    root.mkdir(parents=True, exist_ok=True)
    with lock.hold(root / LOCK):
        if (root / CONFIG).exists():
            check_workdir(root, values, may_differ=may_differ, overwrite=overwrite)
            if overwrite:
                _clear(root)
        sealed.write(root / CONFIG, values)
        yield Workdir(root=root, config=values)


def check_workdir(
    path: epath.PathLike,
    config: Mapping[str, Any],
    *,
    may_differ: Collection[str] = (),
    overwrite: bool = False,
) -> None:
    """Check that a folder is new or holds a run of this config; nothing is changed.

    Args:
        path: the folder, local or in an object store.
        config: the run's config, JSON values in nested mappings.
        may_differ: dotted keys that change no result.
        overwrite: whether a run of another config may be there.

    Raises:
        ConfigError: it was made by another config (the differing keys are named) or holds
            something else than a run.
    """
    root = epath.Path(path)
    _refuse_foreign(root)
    if overwrite or not (root / CONFIG).exists():
        return
    before = sealed.read(root / CONFIG, remedy=_DAMAGED)
    found = _differences(before, json_values(config))
    if changes := [row for row in found if row[0] not in may_differ]:
        raise _other_config(root, changes)


def read_workdir(path: epath.PathLike) -> Workdir:
    """A work folder to read from, without its lock.

    Raises:
        DataError: there is no run at `path`.
    """
    root = reach(path)
    if not (root / CONFIG).exists():
        raise DataError(f"{root / CONFIG} is missing; {_REMEDY}")
    return Workdir(root=root, config=sealed.read(root / CONFIG, remedy=_DAMAGED))


def find_checkpoint(path: epath.PathLike) -> epath.Path:
    """The checkpoint's own folder, from that or from its tune stage's folder.

    Raises:
        DataError: there is no such folder, or it holds no checkpoint.
    """
    folder = reach(path)
    example = "such as runs/demo/round_2/tune"
    if not folder.is_dir():
        raise DataError(
            f"there is no checkpoint at {folder}: name a finished tune stage's folder, {example}"
        )
    if (folder / CHECKPOINT).exists():
        return folder / CHECKPOINT
    if folder.name == CHECKPOINT:
        return folder
    raise DataError(
        f"{folder} holds no checkpoint: name a finished tune stage's folder, {example}, or the "
        f"folder {CHECKPOINT!r} inside it"
    )


def _refuse_foreign(root: epath.Path) -> None:
    """Refuse a file, and a folder that holds things but no run."""
    if root.exists() and not root.is_dir():
        raise ConfigError(f"{root} is a file, expected a folder: take another --workdir")
    if root.exists() and not (root / CONFIG).exists():
        others = [p.name for p in entries(root) if p.name != LOCK and TEMP_SUFFIX not in p.name]
        if others:
            raise ConfigError(
                f"{root} holds {', '.join(sorted(others)[:_SHOWN])} but no {CONFIG}, so it is not "
                "the folder of a run: take another --workdir"
            )


def _clear(root: epath.Path) -> None:
    """Delete a run, in an order that leaves no stage committed without its files."""
    for path in list(manifest.walk(root)):
        if path.name == manifest.NAME:
            path.unlink()
    for path in entries(root):
        if path.is_dir():
            path.rmtree()
        elif path.name not in (LOCK, CONFIG):
            path.unlink()


def _differences(old: Any, new: Any, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Keys that differ, as (dotted key, old value, new value)."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [(prefix, old, new)]
    found = []
    for key in dict.fromkeys([*old, *new]):
        name = f"{prefix}.{key}" if prefix else key
        found += _differences(old.get(key, _ABSENT), new.get(key, _ABSENT), name)
    return found


def _other_config(root: epath.Path, changes: list[tuple[str, Any, Any]]) -> ConfigError:
    rows = [f"  {key}: {old!r} there, {new!r} now" for key, old, new in changes[:_SHOWN]]
    if len(changes) > _SHOWN:
        rows.append(f"  and {len(changes) - _SHOWN} more")
    expert = root / "expert"
    again = (
        f"; --config.expert.trajectories={expert} takes the expert's along"
        if (expert / manifest.NAME).exists()
        else ""
    )
    return ConfigError(
        f"{root} was made by another config. These keys differ:\n"
        + "\n".join(rows)
        + f"\nTake another --workdir{again} (--overwrite would delete what is there, paid answers "
        "too)"
    )
