"""Playing with a checkpoint: this process's rollout engine, and a policy for each checkpoint."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from eef_jax.config.sections import EngineConfig, SamplingSection
from eef_jax.engine.config import OPEN_SIZES, resolve_config
from eef_jax.engine.engine import Engine
from eef_jax.engine.sampling import SamplingParams
from eef_jax.learner.placement import Placement
from eef_jax.policies.local import LocalPolicy

_log = logging.getLogger(__name__)


def choose(placement: Placement, engine: EngineConfig) -> dict[str, Any]:
    """What open numerics of rollouts come to on these devices: value by field.

    Args:
        placement: the base, which is loaded: the cache takes of the memory that is free then.
        engine: the config's section `engine`.
    """
    model, device = placement.played, placement.rollout_mesh.devices.flat[0]
    sizes = resolve_config(engine, model.config, dtype=str(model.decoder.dtype), device=device)
    found = {f"engine.{name}": getattr(sizes, name) for name in OPEN_SIZES}
    return {**placement.mesh_sizes(), **found}


class Sampler:
    """The rollout engine over a base; it is made for the first policy and serves all later ones.

    Args:
        placement: the base.
        engine: the config's section `engine`.
    """

    def __init__(self, placement: Placement, engine: EngineConfig):
        self._placement = placement
        self._config = engine
        self._engine: Engine | None = None

    @contextlib.contextmanager
    def policy(
        self, folder: epath.Path | None, sampling: SamplingSection, *, seed: int, mark: str = ""
    ) -> Iterator[LocalPolicy]:
        """The policy of a checkpoint, ready to play.

        Args:
            folder: a tune stage's folder, or the checkpoint in it; None for the untuned base.
            sampling: the config's section `explore` or `evaluate`.
            seed: together with each request, decides what is sampled.
            mark: what precedes every conversation (`types.mark_messages`).
        """
        placement = self._placement
        if self._engine is None:
            model, began = placement.played, time.monotonic()
            _log.info("rollout engine: compiling ...")
            self._engine = Engine(model, stop_ids=placement.chat.stop_ids, config=self._config)
            _log.info("rollout engine: compiled in %.1f s", time.monotonic() - began)
        engine, adapter = self._engine, self._engine.base
        if folder is not None:
            adapter = engine.load_adapter(placement.restore(folder, placement.played))
        policy = LocalPolicy(
            engine,
            placement.chat,
            stop=sampling.stop,
            sampling=SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                top_k=sampling.top_k,
                max_new_tokens=sampling.max_new_tokens,
            ),
            seed=seed,
            name="base" if folder is None else folder.parent.name,
            adapter=adapter,
            mark=mark,
        )
        try:
            yield policy
        finally:
            asyncio.run(policy.close())
            if adapter is not engine.base:
                engine.unload_adapter(adapter)

    def release(self) -> None:
        """Free the KV cache until the next policy plays, so that training has the memory."""
        if self._engine is not None:
            self._engine.release_cache()
