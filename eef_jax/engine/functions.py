"""What the engine's programs compute: prefill and decode as pure functions of cache and weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int32, Shaped

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.inputs import DecodeInputs
from eef_jax.engine.sampling import NO_TOKEN, sample
from eef_jax.models.cache import Cache, DecodeView, PrefillView
from eef_jax.models.model import Model, merge

Leaves = list[Shaped[Array, "..."]]  # of a flattened state


class DecodeState(NamedTuple):
    """What one step of a decode dispatch hands to the next, for b rows and n steps.

    Attributes:
        step: number of the step.
        tokens: to be fed.
        positions: of these tokens; -1 for rows that have ended.
        cache: the pages.
        ids: tokens sampled so far; `NO_TOKEN` where there is none.
        logprobs: their log-probabilities.
    """

    step: Int32[Array, ""]
    tokens: Int32[Array, " b"]
    positions: Int32[Array, " b"]
    cache: Cache
    ids: Int32[Array, "n b"]
    logprobs: Float32[Array, "n b"]

    @classmethod
    def start(cls, cache: Cache, inputs: DecodeInputs) -> "DecodeState":
        """Return the state before the first step."""
        return cls(
            ids=jnp.full(inputs.forced.shape, NO_TOKEN, jnp.int32),
            logprobs=jnp.zeros(inputs.forced.shape, jnp.float32),
            step=jnp.zeros((), jnp.int32),
            tokens=inputs.tokens,
            positions=inputs.positions,
            cache=cache,
        )


class EngineFunctions:
    """The functions that are compiled, for one model's structure; weights are arguments.

    Args:
        model: a decoder; its weights may be abstract (`jax.ShapeDtypeStruct`).
        config: sizes, all resolved.
    """

    def __init__(self, model: Model, config: EngineConfig):
        self._config = config
        self._graphdef = model.graphdef
        self._frozen_def = jax.tree.structure(model.frozen)
        self._adapter_def = jax.tree.structure(model.trainable)

    def prefill(
        self,
        cache: Cache,
        frozen: Leaves,
        adapter: Leaves,
        chunks: PrefillView,
        tokens: Int32[Array, " t"],
    ) -> Cache:
        """Return the cache with the entries of the tokens written."""
        return self._decoder(frozen, adapter).extend(tokens, chunks, cache)[1]

    def decode(
        self, cache: Cache, frozen: Leaves, adapter: Leaves, inputs: DecodeInputs
    ) -> tuple[Cache, Int32[Array, "n b"], Float32[Array, "n b"]]:
        """Feed each row's token, sample the next and feed it, until all rows have ended.

        A row ends after a stop id or at its last position.

        Returns:
            The cache, ids (`NO_TOKEN` after a row has ended) and their log-probabilities.
        """
        steps = len(inputs.forced)

        def unfinished(state: DecodeState) -> Bool[Array, ""]:
            return (state.step < steps) & jnp.any(state.positions >= 0)

        def step(state: DecodeState) -> DecodeState:
            return self._step(frozen, adapter, inputs, state)

        state = jax.lax.while_loop(unfinished, step, DecodeState.start(cache, inputs))
        return state.cache, state.ids, state.logprobs

    def decode_step(
        self, cache: Cache, frozen: Leaves, adapter: Leaves, inputs: DecodeInputs
    ) -> DecodeState:
        """One step of `decode` without the loop, so that its cost can be analysed."""
        return self._step(frozen, adapter, inputs, DecodeState.start(cache, inputs))

    def _decoder(self, frozen: Leaves, adapter: Leaves) -> Any:
        return merge(
            self._graphdef,
            jax.tree.unflatten(self._frozen_def, frozen),
            jax.tree.unflatten(self._adapter_def, adapter),
        )

    def _step(
        self, frozen: Leaves, adapter: Leaves, inputs: DecodeInputs, state: DecodeState
    ) -> DecodeState:
        step, positions = state.step, state.positions
        decoder = self._decoder(frozen, adapter)
        rows = DecodeView(
            positions=positions, table=inputs.block_tables, attention=self._config.attention
        )
        hidden, cache = decoder.extend(state.tokens, rows, state.cache)
        sampled, logprobs = sample(decoder.logits(hidden), inputs.sampling, positions + 1)
        # Requests resumed after a preemption feed the tokens that they sampled before.
        forced = inputs.forced[step]
        tokens = jnp.where(forced >= 0, forced, sampled)
        live = positions >= 0
        stopped = jnp.any(tokens[:, None] == inputs.sampling.stop_ids, axis=1) & (forced < 0)
        ended = ~live | stopped | (positions >= inputs.last)
        # A row that has ended keeps its place with position -1: it writes nothing to the cache, and
        # its token is not read.
        return DecodeState(
            step=step + 1,
            tokens=tokens,
            positions=jnp.where(ended, -1, positions + 1),
            cache=cache,
            ids=state.ids.at[step].set(jnp.where(live, tokens, NO_TOKEN)),
            logprobs=state.logprobs.at[step].set(logprobs),
        )
