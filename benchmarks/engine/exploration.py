"""The exploration workload on our engine and on others.

    python -m benchmarks.engine.exploration --model=FOLDER --peer=vllm=PYTHON

One workload (`workload.py`) with the same ids for every engine, greedy, in float32 on the same
cores, each engine in a separate process, one at a time. The order rotates from one repeat to the
next, and ratios are taken within a repeat and then their median: figures of different repeats or
machines are not comparable. `--variants` also times the engine with sharing disabled. Repeats are
added to the results file as they end, so a long comparison can be made in parts.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.common import machine, tables
from benchmarks.common.measurement import Measurement, table
from benchmarks.engine.workload import Workload
from eef_jax import cli
from eef_jax.errors import ConfigError
from eef_jax.storage import provenance

ROOT = Path(__file__).parents[2]
PEERS = ("vllm", "hf", "tunix")
VARIANTS = ("no_turns", "no_sharing", "neither")
TIE = 1e-3  # logits; between closer ids, engines may choose differently
# Bounds of our episodes a second over theirs.
MIN_SPEEDUP = {"vllm": 1.0, "hf": 10.0, "tunix": 10.0, "neither": 3.0}

FLAGS = flags.FLAGS


def engine_commands(peers: list[str]) -> dict[str, list[str]]:
    """Return the commands to time, by name.

    Args:
        peers: `NAME=PYTHON`: one of `PEERS` and an interpreter that has it.

    Raises:
        ConfigError: a peer is not of this form.
    """
    commands = {"full": [sys.executable, "-m", "benchmarks.engine.ours"]}
    for peer in peers:
        name, _, python = peer.partition("=")
        if name not in PEERS or not python:
            raise ConfigError(f"--peer={peer!r}: expected one of {PEERS} = its interpreter")
        commands[name] = [python, "-m", f"benchmarks.engine.{name}"]
    return commands


def run(command: list[str], *arguments: str, stdin: str = "") -> dict[str, Any]:
    """Run a runner and return its result.

    Args:
        command: the runner.
        *arguments: its arguments.
        stdin: its standard input.

    Raises:
        ConfigError: it failed; with the end of its output.
    """
    done = subprocess.run(
        [*command, *arguments],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def agreement(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Return the share of turns (0-1) in which two engines generated the same ids."""
    pairs = [
        (a, b)
        for (*_, mine), (*_, theirs) in zip(one["outputs"], other["outputs"], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    ]
    return sum(a == b for a, b in pairs) / len(pairs)


def first_differences(
    one: dict[str, Any], other: dict[str, Any], workload: Workload
) -> list[list[Any]]:
    """Return [preceding ids, one id, other id] of each episode at its first difference."""
    found = []
    for (expert, state, mine), (*_, theirs) in zip(one["outputs"], other["outputs"], strict=True):
        pairs = enumerate(zip(mine, theirs, strict=True))
        turn = next((turn for turn, (a, b) in pairs if a != b), None)
        if turn is not None:
            a, b = mine[turn], theirs[turn]
            at = next(i for i in range(len(a)) if a[i] != b[i])
            before = workload.conversation((expert, state), mine[:turn]) + a[:at]
            found.append([before, a[at], b[at]])
    return found


def repeat(
    model: str, commands: dict[str, list[str]], *, experts: int, number: int
) -> dict[str, Any]:
    """Time every engine and variant once.

    Args:
        model: Hugging Face folder.
        commands: the command of each engine and variant, by name.
        experts: number of expert trajectories of the workload.
        number: number of this repeat, from 0; decides the order.

    Returns:
        Seconds, tokens, agreement with our engine and the largest logit difference, by name.
    """
    names = list(commands)
    names = names[number % len(names) :] + names[: number % len(names)]
    results = {}
    for name in names:
        variant = [name] if name in VARIANTS else []
        results[name] = run(commands[name], model, str(experts), *variant)
        print(f"{name} {results[name]['seconds']:.1f} s", file=sys.stderr, flush=True)
    entry: dict[str, Any] = {
        "made_by": provenance.collect_provenance({}, 0),
        "machine": machine.describe(),
        "experts": experts,
    }
    for name, result in results.items():
        entry[name] = {
            "seconds": result["seconds"],
            "agreement": agreement(results["full"], result),
            "tokens": result.get("tokens", {}),
        }
        differences = first_differences(results["full"], result, Workload(experts=experts))
        if differences:
            lines = "\n".join(map(json.dumps, differences))
            ties = run([sys.executable, "-m", "benchmarks.engine.ties"], model, stdin=lines)
            entry[name]["apart"] = max(ties["apart"])
    return entry


def times_table(repeats: list[dict[str, Any]]) -> list[str]:
    """Return the table of times as Markdown."""
    header = ["engine", "s (median, all)", "episodes/s", "tokens prefilled", "same ids as ours"]
    rows = []
    episodes = len(Workload(experts=repeats[0]["experts"]).episodes())
    for name in (name for name in ("full", *VARIANTS, *PEERS) if name in repeats[0]):
        done = [each[name] for each in repeats]
        seconds = [each["seconds"] for each in done]
        middle = statistics.median(seconds)
        prefilled = done[0]["tokens"].get("prefilled")
        rows.append(
            [
                name,
                f"{middle:.1f} ({', '.join(f'{s:.1f}' for s in seconds)})",
                f"{episodes / middle:.2f}",
                "" if prefilled is None else prefilled,
                f"{min(each['agreement'] for each in done):.1%}",
            ]
        )
    return tables.table(header, rows)


def figures(repeats: list[dict[str, Any]]) -> list[Measurement]:
    """Return our speedup over each engine, and the logit differences where ids differed."""
    found = []
    for name in (name for name in (*PEERS, *VARIANTS) if name in repeats[0]):
        if name in MIN_SPEEDUP:
            ratio = statistics.median(
                each[name]["seconds"] / each["full"]["seconds"] for each in repeats
            )
            found.append(
                Measurement(
                    name=f"over {name}",
                    value=ratio,
                    unit="x",
                    bound=MIN_SPEEDUP[name],
                    at_most=False,
                )
            )
        apart = [each[name]["apart"] for each in repeats if "apart" in each[name]]
        if apart:
            found.append(
                Measurement(name=f"tie, {name}", value=max(apart), unit="logits", bound=TIE)
            )
    return found


def stored_repeats(path: Path | None, names: set[str], experts: int) -> list[dict[str, Any]]:
    """Return the repeats in a results file.

    Args:
        path: the results file; None for none.
        names: engines and variants that this run times.
        experts: expert trajectories of this run's workload.

    Raises:
        ConfigError: the file's repeats timed other engines or another workload.
    """
    repeats = json.loads(path.read_text()) if path is not None and path.exists() else []
    for each in repeats:
        timed = set(each) - {"made_by", "machine", "experts"}
        if timed != names or each["experts"] != experts:
            raise ConfigError(
                f"{path} has repeats of {sorted(timed)} with {each['experts']} experts, this run "
                f"times {sorted(names)} with {experts}: give another --results"
            )
    return repeats


def main() -> None:
    """Time all repeats and print the tables."""
    commands = engine_commands(FLAGS.peer)
    if FLAGS.variants:
        commands |= dict.fromkeys(VARIANTS, commands["full"])
    results = Path(FLAGS.results) if FLAGS.results else None
    repeats = stored_repeats(results, set(commands), FLAGS.experts)
    for _ in range(FLAGS.repeats):
        repeats.append(repeat(FLAGS.model, commands, experts=FLAGS.experts, number=len(repeats)))
        if results is not None:
            results.write_text(json.dumps(repeats, indent=1) + "\n")
    print("\n".join(times_table(repeats)), "\n", table(figures(repeats)), sep="")


def run_command() -> None:
    """Run the command."""
    cli.define_path("model", None, "Hugging Face folder", required=True, local=True)
    flags.DEFINE_multi_string("peer", [], "vllm, hf or tunix = its interpreter")
    flags.DEFINE_bool("variants", True, "also time the engine with sharing disabled")
    flags.DEFINE_integer("experts", 8, "expert trajectories, 6 episodes each", lower_bound=1)
    flags.DEFINE_integer("repeats", 3, "number of repeats to add", lower_bound=1)
    cli.define_path("results", "", "JSON file that repeats are added to", local=True)
    cli.run(main)


if __name__ == "__main__":
    run_command()
