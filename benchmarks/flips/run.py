"""Bytes flipped in a run's files: `python -m benchmarks.flips --workdir=runs/flips --flips=1000`.

Makes a run (or takes the one in `--workdir`) and a copy of it that was interrupted in its last
training. Then one byte of one file is changed at a time, every kind of file as often as the others,
and what reads that kind is called as the pipeline and the commands call it. A flip is *detected* by
an error of this package or, in a save of an unfinished training, by not going on from it. Exit code
1 if a flip is silent or ends in another error.
"""

import collections
import dataclasses
import fnmatch
import logging
import os
import pathlib
import shutil
import sys
from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np
from absl import flags
from etils import epath

from benchmarks.common import tables
from eef_jax import cli, pipeline, report, starting
from eef_jax import config as config_lib
from eef_jax.config import Config, numerics
from eef_jax.data.stored import StoredExamples
from eef_jax.errors import EefError
from eef_jax.learner.placement import Placement
from eef_jax.learner.tuning import TRAINING
from eef_jax.storage.metrics import MetricsWriter
from eef_jax.storage.workdir import CHECKPOINT, read_workdir
from eef_jax.train import checkpoint
from eef_jax.train.saves import Saves

# Kind of file by the first pattern that its path in the work folder matches.
KINDS: Mapping[str, str] = {
    f"*/{TRAINING}/*/d/*": "arrays of saves",
    f"*/{TRAINING}/*": "metadata of saves",
    f"*/{CHECKPOINT}/*/d/*": "arrays of checkpoints",
    f"*/{CHECKPOINT}/*": "metadata of checkpoints",
    "config.json": "config.json",
    numerics.FILE: "numerics",
    "*/manifest.json": "manifests",
    "*.tfrecord-*": "TFRecords",
    "*/dataset/*": "index and metadata of TFRecords",
    "*/trajectories*": "trajectories",
    "*/index*.jsonl": "indexes of trajectories",
    "*/selections.jsonl": "selections",
    "*/scores.json": "scores",
    "*/metrics.jsonl": "metrics",
}
UNREAD = (
    "lock",
    "report.html",
    "report.md",
    "compiled/*",
)  # files of a work folder that no stage reads

Outcome = str  # detected, silent, or the name of an exception


class _Interrupted(Exception):
    """Training was stopped on purpose."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """A finished run and an interrupted copy of it.

    Attributes:
        finished: the run's work folder.
        unfinished: of the copy, with saves in a tune stage.
        placement: the base, for loading checkpoints.
    """

    finished: pathlib.Path
    unfinished: pathlib.Path
    placement: Placement

    def files(self) -> dict[str, list[pathlib.Path]]:
        """The files by their kind; empty ones have no byte to flip."""
        found = collections.defaultdict(list)
        for root in (self.finished, self.unfinished):
            for path in sorted(root.rglob("*")):
                name = path.relative_to(root).as_posix()
                if not path.is_file() or not path.stat().st_size or is_unread(name):
                    continue
                if (root == self.unfinished) == (f"/{TRAINING}/" in name):
                    found[kind_of(name)].append(path)
        newest = max(int(p.parent.name) for p in self._saves().glob("*/manifest.json"))
        for kind in ("arrays of saves", "metadata of saves"):
            # An older save is not read while the newest can be used.
            found[kind] = [p for p in found[kind] if f"/{TRAINING}/{newest}/" in p.as_posix()]
        return dict(found)

    def read(self, kind: str, path: pathlib.Path) -> bool:
        """Call what reads a file; returns whether it was noticed without an error."""
        if kind.endswith("of saves"):
            return self._dropped(path)
        if kind.endswith("of checkpoints"):
            stage = next(parent for parent in path.parents if parent.name == CHECKPOINT).parent
            self.placement.restore(epath.Path(stage), self.placement.trained)
        elif kind == "TFRecords":
            list(StoredExamples(path.parent))
        elif kind == "numerics":
            numerics.read(epath.Path(path.parent))
        else:
            report.write(read_workdir(self.finished))
        return False

    def _saves(self) -> pathlib.Path:
        return next(self.unfinished.glob(f"*/tune/{TRAINING}"))

    def _dropped(self, path: pathlib.Path) -> bool:
        """Whether training would not go on from a save."""
        folder = self._saves()
        step = int(path.relative_to(folder).parts[0])
        metadata = checkpoint.Metadata(
            base="", base_hash=self._base_hash(), config_hash=self._config_hash()
        )
        copy = folder.with_name("copy")
        shutil.copytree(folder, copy)
        try:
            return Saves(copy, metadata).newest() != step
        finally:
            shutil.rmtree(copy)

    def _base_hash(self) -> str:
        return self.placement.base_hash(self.placement.trained)

    def _config_hash(self) -> str:
        return starting.hash_of(config_lib.read(read_workdir(self.finished).config))


def kind_of(name: str) -> str:
    """The kind of a file by its path in the work folder."""
    return next((kind for one, kind in KINDS.items() if fnmatch.fnmatch(name, one)), "other")


def is_unread(name: str) -> bool:
    """Whether no stage reads the file of this path in the work folder."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in UNREAD)


def measure(subject: Subject, flips: int, seed: int = 0) -> dict[str, collections.Counter[Outcome]]:
    """Flip bytes; returns how often each outcome came about, by kind of file."""
    rng, files = np.random.default_rng(seed), subject.files()
    for kind, paths in files.items():
        # A reader that refuses everything would notice every flip.
        assert not subject.read(kind, paths[0]), f"{paths[0]} is refused as it is"
    outcomes: dict[str, collections.Counter[Outcome]] = {}
    for number in range(flips):
        kind = list(files)[number % len(files)]
        path = files[kind][rng.integers(len(files[kind]))]
        outcome = flip(subject, kind, path, rng)
        outcomes.setdefault(kind, collections.Counter())[outcome] += 1
    return outcomes


def flip(subject: Subject, kind: str, path: pathlib.Path, rng: np.random.Generator) -> Outcome:
    """Change one byte of a file, have it read, and change it back."""
    data = path.read_bytes()
    at, change = int(rng.integers(len(data))), int(rng.integers(1, 256))
    path.write_bytes(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])
    try:
        return "detected" if subject.read(kind, path) else "silent"
    except EefError:
        return "detected"
    except Exception as error:
        return type(error).__name__
    finally:
        path.write_bytes(data)


def interrupt(config: Config, finished: pathlib.Path, unfinished: pathlib.Path) -> None:
    """Copy a run, and interrupt the copy in its last training, which is saved at every step."""
    shutil.copytree(finished, unfinished)
    last = max(unfinished.glob("round_*"))
    for stage in ("tune", "evaluate"):
        shutil.rmtree(last / stage)
    steps = read_workdir(finished).stage(f"{last.name}/tune").manifest()["counts"]["steps"]
    log = MetricsWriter.log

    def dies(self: MetricsWriter, step: int, scalars: Mapping[str, Any]) -> None:
        log(self, step, scalars)
        if step == steps:
            raise _Interrupted

    saving = config_lib.override(config_lib.plain(config), [("train.save_every_steps", "1")])
    with mock.patch.object(MetricsWriter, "log", dies):
        try:
            pipeline.run(saving, os.fspath(unfinished))
        except _Interrupted:
            return
    raise AssertionError("training was not interrupted")


def table(outcomes: Mapping[str, collections.Counter[Outcome]]) -> str:
    """The outcomes as a Markdown table."""
    columns = sorted({outcome for found in outcomes.values() for outcome in found} | {"silent"})
    total = sum(outcomes.values(), collections.Counter())
    lines = tables.head(("file", "flips", *columns), texts=1)
    for kind, found in (*outcomes.items(), ("all", total)):
        cells = [found.total(), *(found[outcome] for outcome in columns)]
        lines.append(tables.row([kind, *map(str, cells)]))
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and fail if a flip was not detected."""
    given, config = flags.FLAGS, cli.read_config()
    assert config is not None, "the flag has a default"
    finished = pathlib.Path(given.workdir).resolve() / "finished"
    unfinished = finished.with_name("unfinished")
    pipeline.run(config, os.fspath(finished))
    if not unfinished.exists():
        interrupt(config, finished, unfinished)
    subject = Subject(finished=finished, unfinished=unfinished, placement=Placement(config))
    logging.getLogger("eef_jax.train").setLevel(logging.ERROR)  # it says of each save why not
    outcomes = measure(subject, given.flips, given.seed)
    print(table(outcomes))
    print(f"\nnot read by any stage, so not flipped: {', '.join(UNREAD)}")
    if any(outcome != "detected" for found in outcomes.values() for outcome in found):
        sys.exit(1)


def run() -> None:
    """Run the command."""
    cli.define_path("workdir", "runs/flips", "Folder of the two runs.", local=True)
    flags.DEFINE_integer("flips", 1000, "How many.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the choice of bytes.")
    cli.define_config("configs/webshop.py:tiny")
    cli.run(main)
