"""How fast the engine generates for few and many at once, and where its time goes.

    python -m benchmarks.engine.throughput --model=FOLDER --results=FILE.json --plot=FILE.svg

The plot needs the extra `benchmarks`. Every program is waited for here, so that its time is its
own; that costs a little, and `exploration` does not do it. The share of sampling is that of the
sampler alone on the same shapes, times its steps.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.common import machine
from benchmarks.engine.ours import Player
from benchmarks.engine.workload import Workload
from eef_jax import cli
from eef_jax.engine.config import EngineConfig
from eef_jax.engine.engine import Engine
from eef_jax.engine.sampling import SamplingArrays, SamplingParams, sample
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model, merge
from eef_jax.storage import provenance

PROMPT, DRAWN = 128, 64  # tokens of each conversation

FLAGS = flags.FLAGS


@contextlib.contextmanager
def clocks(engine: Engine) -> Iterator[dict[str, float]]:
    """Seconds in each of the engine's programs while this lasts."""
    programs, spent = engine._programs, dict.fromkeys(("prefill", "decode", "copy"), 0.0)
    originals = {name: getattr(programs, name) for name in spent}

    def timed(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = originals[name](*arguments)
            jax.block_until_ready(programs.cache)
            spent[name] += time.perf_counter() - began
            return result

        return call

    for name in spent:
        setattr(programs, name, timed(name))
    try:
        yield spent
    finally:
        for name, original in originals.items():
            setattr(programs, name, original)


def drawing(model: Model, slots: int) -> dict[str, float]:
    """Tokens a second of prefilling and decoding as many equal conversations at once."""
    config = EngineConfig(max_num_seqs=slots, max_context=PROMPT + DRAWN)
    # No sequence waits for a page.
    config = dataclasses.replace(config, num_pages=slots * config.pages_per_seq)
    sampling = SamplingParams(temperature=1.0, max_new_tokens=DRAWN)
    dice = np.random.default_rng(slots)
    with Engine(model, stop_ids=(), config=config) as engine, clocks(engine) as spent:
        prompts = dice.integers(100, model.config.vocab_size, (slots, PROMPT))
        answers = [
            engine.open(prompt).generate(sampling, (slots, i)) for i, prompt in enumerate(prompts)
        ]
        assert all(len(answer.result().ids) == DRAWN for answer in answers)
        assert not engine.counters.preempted
    return {
        "slots": slots,
        "prefilled": slots * (PROMPT - 1) / spent["prefill"],
        "decoded": slots * DRAWN / spent["decode"],
    }


def sampler_seconds(model: Model, slots: int) -> float:
    """Seconds that scores and draws of one step take by themselves."""
    draws = SamplingArrays.empty(slots)  # greedy, as the workload is
    positions = np.zeros(slots, np.int32)

    @jax.jit
    def draw(model_state: Any, hidden: jax.Array) -> Any:
        decoder = merge(model.graphdef, *model_state)
        return sample(decoder.logits(hidden), draws, positions)

    state = (model.frozen, model.trainable)
    hidden = jnp.ones((slots, model.config.d_model), model.decoder.dtype)
    jax.block_until_ready(draw(state, hidden))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(draw(state, hidden))
        times.append(time.perf_counter() - began)
    return sorted(times)[2]


def shares(model: Model, experts: int) -> dict[str, float]:
    """Share of the exploration workload's time in each thing the engine does."""
    workload = Workload(experts=experts)
    slots = len(workload.episodes())
    config = EngineConfig(max_num_seqs=slots, max_context=workload.longest)
    with Engine(model, stop_ids=(), config=config) as engine, clocks(engine) as spent:
        began = time.perf_counter()
        Player(engine, keep_turns=True).play(workload)
        whole = time.perf_counter() - began
        steps = engine.counters.dispatches["decode"] * engine.config.decode_steps
    sampling = steps * sampler_seconds(model, slots)
    parts = {
        "prefill": spent["prefill"],
        "decode": spent["decode"] - sampling,
        "scores and sampling": sampling,
        "copied pages": spent["copy"],
        "host": whole - sum(spent.values()),
    }
    return {name: seconds / whole for name, seconds in parts.items()}


def plot(rates: list[dict[str, float]], path: Path) -> None:
    """Draw tokens a second over conversations at once."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "eef_jax"  # the same figures give the same file
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, style in (("decoded", "o-"), ("prefilled", "s--")):
        axes.plot([r["slots"] for r in rates], [r[name] for r in rates], style, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks([r["slots"] for r in rates], [str(r["slots"]) for r in rates])
    axes.set_yscale("log")
    axes.set_xlabel("conversations at once")
    axes.set_ylabel("tokens a second")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure and print both tables."""
    model = hf.load(FLAGS.model)
    rates = [drawing(model, int(slots)) for slots in FLAGS.slots]
    parts = shares(model, FLAGS.experts)
    print("| at once | prefilled tokens/s | decoded tokens/s |\n|---:|---:|---:|")
    for rate in rates:
        print(f"| {rate['slots']} | {rate['prefilled']:,.0f} | {rate['decoded']:,.0f} |")
    print("\n| part | share of the time |\n|---|---:|")
    for name, share in parts.items():
        print(f"| {name} | {share:.1%} |")
    if FLAGS.results:
        kept = {
            "made_by": provenance.collect_provenance({}, 0),
            "machine": machine.describe(),
            "rates": rates,
            "shares": parts,
        }
        Path(FLAGS.results).write_text(json.dumps(kept, indent=1) + "\n")
    if FLAGS.plot:
        plot(rates, Path(FLAGS.plot))


def run_command() -> None:
    """Run the command."""
    flags.DEFINE_string("model", None, "Hugging Face folder", required=True)
    flags.DEFINE_list("slots", ["1", "4", "16", "64"], "conversations at once")
    flags.DEFINE_integer("experts", 8, "of the exploration workload", lower_bound=1)
    flags.DEFINE_string("results", "", "JSON file to keep the figures in")
    flags.DEFINE_string("plot", "", "SVG file for tokens a second over conversations")
    cli.run(main)


if __name__ == "__main__":
    run_command()
