"""The workload on our engine: `python -m benchmarks.engine.ours MODEL EXPERTS [VARIANT]`.

Variants disable sharing: `no_turns` opens a new session for every turn, `no_sharing` matches no
prefix that another conversation has computed, `neither` does both.
"""

import dataclasses
import sys
import threading
from typing import Any

import numpy as np

from benchmarks.engine.workload import Key, Outputs, Workload, print_result, time_run
from eef_jax.config.sections import EngineConfig
from eef_jax.engine.config import has_exclusive_pages
from eef_jax.engine.engine import Engine
from eef_jax.engine.pages import DECODED, PageAllocator, PrefixMatch
from eef_jax.engine.programs import Programs
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.scheduler import Scheduler
from eef_jax.engine.session import Session
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model

VARIANTS = ("full", "no_turns", "no_sharing", "neither")


class Player:
    """Plays workloads; each episode continues as soon as its own turn is generated."""

    def __init__(self, engine: Engine, *, keep_turns: bool):
        self._engine = engine
        self._keep_turns = keep_turns
        self._finished = threading.Semaphore(0)

    def play(self, workload: Workload) -> Outputs:
        """Play all episodes; each expert's longest prompt is submitted first."""
        outputs: Outputs = {key: [] for key in workload.episodes()}
        for key in sorted(outputs, key=lambda key: (key[0], -key[1])):
            self._generate(self._engine.open(workload.start(*key)), key, workload, outputs)
        for _ in outputs:
            self._finished.acquire()
        return outputs

    def _generate(self, session: Session, key: Key, workload: Workload, outputs: Outputs) -> None:
        sampling = SamplingParams(temperature=0.0, max_new_tokens=workload.action)

        def continue_episode(future: Any) -> None:
            outputs[key].append(list(future.result().ids))
            if (turn := len(outputs[key])) == workload.turns:
                session.close()
                self._finished.release()
                return
            session.append(workload.observe(key, turn - 1))
            following = session if self._keep_turns else self._engine.open(session.ids)
            self._generate(following, key, workload, outputs)

        session.generate(sampling).add_done_callback(continue_episode)


class UnsharedAllocator(PageAllocator):
    """Matches only prefixes with generated tokens, which no other conversation has."""

    def match(self, root: bytes, tags: np.ndarray) -> PrefixMatch:
        return super().match(root, tags) if (tags >= DECODED).any() else PrefixMatch()


def make_engine(model: Model, config: EngineConfig, *, variant: str) -> Engine:
    """Return an engine that generates until `max_new_tokens`, with a variant's sharing disabled.

    Args:
        model: decoder and weights.
        config: sizes of the engine.
        variant: one of `VARIANTS`.
    """
    programs = Programs(model, config)
    allocator = None
    if variant in ("no_sharing", "neither"):
        resolved = programs.config
        allocator = UnsharedAllocator(
            resolved.num_pages,
            resolved.page_size,
            exclusive_pages=has_exclusive_pages(resolved.attention),
        )
    return Engine(model, stop_ids=(), scheduler=Scheduler(programs, allocator))


def keeps_turns(variant: str) -> bool:
    """Return whether a variant keeps one session for all turns of an episode."""
    return variant in ("full", "no_sharing")


def main(path: str, experts: str, variant: str = "full") -> None:
    """Time one variant."""
    assert variant in VARIANTS, variant
    model = hf.load(path)
    config = EngineConfig(
        max_num_seqs=len(Workload(experts=int(experts)).episodes()),
        max_context=Workload().max_tokens,
    )
    with make_engine(model, config, variant=variant) as engine:
        compiled = engine.compile_count
        player = Player(engine, keep_turns=keeps_turns(variant))
        totals: list[dict[str, int]] = []

        def play(workload: Workload) -> Outputs:
            totals.append(engine.counters.totals())
            return player.play(workload)

        result = time_run(play, experts=int(experts))
        after, before = engine.counters.totals(), totals[-1]
        assert engine.compile_count == compiled, "a program was compiled after the start"
    tokens = {name: after[name] - before[name] for name in after}
    print_result(result | {"tokens": tokens, "engine_config": dataclasses.asdict(engine.config)})


if __name__ == "__main__":
    main(*sys.argv[1:])
