"""Tokens per second of the engine by concurrency, and the share of its time in each part.

    python -m benchmarks.engine.throughput --model=FOLDER --results=FILE.json --plot=FILE.svg

This benchmark blocks on each program to time it, which costs
a little; `exploration` does not. The share of sampling is the time of the sampler alone on the same
shapes, times the number of steps.
"""

import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.common import machine, tables
from benchmarks.engine.ours import Player
from benchmarks.engine.workload import Workload
from eef_jax import cli
from eef_jax.config.sections import EngineConfig
from eef_jax.engine.engine import Engine
from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingArrays, SamplingParams, sample
from eef_jax.engine.scheduler import Scheduler
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model, merge
from eef_jax.storage import provenance

PROMPT, GENERATED = 128, 64  # tokens of each conversation

FLAGS = flags.FLAGS


@contextlib.contextmanager
def timed(programs: Programs) -> Iterator[dict[str, float]]:
    """Measure the seconds in each of the engine's programs inside the block."""
    seconds = dict.fromkeys(("prefill", "decode", "copy"), 0.0)
    originals = {name: getattr(programs, name) for name in seconds}

    def wrap(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            began = time.perf_counter()
            result = originals[name](*arguments)
            jax.block_until_ready(programs.cache)
            seconds[name] += time.perf_counter() - began
            return result

        return call

    for name in seconds:
        setattr(programs, name, wrap(name))
    try:
        yield seconds
    finally:
        for name, original in originals.items():
            setattr(programs, name, original)


def rate(model: Model, concurrency: int) -> dict[str, float]:
    """Measure tokens a second of prefills and decodes.

    Args:
        model: decoder and weights.
        concurrency: number of equally long conversations that are generated at once.
    """
    config = EngineConfig(max_num_seqs=concurrency, max_context=PROMPT + GENERATED)
    # No request waits for a page.
    config = dataclasses.replace(config, num_pages=concurrency * config.pages_per_seq)
    sampling = SamplingParams(temperature=1.0, max_new_tokens=GENERATED)
    rng = np.random.default_rng(concurrency)
    scheduler = Scheduler(Programs(model, config))
    with (
        Engine(model, stop_ids=(), scheduler=scheduler) as engine,
        timed(scheduler.programs) as seconds,
    ):
        prompts = rng.integers(100, model.config.vocab_size, (concurrency, PROMPT))
        futures = [
            engine.open(prompt).generate(sampling, (concurrency, i))
            for i, prompt in enumerate(prompts)
        ]
        assert all(len(future.result().ids) == GENERATED for future in futures)
        assert not engine.counters.preempted
    return {
        "concurrency": concurrency,
        "prefilled": concurrency * (PROMPT - 1) / seconds["prefill"],
        "decoded": concurrency * GENERATED / seconds["decode"],
    }


def sampler_seconds(model: Model, rows: int) -> float:
    """Seconds of the logits and the sampling of one step, compiled as a separate program."""
    arrays = SamplingArrays.empty(rows)  # greedy, as the workload is
    positions = jnp.zeros(rows, jnp.int32)

    @jax.jit
    def step(model_state: Any, hidden: jax.Array) -> Any:
        decoder = merge(model.graphdef, *model_state)
        return sample(decoder.logits(hidden), arrays, positions)

    state = (model.frozen, model.trainable)
    hidden = jnp.ones((rows, model.config.d_model), model.decoder.dtype)
    jax.block_until_ready(step(state, hidden))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(step(state, hidden))
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def shares(model: Model, experts: int) -> dict[str, float]:
    """Share of the exploration workload's time (0-1) in each part of the engine."""
    workload = Workload(experts=experts)
    rows = len(workload.episodes())
    config = EngineConfig(max_num_seqs=rows, max_context=workload.max_tokens)
    scheduler = Scheduler(Programs(model, config))
    with (
        Engine(model, stop_ids=(), scheduler=scheduler) as engine,
        timed(scheduler.programs) as seconds,
    ):
        began = time.perf_counter()
        Player(engine, keep_turns=True).play(workload)
        whole = time.perf_counter() - began
        steps = engine.counters.dispatches["decode"] * engine.config.decode_steps
    sampling = steps * sampler_seconds(model, rows)
    parts = {
        "prefill": seconds["prefill"],
        "decode": seconds["decode"] - sampling,
        "logits and sampling": sampling,
        "copied pages": seconds["copy"],
        "host": whole - sum(seconds.values()),
    }
    return {name: part / whole for name, part in parts.items()}


def plot(rates: list[dict[str, float]], path: Path) -> None:
    """Plot tokens per second over the number of concurrent conversations."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "eef_jax"  # the same figures give the same file
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for name, style in (("decoded", "o-"), ("prefilled", "s--")):
        axes.plot([r["concurrency"] for r in rates], [r[name] for r in rates], style, label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks([r["concurrency"] for r in rates], [str(r["concurrency"]) for r in rates])
    axes.set_yscale("log")
    axes.set_xlabel("concurrent conversations")
    axes.set_ylabel("tokens per second")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Measure and print both tables."""
    model = hf.load(FLAGS.model)
    rates = [rate(model, int(concurrency)) for concurrency in FLAGS.concurrency]
    parts = shares(model, FLAGS.experts)
    names = ("concurrency", "prefilled", "decoded")
    lines = tables.table(
        ["at once", "prefilled tokens/s", "decoded tokens/s"],
        [[round(each[name]) for name in names] for each in rates],
        texts=0,
    )
    lines += tables.table(
        ["part", "share of the time"], [[name, f"{share:.1%}"] for name, share in parts.items()]
    )
    print("\n".join(lines))
    if FLAGS.results:
        results = {
            "made_by": provenance.collect_provenance({}, 0),
            "machine": machine.describe(),
            "rates": rates,
            "shares": parts,
        }
        Path(FLAGS.results).write_text(json.dumps(results, indent=1) + "\n")
    if FLAGS.plot:
        plot(rates, Path(FLAGS.plot))


def run_command() -> None:
    """Run the command."""
    cli.define_path("model", None, "Hugging Face folder", required=True, local=True)
    flags.DEFINE_list("concurrency", ["1", "4", "16", "64"], "numbers of concurrent conversations")
    flags.DEFINE_integer(
        "experts", 8, "expert trajectories of the exploration workload", lower_bound=1
    )
    cli.define_path("results", "", "JSON file to write the figures to", local=True)
    cli.define_path("plot", "", "SVG file to plot tokens per second to", local=True)
    cli.run(main)


if __name__ == "__main__":
    run_command()
