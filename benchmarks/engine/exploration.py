"""Exploration next to other engines.

    python -m benchmarks.engine.exploration --model=FOLDER --peer=vllm=PYTHON

One workload (`explore/workload.py`), the same ids for every engine, greedy, in float32 on the same
cores, each engine in a process of its own, one at a time. The order rotates from one repeat to the
next, and what is compared are medians of each repeat's ratios: figures of different repeats or
machines say nothing about each other. `--variants` times the engine without what it saves. Repeats
are added to the file of results as they end, so a long comparison may be made in parts.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.common import machine
from benchmarks.common.measurement import Measurement, table
from benchmarks.engine.workload import Workload
from eef_jax import cli
from eef_jax.errors import ConfigError
from eef_jax.report import markdown
from eef_jax.storage import provenance

HERE = Path(__file__).parent
PEERS = ("vllm", "hf", "tunix")
VARIANTS = ("no_turns", "no_sharing", "neither")
TIE = 1e-3  # logits; two engines may take different ones of ids that are closer
# Episodes a second over theirs.
WANTED = {"vllm": 1.0, "hf": 10.0, "tunix": 10.0, "neither": 3.0}

FLAGS = flags.FLAGS


def contenders(peers: list[str]) -> dict[str, list[str]]:
    """Name -> command of everything that is timed.

    Raises:
        ConfigError: for a peer that is none.
    """
    found = {"full": [sys.executable, "-m", "benchmarks.engine.ours"]}
    for peer in peers:
        name, _, python = peer.partition("=")
        if name not in PEERS or not python:
            raise ConfigError(f"--peer={peer!r}: expected one of {PEERS} = its interpreter")
        found[name] = [python, "-m", f"benchmarks.engine.{name}"]
    return found


def run(command: list[str], *arguments: str, given: str = "") -> dict[str, Any]:
    """A runner's result.

    Args:
        command: the runner.
        *arguments: its arguments.
        given: its standard input.

    Raises:
        ConfigError: it failed; with the end of what it printed.
    """
    done = subprocess.run(
        [*command, *arguments],
        cwd=HERE.parent,
        input=given,
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


def partings(one: dict[str, Any], other: dict[str, Any], workload: Workload) -> list[list[Any]]:
    """[ids before, one id, the other] where each episode's answers first differ, if they do."""
    found = []
    for (expert, state, mine), (*_, theirs) in zip(one["outputs"], other["outputs"], strict=True):
        pairs = enumerate(zip(mine, theirs, strict=True))
        turn = next((turn for turn, (a, b) in pairs if a != b), None)
        if turn is not None:
            a, b = mine[turn], theirs[turn]
            at = next(i for i in range(len(a)) if a[i] != b[i])
            before = workload.before((expert, state), mine[:turn]) + a[:at]
            found.append([before, a[at], b[at]])
    return found


def repeat(model: str, found: dict[str, list[str]], *, experts: int, number: int) -> dict[str, Any]:
    """Time everything once: seconds, tokens, agreement with ours and its largest tie, by name."""
    names = list(found)
    names = names[number % len(names) :] + names[: number % len(names)]
    results = {}
    for name in names:
        variant = [name] if name in VARIANTS else []
        results[name] = run(found[name], model, str(experts), *variant)
        print(f"{name} {results[name]['seconds']:.1f} s", file=sys.stderr, flush=True)
    kept: dict[str, Any] = {
        "made_by": provenance.collect_provenance({}, 0),
        "machine": machine.describe(),
        "experts": experts,
    }
    for name, result in results.items():
        kept[name] = {
            "seconds": result["seconds"],
            "agreement": agreement(results["full"], result),
            "tokens": result.get("tokens", {}),
        }
        apart = partings(results["full"], result, Workload(experts=experts))
        if apart:
            lines = "\n".join(map(json.dumps, apart))
            ties = run([sys.executable, "-m", "benchmarks.engine.ties"], model, given=lines)
            kept[name]["apart"] = max(ties["apart"])
    return kept


def lines(repeats: list[dict[str, Any]]) -> list[str]:
    """The table of times."""
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
    return markdown.table(header, rows)


def figures(repeats: list[dict[str, Any]]) -> list[Measurement]:
    """Our episodes a second over the others', and how far apart the scores of other ids were."""
    found = []
    for name in (name for name in (*PEERS, *VARIANTS) if name in repeats[0]):
        if name in WANTED:
            ratio = statistics.median(
                each[name]["seconds"] / each["full"]["seconds"] for each in repeats
            )
            found.append(
                Measurement(
                    name=f"over {name}", value=ratio, unit="x", bound=WANTED[name], at_most=False
                )
            )
        apart = [each[name]["apart"] for each in repeats if "apart" in each[name]]
        if apart:
            found.append(
                Measurement(name=f"tie, {name}", value=max(apart), unit="logits", bound=TIE)
            )
    return found


def earlier(path: Path | None, names: set[str], experts: int) -> list[dict[str, Any]]:
    """The repeats that are in a file of results.

    Raises:
        ConfigError: they timed something else.
    """
    repeats = json.loads(path.read_text()) if path is not None and path.exists() else []
    for each in repeats:
        timed = set(each) - {"made_by", "machine", "experts"}
        if timed != names or each["experts"] != experts:
            raise ConfigError(
                f"{path} has repeats of {sorted(timed)} with {each['experts']} experts, asked for "
                f"are {sorted(names)} with {experts}: give another --results"
            )
    return repeats


def main() -> None:
    """Time everything and print the tables."""
    found = contenders(FLAGS.peer)
    if FLAGS.variants:
        found |= dict.fromkeys(VARIANTS, found["full"])
    kept = Path(FLAGS.results) if FLAGS.results else None
    repeats = earlier(kept, set(found), FLAGS.experts)
    for _ in range(FLAGS.repeats):
        repeats.append(repeat(FLAGS.model, found, experts=FLAGS.experts, number=len(repeats)))
        if kept is not None:
            kept.write_text(json.dumps(repeats, indent=1) + "\n")
    print("\n".join(lines(repeats)), "\n", table(figures(repeats)), sep="")


def run_command() -> None:
    """Run the command."""
    flags.DEFINE_string("model", None, "Hugging Face folder", required=True)
    flags.DEFINE_multi_string("peer", [], "vllm, hf or tunix = its interpreter")
    flags.DEFINE_bool("variants", True, "time the engine without what it saves, too")
    flags.DEFINE_integer("experts", 8, "expert trajectories, 6 episodes each", lower_bound=1)
    flags.DEFINE_integer("repeats", 3, "times that everything is timed now", lower_bound=1)
    flags.DEFINE_string("results", "", "JSON file that repeats are added to")
    cli.run(main)


if __name__ == "__main__":
    run_command()
