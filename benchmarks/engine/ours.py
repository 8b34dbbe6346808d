"""The workload on our engine: `python -m benchmarks.engine.ours MODEL EXPERTS [VARIANT]`.

Variants leave out what the engine saves: `no_turns` opens a new session for every turn,
`no_sharing` finds nothing that another conversation has computed, `neither` does both.
"""

import dataclasses
import sys
import threading
from typing import Any

import numpy as np

from benchmarks.engine.workload import Key, Outputs, Workload, tell, time_it
from eef_jax.engine.config import EngineConfig
from eef_jax.engine.engine import Engine, Session
from eef_jax.engine.pages import DECODED, PageAllocator, PrefixMatch
from eef_jax.engine.sampling import SamplingParams
from eef_jax.models.huggingface import folder as hf

VARIANTS = ("full", "no_turns", "no_sharing", "neither")


class Player:
    """Plays workloads, every episode at its own pace."""

    def __init__(self, engine: Engine, *, keep_turns: bool):
        self._engine = engine
        self._keep_turns = keep_turns
        self._left = threading.Semaphore(0)

    def play(self, workload: Workload) -> Outputs:
        """All episodes, the deepest of each expert first."""
        outputs: Outputs = {key: [] for key in workload.episodes()}
        for key in sorted(outputs, key=lambda key: (key[0], -key[1])):
            self._ask(self._engine.open(workload.start(*key)), key, workload, outputs)
        for _ in outputs:
            self._left.acquire()
        return outputs

    def _ask(self, session: Session, key: Key, workload: Workload, outputs: Outputs) -> None:
        sampling = SamplingParams(temperature=0.0, max_new_tokens=workload.action)

        def answered(future: Any) -> None:
            outputs[key].append(list(future.result().ids))
            if (turn := len(outputs[key])) == workload.turns:
                session.close()
                self._left.release()
                return
            session.append(workload.answer(key, turn - 1))
            after = session if self._keep_turns else self._engine.open(session.ids)
            self._ask(after, key, workload, outputs)

        session.generate(sampling).add_done_callback(answered)


class Unshared(PageAllocator):
    """A book that finds only what a conversation itself has drawn before."""

    def match(self, root: bytes, marks: np.ndarray) -> PrefixMatch:
        if (marks >= DECODED).any():
            return super().match(root, marks)
        return PrefixMatch(full=(), tail=None, common=0, ready=True, length=0)


def main(path: str, experts: str, variant: str = "full") -> None:
    """Time one variant."""
    assert variant in VARIANTS, variant
    slots = len(Workload(experts=int(experts)).episodes())
    model = hf.load(path)
    config = EngineConfig(max_num_seqs=slots, max_context=Workload().longest)
    with Engine(model, stop_ids=(), config=config) as engine:
        if variant in ("no_sharing", "neither"):
            book = Unshared(engine.config.num_pages, engine.config.page_size, one_reader=True)
            engine._scheduler.pages = book
        compiles = engine.compile_count
        player = Player(engine, keep_turns=variant in ("full", "no_sharing"))
        counted: list[dict[str, int]] = []

        def play(workload: Workload) -> Outputs:
            counted.append(engine.counters.totals())
            return player.play(workload)

        result = time_it(play, experts=int(experts))
        after, before = engine.counters.totals(), counted[-1]
        assert engine.compile_count == compiles, "something was compiled after the start"
    shown = {name: after[name] - before[name] for name in after}
    tell(result | {"tokens": shown, "engine_config": dataclasses.asdict(engine.config)})


if __name__ == "__main__":
    main(*sys.argv[1:])
