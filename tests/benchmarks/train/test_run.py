"""What `benchmarks.train` sends to its runners, and the table of their answers."""

import sys

import numpy as np
import pytest

from benchmarks.train import run
from eef_jax.errors import ConfigError
from eef_jax.types import Example

# Answers a job with versions, and n examples with n seconds times its handicap.
FAKE = """
import json, sys
job = json.loads(sys.stdin.readline())
print(json.dumps({"versions": {sys.argv[1]: "1"}}), flush=True)
for line in sys.stdin:
    n = len(json.loads(line))
    answer = {"seconds": n * float(sys.argv[2]), "padded_tokens": n * 100}
    print(json.dumps(answer | {"steps": n, "peak_gib": 1.0}), flush=True)
"""


def examples(count=20):
    rng = np.random.default_rng(0)
    return [
        Example(
            id=str(number),
            tokens=np.arange(size, dtype=np.int32),
            weights=(np.arange(size) % 5 == 0).astype(np.float32),
        )
        for number, size in enumerate(rng.integers(40, 100, count))
    ]


def test_slices_hold_every_trajectory_once_and_equal_lengths_need_no_padding():
    recorded, same = run.workloads(examples(), slices=4, batch=2, equal=50)
    sizes = sorted(len(e["tokens"]) for part in recorded.slices for e in part)
    assert sizes == sorted(len(e.tokens) for e in examples())
    assert recorded.seq_len == 256 and recorded.batch_size == 1
    assert {len(e["tokens"]) for part in same.slices for e in part} == {50}
    assert (same.batch_size, same.seq_len) == (2, 50) and {len(part) for part in same.slices} == {4}


def test_the_first_token_is_not_learned():
    (part, *_), _ = (w.slices for w in run.workloads(examples(), slices=1, batch=2, equal=50))
    assert not any(example["learned"][0] for example in part)
    assert all(any(example["learned"]) for example in part)


def test_runners_rotate_and_the_ratio_is_that_of_their_times():
    commands = {
        name: [sys.executable, "-c", FAKE, name, handicap]
        for name, handicap in ((run.OURS, "1.0"), ("torch", "1.7"))
    }
    work, _ = run.workloads(examples(), slices=4, batch=2, equal=50)
    result = run.measure(work, commands, {"model": "none"}, repeats=3)
    assert [next(iter(r["answers"])) for r in result["rounds"]] == [run.OURS, "torch", run.OURS]
    assert run.ratio(result, "torch") == pytest.approx(1.7)
    assert result["versions"] == {run.OURS: "1", "torch": "1"}
    text = run.report([result, result], ["torch"])
    assert "| speed of torch, recorded lengths | 1.7 times | >= 1.5 times | yes |" in text


def test_mistakes_are_refused():
    with pytest.raises(ConfigError, match="expected torch=PYTHON"):
        run._commands(["torch"])
    with pytest.raises(ConfigError, match="lower --equal"):
        run.workloads(examples(), slices=4, batch=2, equal=99)
    broken = [sys.executable, "-c", "raise SystemExit"]
    with pytest.raises(ConfigError, match="runner torch ended"):
        run.Runner("torch", broken, {})
