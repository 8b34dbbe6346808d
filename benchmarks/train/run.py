"""LoRA training next to torch + PEFT: `python -m benchmarks.train --model=DIR --peer=torch=PYTHON`.

200 recorded trajectories (the scripted expert on the embedded catalogue, in the model's chat
template) are divided into slices. Each runner trains on each slice once, one at a time on the same
cores, in rotating order. The table gives tokens per second without padding: on the recorded
lengths, where PEFT pads and this package packs, and on examples truncated to one length, where
neither needs padding. Both start from the same weights and use no rematerialization.
"""

import contextlib
import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.common import machine, tables
from benchmarks.common.measurement import Measurement, table
from benchmarks.train import recorded
from eef_jax import cli
from eef_jax.data.batches import Batches
from eef_jax.errors import ConfigError
from eef_jax.storage import provenance
from eef_jax.types import Example

HERE = Path(__file__).parent
OURS = "eef_jax"
MIN_SPEEDUP = 1.5  # required ratio of our tokens per second to the peer's

Slice = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Examples to train on, and the batch sizes of both packages.

    Attributes:
        name: name of the workload in the table.
        slices: parts of the examples; each is trained on once.
        peer_batch_size: examples per padded batch of the peer.
        batch_size: rows per packed batch of this package.
        seq_len: tokens per row.
        max_loss_positions: most learned tokens per row.
    """

    name: str
    slices: list[Slice]
    peer_batch_size: int
    batch_size: int
    seq_len: int
    max_loss_positions: int


class Runner:
    """A process that trains on the slices it is sent."""

    def __init__(self, name: str, command: list[str], job: dict[str, Any]):
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
        )
        self.versions = self.send(job)["versions"]

    def send(self, message: Any) -> dict[str, Any]:
        """Send a line of JSON and wait for the answer.

        Raises:
            ConfigError: the process has ended.
        """
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self.close()
            raise ConfigError(f"the runner {self.name} ended: see its messages above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def workloads(examples: list[Example], *, slices: int, batch: int, equal: int) -> list[Workload]:
    """The workload of the recorded lengths, and that of equal lengths.

    A row holds the longest example, and a batch of rows as many tokens as a mean batch of the peer,
    padding included.

    Args:
        examples: the recorded trajectories.
        slices: number of slices.
        batch: examples per padded batch of the peer.
        equal: tokens that examples of the second workload are truncated to.

    Raises:
        ConfigError: too few examples have `equal` tokens.
    """
    order = np.random.default_rng(0).permutation(len(examples))
    parts = [[examples[i] for i in part] for part in np.array_split(order, slices)]
    longest = max(len(example.tokens) for example in examples)
    longest = -(-longest // 256) * 256
    padded = [
        max(len(example.tokens) for example in part[at : at + batch]) * len(part[at : at + batch])
        for part in parts
        for at in range(0, len(part), batch)
    ]
    tokens = statistics.mean(padded)
    rows = max(1, round(tokens / longest))
    length = max(longest, round(tokens / rows / 256) * 256)
    truncated = [
        dataclasses.replace(example, tokens=example.tokens[:equal], weights=example.weights[:equal])
        for example in examples
        if len(example.tokens) >= equal
    ]
    per_slice = 2 * batch
    if len(truncated) < per_slice:
        raise ConfigError(
            f"only {len(truncated)} of {len(examples)} trajectories have {equal} tokens, "
            f"expected {per_slice}: lower --equal"
        )
    same = [
        [truncated[(s * per_slice + i) % len(truncated)] for i in range(per_slice)]
        for s in range(slices)
    ]
    return [
        _workload("recorded lengths", parts, batch=batch, batch_size=rows, seq_len=length),
        _workload(f"{equal} tokens each", same, batch=batch, batch_size=batch, seq_len=equal),
    ]


def _workload(
    name: str, parts: list[list[Example]], *, batch: int, batch_size: int, seq_len: int
) -> Workload:
    every = [example for part in parts for example in part]
    return Workload(
        name=name,
        slices=[[_to_json(example) for example in part] for part in parts],
        peer_batch_size=batch,
        batch_size=batch_size,
        seq_len=seq_len,
        max_loss_positions=Batches(
            examples=every, batch_size=batch_size, seq_len=seq_len
        ).max_loss_positions,
    )


def _to_json(example: Example) -> dict[str, Any]:
    learned = example.weights > 0
    learned[0] = False  # no position predicts it
    return {"tokens": example.tokens.tolist(), "learned": learned.tolist()}


def measure(
    work: Workload, commands: dict[str, list[str]], job: dict[str, Any], repeats: int
) -> dict[str, Any]:
    """Train with all runners on the slices of a workload, one runner at a time.

    Args:
        work: the workload.
        commands: each runner's command, by name.
        job: what all runners are told.
        repeats: number of slices to train on.

    Returns:
        Times and sizes of each slice, as JSON values.
    """
    sizes = {
        name: getattr(work, name)
        for name in ("peer_batch_size", "batch_size", "seq_len", "max_loss_positions")
    }
    runners = [Runner(name, command, job | sizes) for name, command in commands.items()]
    rounds = []
    try:
        for runner in runners:
            runner.send(work.slices[-1][: work.peer_batch_size])  # compiles, allocates
        for number in range(repeats):
            part = work.slices[number]
            first = number % len(runners)
            answers = {r.name: r.send(part) for r in runners[first:] + runners[:first]}
            tokens = sum(len(example["tokens"]) for example in part)
            rounds.append({"tokens": tokens, "answers": answers})
            _log_speeds(work.name, number, tokens, answers)
    finally:
        for runner in runners:
            runner.close()
    versions = {key: value for r in runners for key, value in r.versions.items()}
    return {"name": work.name, **sizes, "rounds": rounds, "versions": versions}


def _log_speeds(name: str, number: int, tokens: int, answers: dict[str, Any]) -> None:
    speeds = ", ".join(f"{who} {tokens / a['seconds']:,.0f}" for who, a in answers.items())
    print(
        f"{name}, slice {number}, tokens/s without padding: {speeds}", file=sys.stderr, flush=True
    )


def rows_of(result: dict[str, Any]) -> Iterator[list[object]]:
    """Rows of the table, one per runner."""
    names = list(result["rounds"][0]["answers"])
    for name in names:
        answers = [(r["tokens"], r["answers"][name]) for r in result["rounds"]]
        speed = statistics.median(tokens / a["seconds"] for tokens, a in answers)
        real = sum(tokens for tokens, _ in answers)
        padded = sum(a["padded_tokens"] for _, a in answers)
        steps, peak = sum(a["steps"] for _, a in answers), max(a["peak_gib"] for _, a in answers)
        padding = f"{1 - real / padded:.1%}"
        yield [result["name"], name, round(speed), padding, round(padded / steps), peak]


def ratio(result: dict[str, Any], peer: str) -> float:
    """Median over slices of our speed over the peer's."""
    return statistics.median(
        r["answers"][peer]["seconds"] / r["answers"][OURS]["seconds"] for r in result["rounds"]
    )


HEADER = ("examples", "package", "tokens/s (median)", "padding", "tokens/step", "peak GiB")


def report(results: list[dict[str, Any]], peers: list[str]) -> str:
    """Both tables."""
    rows = [row for result in results for row in rows_of(result)]
    figures = [
        Measurement(
            name=f"speed of {peer}, {result['name']}",
            value=ratio(result, peer),
            unit="times",
            bound=MIN_SPEEDUP if result is results[0] else 1.0,
            at_most=False,
        )
        for result in results
        for peer in peers
    ]
    return "\n".join([*tables.table(HEADER, rows, texts=2), table(figures)])


def _commands(peers: list[str]) -> dict[str, list[str]]:
    commands = {OURS: [sys.executable, "-m", "benchmarks.train.ours"]}
    for peer in peers:
        name, _, python = peer.partition("=")
        runner = HERE / f"{name}_peft.py"
        if not python or not runner.exists():
            raise ConfigError(f"--peer={peer}: expected torch=PYTHON, an interpreter with PEFT")
        commands[name] = [python, str(runner)]
    return commands


def _main() -> None:
    given = flags.FLAGS
    commands = _commands(given.peer)
    examples = recorded.record(given.model, given.trajectories)
    job = {
        "model": str(Path(given.model).resolve()),
        "rank": given.rank,
        "remat": False,
        "threads": os.cpu_count(),
    }
    repeats = given.repeats or given.slices
    parts = workloads(examples, slices=given.slices, batch=given.batch, equal=given.equal)
    results = [measure(work, commands, job, repeats) for work in parts]
    print(report(results, [name for name in commands if name != OURS]))
    facts = {
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine.describe(),
        "provenance": provenance.collect_provenance({}, 0),
        "trajectories": given.trajectories,
        "tokens": sum(len(example.tokens) for example in examples),
        "job": job | {"model": Path(given.model).name},
        "results": results,
    }
    if given.results:
        Path(given.results).write_text(json.dumps(facts, indent=1) + "\n")


def run() -> None:
    """Run the command."""
    cli.define_path(
        "model", None, "A Hugging Face folder (SmolLM2-135M).", required=True, local=True
    )
    flags.DEFINE_multi_string("peer", [], "torch=PYTHON: an interpreter with torch and PEFT.")
    flags.DEFINE_integer("trajectories", 200, "Number of trajectories to record.")
    flags.DEFINE_integer("slices", 4, "Number of slices they are divided into.")
    flags.DEFINE_integer("repeats", 0, "Number of slices to measure; 0 for all.")
    flags.DEFINE_integer("batch", 2, "Examples per padded batch.")
    flags.DEFINE_integer("equal", 1024, "Tokens that examples of the second workload have.")
    flags.DEFINE_integer("rank", 16, "Rank of the adapter on all projections.")
    cli.define_path("results", None, "JSON file to write the figures to.", local=True)
    cli.run(_main)
