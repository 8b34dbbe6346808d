"""LoRA steps beside torch + PEFT: `python -m benchmarks.train --model=FOLDER --peer torch=PYTHON`.

200 recorded trajectories (the scripted expert on the embedded shop, in the model's chat template)
are cut into slices; each contender trains on each slice once, in an order that rotates, one at a
time on the same cores. The table gives real tokens a second (no padding counted): on the recorded
lengths, where one pads and the other packs, and on examples cut to one length, where neither has
anything to pad. Both start from the same weights, and neither computes a layer twice (no remat).
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

from benchmarks.common import machine
from benchmarks.common.measurement import Measurement, table
from benchmarks.train import recorded
from eef_jax import cli
from eef_jax.data.batches import Batches
from eef_jax.errors import ConfigError
from eef_jax.storage import provenance
from eef_jax.types import Example

HERE = Path(__file__).parent
OURS = "eef_jax"
WANTED = 1.5  # times the peer's real tokens a second

Slice = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained on.

    Attributes:
        name: of the setting.
        slices: of examples; each is trained on once.
        peer_batch_size: examples of the peer's micro-batch.
        batch_size: rows of a batch of ours.
        seq_len: tokens of a row.
        max_loss_positions: learned tokens that a row has room for.
    """

    name: str
    slices: list[Slice]
    peer_batch_size: int
    batch_size: int
    seq_len: int
    max_loss_positions: int


class Contender:
    """A process that trains when told to."""

    def __init__(self, name: str, command: list[str], job: dict[str, Any]):
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=HERE.parent
        )
        self.versions = self.ask(job)["versions"]

    def ask(self, what: Any) -> dict[str, Any]:
        """Send a line, and wait for the answer."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self.close()
            raise ConfigError(f"contender {self.name} ended: see its messages above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin and self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


def workloads(examples: list[Example], *, slices: int, batch: int, equal: int) -> list[Workload]:
    """The recorded lengths, and equal ones.

    Our rows hold the longest example, and together as many tokens as the peer's mean micro-batch,
    padding included.
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
    cut = [
        dataclasses.replace(example, tokens=example.tokens[:equal], weights=example.weights[:equal])
        for example in examples
        if len(example.tokens) >= equal
    ]
    per_slice = 2 * batch
    if len(cut) < per_slice:
        raise ConfigError(
            f"{len(cut)} of {len(examples)} trajectories have {equal} tokens: lower --equal"
        )
    same = [[cut[(s * per_slice + i) % len(cut)] for i in range(per_slice)] for s in range(slices)]
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
        slices=[[_plain(example) for example in part] for part in parts],
        peer_batch_size=batch,
        batch_size=batch_size,
        seq_len=seq_len,
        max_loss_positions=Batches(
            examples=every, batch_size=batch_size, seq_len=seq_len
        ).max_loss_positions,
    )


def _plain(example: Example) -> dict[str, Any]:
    learned = example.weights > 0
    learned[0] = False
    return {"tokens": example.tokens.tolist(), "learned": learned.tolist()}


def measure(
    work: Workload, commands: dict[str, list[str]], job: dict[str, Any], repeats: int
) -> dict[str, Any]:
    """Let all contenders train on the slices of a workload, one after the other."""
    sizes = {
        name: getattr(work, name)
        for name in ("peer_batch_size", "batch_size", "seq_len", "max_loss_positions")
    }
    contenders = [Contender(name, command, job | sizes) for name, command in commands.items()]
    rounds = []
    try:
        for contender in contenders:
            contender.ask(work.slices[-1][: work.peer_batch_size])  # compiles, allocates
        for number in range(repeats):
            part = work.slices[number]
            turn = number % len(contenders)
            answers = {c.name: c.ask(part) for c in contenders[turn:] + contenders[:turn]}
            tokens = sum(len(example["tokens"]) for example in part)
            rounds.append({"tokens": tokens, "answers": answers})
            _say(work.name, number, tokens, answers)
    finally:
        for contender in contenders:
            contender.close()
    versions = {key: value for c in contenders for key, value in c.versions.items()}
    return {"name": work.name, **sizes, "rounds": rounds, "versions": versions}


def _say(name: str, number: int, tokens: int, answers: dict[str, Any]) -> None:
    speeds = ", ".join(f"{who} {tokens / a['seconds']:,.0f}" for who, a in answers.items())
    print(f"{name}, slice {number}, real tokens/s: {speeds}", file=sys.stderr, flush=True)


def rows_of(result: dict[str, Any]) -> Iterator[str]:
    """Lines of the table, one a contender."""
    names = list(result["rounds"][0]["answers"])
    for name in names:
        answers = [(r["tokens"], r["answers"][name]) for r in result["rounds"]]
        speed = statistics.median(tokens / a["seconds"] for tokens, a in answers)
        real, slots = sum(t for t, _ in answers), sum(a["slots"] for _, a in answers)
        steps, peak = sum(a["steps"] for _, a in answers), max(a["peak_gib"] for _, a in answers)
        yield (
            f"| {result['name']} | {name} | {speed:,.0f} | {1 - real / slots:.1%} | "
            f"{slots / steps:,.0f} | {peak:.1f} |"
        )


def ratio(result: dict[str, Any], peer: str) -> float:
    """Median over slices of our speed over the peer's."""
    return statistics.median(
        r["answers"][peer]["seconds"] / r["answers"][OURS]["seconds"] for r in result["rounds"]
    )


HEAD = (
    "| examples | who | real tokens/s (median) | padding | tokens a step | peak memory, GiB |"
    "\n|---|---|---:|---:|---:|---:|"
)


def report(results: list[dict[str, Any]], peers: list[str]) -> str:
    """Both tables."""
    lines = [HEAD, *(line for result in results for line in rows_of(result))]
    figures = [
        Measurement(
            name=f"speed of {peer}, {result['name']}",
            value=ratio(result, peer),
            unit="times",
            bound=WANTED if result is results[0] else 1.0,
            at_most=False,
        )
        for result in results
        for peer in peers
    ]
    return "\n".join([*lines, "", table(figures)])


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
    flags.DEFINE_integer("trajectories", 200, "How many are recorded.")
    flags.DEFINE_integer("slices", 4, "Parts they are cut into.")
    flags.DEFINE_integer("repeats", 0, "Slices that are measured; 0 for all.")
    flags.DEFINE_integer("batch", 2, "Examples of a padded micro-batch.")
    flags.DEFINE_integer("equal", 1024, "Length of the examples that are all cut alike, in tokens.")
    flags.DEFINE_integer("rank", 16, "Of the adapter, on all projections.")
    cli.define_path("results", None, "File for the figures, as JSON.", local=True)
    cli.run(_main)
