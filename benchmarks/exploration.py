"""Exploration beside peers: `python -m benchmarks.exploration --model=FOLDER --peer=vllm=PYTHON`.

One workload (`explore/workload.py`), the same ids for every engine, greedy, in float32 on the same
cores, each engine in a process of its own, one at a time. The order rotates from one repeat to the
next, and what is compared are medians of this run: figures of different runs or machines say
nothing about each other. `--variants` times the engine without what it saves.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.figure import Figure, table
from eef_jax import cli, provenance
from eef_jax.errors import ConfigError

HERE = Path(__file__).parent
PEERS = ("vllm", "hf", "tunix")
VARIANTS = ("no_turns", "no_sharing", "neither")
# Episodes a second over the peer's.
WANTED = {"vllm": 1.0, "hf": 10.0, "tunix": 10.0, "neither": 3.0}

FLAGS = flags.FLAGS
MODEL = flags.DEFINE_string("model", None, "Hugging Face folder", required=True)
PEER = flags.DEFINE_multi_string("peer", [], "vllm, hf or tunix = its interpreter")
WITH = flags.DEFINE_bool("variants", True, "time the engine without what it saves, too")
EXPERTS = flags.DEFINE_integer("experts", 8, "expert trajectories, 6 episodes each", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 3, "times that everything is timed", lower_bound=1)
RESULTS = flags.DEFINE_string("results", "", "JSON file to keep the figures in")


def contenders(peers: list[str]) -> dict[str, list[str]]:
    """Name -> command of everything that is timed.

    Raises:
        ConfigError: for a peer that is none.
    """
    found = {"full": [sys.executable, "-m", "benchmarks.explore.ours"]}
    for peer in peers:
        name, _, python = peer.partition("=")
        if name not in PEERS or not python:
            raise ConfigError(f"--peer={peer!r}: expected one of {PEERS} = its interpreter")
        found[name] = [python, "-m", f"benchmarks.explore.{name}"]
    return found


def run(command: list[str], *arguments: str) -> dict[str, Any]:
    """A runner's result.

    Raises:
        ConfigError: it failed; with the end of what it printed.
    """
    # Large blocks stay with the process: handing them back costs XLA on CPU a page fault each.
    large = {name: str(1 << 33) for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")}
    done = subprocess.run(
        [*command, *arguments],
        cwd=HERE.parent,
        env=os.environ | large,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def agreement(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Share of turns in which two engines drew the same ids."""
    pairs = [
        (a, b)
        for (*_, mine), (*_, theirs) in zip(one["outputs"], other["outputs"], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def measure(model: str, found: dict[str, list[str]], *, experts: int, repeats: int) -> Any:
    """Results by contender, one a repeat, in rotated order."""
    names = list(found)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            variant = [name] if name in VARIANTS else []
            results[name].append(run(found[name], model, str(experts), *variant))
            seconds = results[name][-1]["seconds"]
            print(f"repeat {repeat + 1}: {name} {seconds:.1f} s", file=sys.stderr, flush=True)
    return results


def lines(results: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The table of times."""
    full = results["full"]
    rows = [
        "| engine | s (median, all) | episodes/s | tokens prefilled | same ids as ours |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, done in results.items():
        seconds = [result["seconds"] for result in done]
        middle = statistics.median(seconds)
        prefilled = done[0].get("tokens", {}).get("prefilled")
        rows.append(
            f"| {name} | {middle:.1f} ({', '.join(f'{s:.1f}' for s in seconds)}) "
            f"| {len(done[0]['outputs']) / middle:.2f} "
            f"| {'' if prefilled is None else format(prefilled, ',')} "
            f"| {agreement(full[0], done[0]):.1%} |"
        )
    return rows


def figures(results: dict[str, list[dict[str, Any]]]) -> list[Figure]:
    """Our episodes a second over the others': medians of the repeats' ratios."""
    found = []
    for name, wanted in WANTED.items():
        if name in results:
            pairs = zip(results[name], results["full"], strict=True)
            ratio = statistics.median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs)
            found.append(
                Figure(name=f"over {name}", value=ratio, unit="x", bound=wanted, at_most=False)
            )
    return found


def main() -> None:
    """Time everything and print the tables."""
    found = contenders(PEER.value)
    if WITH.value:
        found |= dict.fromkeys(VARIANTS, found["full"])
    results = measure(MODEL.value, found, experts=EXPERTS.value, repeats=REPEATS.value)
    print("\n".join(lines(results)), "\n\n", table(figures(results)), sep="")
    if RESULTS.value:
        kept = {
            "made_by": provenance.provenance({}, 0),
            "experts": EXPERTS.value,
            "seconds": {n: [r["seconds"] for r in done] for n, done in results.items()},
            "agreement": {n: agreement(results["full"][0], d[0]) for n, d in results.items()},
            "tokens": {n: d[0]["tokens"] for n, d in results.items() if "tokens" in d[0]},
        }
        Path(RESULTS.value).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
