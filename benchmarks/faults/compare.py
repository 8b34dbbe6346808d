"""Whether two runs made the same: every byte, but for what tells the time or counts the work."""

import json
import pathlib
import re
from collections.abc import Iterator

from benchmarks.common.digests import digests
from eef_jax.storage.manifest import NAME as MANIFEST
from eef_jax.storage.workdir import CHECKPOINT, COMPILED, LOCK

# Tables of report.md whose columns tell seconds, or what the engine computed and reused.
_MEASURED = re.compile(r"seconds|minutes|tokens (prefilled|reused|generated)")
_WORK = ("seconds", "spent", "tokens", "tokens_per_s")  # counts of a manifest
# Rates of training are in metrics.jsonl, and its losses are compared. What report.html says and
# shows is in the stages' files and report.md, and tells the time throughout.
_LEFT_OUT = (LOCK, "metrics.jsonl", "report.html")


def differences(one: pathlib.Path, other: pathlib.Path) -> list[str]:
    """Names of what differs between two work folders; [] if they are the same.

    Args:
        one: a finished run.
        other: another one of the same config and commit.
    """
    left, right = dict(_contents(one)), dict(_contents(other))
    found = [name for name in left | right if left.get(name) != right.get(name)]
    if any(one.rglob(CHECKPOINT)):
        arrays, others = digests(one), digests(other)
        found += [f"digest of {kind}" for kind in arrays if arrays[kind] != others[kind]]
    return sorted(found)


def _contents(root: pathlib.Path) -> Iterator[tuple[str, object]]:
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_dir() or path.name in _LEFT_OUT or COMPILED in path.parts:
            continue
        if CHECKPOINT in path.parts:
            continue  # arrays are compared by their digests: Orbax names files at random
        if path.name == MANIFEST:
            yield name, _manifest(json.loads(path.read_text()))
        elif path.name == "report.md":
            yield name, untimed(path.read_text())
        else:
            yield name, path.read_bytes()
    for path in sorted(root.rglob("metrics.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        name = path.relative_to(root).as_posix()
        yield name, [(row["step"], row.get("loss")) for row in rows]


def _manifest(manifest: dict[str, dict[str, object]]) -> object:
    counts = {k: v for k, v in manifest["counts"].items() if k not in _WORK or k == "steps"}
    facts = ("provenance", "stage", "made_from", "numerics", "content")
    return counts, [manifest.get(name) for name in facts]


def untimed(report: str) -> str:
    """A report without its section of times, and without measured columns of other tables."""
    kept: list[str] = []
    measured: list[int] = []
    skipped = header = False
    for line in report.splitlines():
        if line.startswith("## "):
            skipped = line == "## Time"
        if skipped:
            continue
        if not line.startswith("|"):
            header = False
            kept.append(line)
            continue
        cells = line.split("|")
        if not header:
            header = True
            measured = [n for n, cell in enumerate(cells) if _MEASURED.search(cell)]
        kept.append("|".join(c.strip() for n, c in enumerate(cells) if n not in measured))
    return "\n".join(kept)
