"""Kills a run and restarts it until it ends: `python -m benchmarks.faults [--kills=50]`.

The preset `tiny` is killed (SIGKILL) at moments drawn in each of its stages, and as soon as a stage
is committed; one restart in a served expert's run, and in a run of two processes one of the two is
killed. Every byte of what comes out is compared with a run that nobody killed (`compare`), and no
episode whose line was on the disk may be played again. Then the same run is made with an
environment whose calls hang, crash and return garbage (`faulty`).
"""

import argparse
import dataclasses
import datetime
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence

from etils import epath

from benchmarks.common import machine, tables
from benchmarks.common.measurement import HEADER, Measurement
from benchmarks.faults import faulty, served
from benchmarks.faults.compare import differences
from eef_jax.rollout import keeping
from eef_jax.storage.files import write_json
from eef_jax.storage.manifest import NAME as MANIFEST
from eef_jax.storage.manifest import PARTS
from eef_jax.storage.provenance import collect_provenance
from eef_jax.storage.stages import kind_of

CONFIG = "configs/webshop.py:tiny"
STAGES = ["expert", "round_0/select", "round_0/tune", "round_0/evaluate"]
STAGES += [f"round_1/{kind}" for kind in ("explore", "select", "tune", "evaluate")]
EPISODIC = ("expert", "explore", "evaluate")  # kinds that play episodes
LIMIT_S = 900.0  # of one start
_KEPT = re.compile(r": (\d+) of \d+ episodes were kept$", re.MULTILINE)
_HEADER = "\nto do "  # in the log, when a run begins with its stages
_PLAYED = " episodes, {"  # when all of a stage's are played
_LOOK_S = 0.01


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When to kill.

    Attributes:
        stage: in which stage.
        share: of the stage's time in the run that nobody killed; 1: once it is committed.
        process: which of the run's processes.
    """

    stage: str
    share: float
    process: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """What came of one run's kills.

    Attributes:
        moments: of the kills, by this process's clock.
        on_disk: episodes whose lines were on the disk at the kills.
        repeated: of them, episodes that the next start did not take as they were.
        differing: names of what differs from the run that nobody killed.
    """

    moments: Sequence[float]
    on_disk: int
    repeated: int
    differing: Sequence[str]


class Command:
    """A run in a work folder, as one process or as several.

    Args:
        workdir: its folder.
        flags: of `eef_jax.main`.
        processes: how many; each logs to a file of its own, next to the folder.
    """

    def __init__(self, workdir: pathlib.Path, flags: Sequence[str] = (), *, processes: int = 1):
        self.workdir = workdir
        self._flags = [f"--config={CONFIG}", f"--workdir={workdir}", *flags]
        self._processes = processes
        self._starts = 0

    def start(self) -> list[subprocess.Popen[bytes]]:
        """Start all processes."""
        self._starts += 1
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        together = [f"--coordinator=127.0.0.1:{port}", f"--processes={self._processes}"]
        return [
            self._start(
                [*together, f"--process={n}", "--peer_timeout_s=10"] if self._processes > 1 else [],
                self.log(n),
            )
            for n in range(self._processes)
        ]

    def log(self, process: int = 0) -> pathlib.Path:
        """Where a process of the last start logs to."""
        return self.workdir.with_name(f"{self.workdir.name}-{self._starts}-{process}.log")

    def finish(self) -> None:
        """Start it, and wait for its end.

        Raises:
            RuntimeError: it fails; with the end of its log.
        """
        processes = self.start()
        codes = [process.wait(LIMIT_S) for process in processes]
        if any(codes):
            raise RuntimeError(
                f"{self.workdir} ended with {codes}: {self.log().read_text()[-2000:]}"
            )

    def finish_once(self) -> pathlib.Path:
        """Finish it, unless it is finished; returns its folder."""
        if not (self.workdir / "report.md").exists():
            self.finish()
        return self.workdir

    def _start(self, flags: Sequence[str], log: pathlib.Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "eef_jax.main", *self._flags, *flags]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ})


def run_with_kills(command: Command, kills: Sequence[Kill], reference: pathlib.Path) -> Killed:
    """Kill a run as often as asked, let it end, and compare it with the reference.

    Args:
        command: the run.
        kills: in the order of the stages.
        reference: the run that nobody killed.
    """
    moments, on_disk, repeated, waiting = [], 0, 0, 0
    for kill in kills:
        processes = command.start()
        seconds = _seconds(reference, kill.stage)
        _wait(processes, command.log(), command.workdir, kill, seconds)
        processes[kill.process].kill()
        moments.append(time.monotonic())
        for process in processes:  # who is left alone ends by itself
            process.wait(LIMIT_S)
        repeated += _repeated(waiting, command.log())
        waiting = _episodes(command.workdir, kill.stage)
        on_disk += waiting
    command.finish()
    repeated += _repeated(waiting, command.log())
    return Killed(
        moments=moments,
        on_disk=on_disk,
        repeated=repeated,
        differing=differences(reference, command.workdir),
    )


def _wait(
    processes: Sequence[subprocess.Popen[bytes]],
    log: pathlib.Path,
    workdir: pathlib.Path,
    kill: Kill,
    seconds: float,
) -> None:
    """Wait for the moment of a kill."""
    folder = workdir / kill.stage
    # The header is written when the first stage begins, which may be one that was killed before.
    while not (folder.exists() and _HEADER in log.read_text()) and processes[0].poll() is None:
        time.sleep(_LOOK_S)
    end = time.monotonic() + kill.share * seconds
    while processes[0].poll() is None:
        if (folder / MANIFEST).exists() or (kill.share < 1 and time.monotonic() > end):
            return
        time.sleep(_LOOK_S)


def _seconds(run: pathlib.Path, stage: str) -> float:
    return float(json.loads((run / stage / MANIFEST).read_text())["counts"]["seconds"])


def _episodes(workdir: pathlib.Path, stage: str) -> int:
    """Completed episodes of a stage that is not committed."""
    folder = epath.Path(workdir / stage)
    if kind_of(stage) not in EPISODIC or (folder / MANIFEST).exists():
        return 0
    parts = [folder / PARTS]
    if stage == "expert":
        parts = [p for p in (folder / PARTS).iterdir() if p.is_dir()] if parts[0].exists() else []
    count = 0
    for part in parts:
        with keeping.kept_episodes(part) as kept:
            count += sum(attempt.outcome.completed for attempt in kept.values())
    return count


def _repeated(on_disk: int, log: pathlib.Path) -> int:
    """Episodes that were on the disk when a start began, and that it did not take as they were."""
    text = log.read_text()
    taken = sum(map(int, _KEPT.findall(text)))
    # One that was killed before it looked has repeated nothing.
    return 0 if not taken and _PLAYED not in text else on_disk - min(on_disk, taken)


def plan(
    count: int, seed: int, *, processes: int = 1, stages: Sequence[str] = STAGES
) -> list[list[Kill]]:
    """Kills for several runs: each stage's border, and moments spread over all stages.

    Args:
        count: kills in all.
        seed: of the moments.
        processes: of the run; each kill draws one.
        stages: where to kill.
    """
    rng = random.Random(seed)
    runs: list[list[Kill]] = []
    while count > 0:
        kills = [
            Kill(stage=stage, share=share, process=rng.randrange(processes))
            for stage in stages
            for share in (rng.random(), 1.0)
        ]
        chosen = sorted(rng.sample(range(len(kills)), min(count, len(kills))))
        runs.append([kills[n] for n in chosen])
        count -= len(chosen)
    return runs


def measure(
    root: pathlib.Path, *, kills: int, served_kills: int, pair_kills: int
) -> Iterator[Measurement]:
    """Make all runs in a folder, and say what must hold as soon as it is known.

    Runs whose outcome the folder has are not made again.
    """
    reference = Command(root / "reference").finish_once()
    one = [
        run_once(Command(root / f"run-{n}"), each, reference)
        for n, each in enumerate(plan(kills, 0))
    ]
    yield from _rows("kills of a process", kills, one)
    if pair_kills:
        # Two processes take sums in another order than one does.
        pair = Command(root / "pair", processes=2).finish_once()
        two = [
            run_once(Command(root / f"pair-{n}", processes=2), each, pair)
            for n, each in enumerate(plan(pair_kills, 1, processes=2))
        ]
        yield from _rows("kills of one of two", pair_kills, two)
    if served_kills:
        yield from _measure_served(root, served_kills)
    faulty_run = Command(root / "faulty", faulty.FLAGS).finish_once()
    yield from faulty.measure(reference, faulty_run)


def run_once(command: Command, kills: Sequence[Kill], reference: pathlib.Path) -> Killed:
    """`run_with_kills`, unless its outcome is there already."""
    outcome = command.workdir.with_suffix(".json")
    if outcome.exists():
        return Killed(**json.loads(outcome.read_text("utf-8")))
    shutil.rmtree(command.workdir, ignore_errors=True)  # of a measurement that was broken off
    killed = run_with_kills(command, kills, reference)
    write_json(outcome, dataclasses.asdict(killed))
    return killed


def _rows(name: str, count: int, runs: Sequence[Killed]) -> list[Measurement]:
    if not runs:
        return []
    differing = sorted(set(itertools.chain(*(run.differing for run in runs))))
    if differing:
        print("differ:", *differing, sep="\n  ", file=sys.stderr)
    wrong = sum(bool(run.differing) for run in runs)
    lines = sum(run.on_disk for run in runs)
    repeated = sum(run.repeated for run in runs)
    what = f"runs that differ, of {len(runs)} with {count} {name}"
    again = f"episodes repeated, of {lines} on the disk"
    return [
        Measurement(name=what, value=wrong, unit="", bound=0),
        Measurement(name=again, value=repeated, unit="", bound=0),
    ]


def _measure_served(root: pathlib.Path, count: int) -> list[Measurement]:
    """The expert stage with a served expert: answers that are asked for twice."""
    expert = served.Recorded(root / "reference/expert", delay_s=0.1)
    with served.serve(expert) as url:
        fields = {"name": "openai", "model": "recorded", "base_url": url, "concurrency": 4}
        flags = [f"--config.expert.{name}={value}" for name, value in fields.items()]
        flags.append("--stages=expert,report")
        reference = Command(root / "served", flags)
        reference.finish()
        expert.asked.clear()
        # Each start goes on where the last one was killed, so each gets its part of the time.
        rng = random.Random(2)
        kills = [Kill(stage="expert", share=rng.random() / count) for _ in range(count)]
        killed = run_with_kills(Command(root / "served-killed", flags), kills, reference.workdir)
    again = expert.repeated(killed.moments)
    return [
        *_rows("kills with a served expert", count, [killed]),
        Measurement(name="paid answers asked for again", value=again, unit="", bound=0),
    ]


def main() -> None:
    """Measure, and print a table row by row; the figures are written as JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--served", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument(
        "--workdir", type=pathlib.Path, help="where the runs are made and left; found there again"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/faults.json")
    )
    args = parser.parse_args()
    rows = []
    print("\n".join(tables.head(HEADER, texts=len(HEADER))), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = args.workdir or pathlib.Path(folder)
        counts = {"kills": args.kills, "served_kills": args.served, "pair_kills": args.pairs}
        for each in measure(root, **counts):
            print(each.row(), flush=True)
            rows.append(each)
    figures = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "provenance": collect_provenance({}, 0),
        "kills": {"one process": args.kills, "served": args.served, "two": args.pairs},
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    write_json(args.out, figures)
