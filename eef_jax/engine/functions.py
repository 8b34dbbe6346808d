"""What the engine's programs compute: prefill and decode as pure functions of cache and weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.inputs import DecodeInputs
from eef_jax.engine.sampling import NO_TOKEN, sample
from eef_jax.models.cache import Cache, DecodeView, PrefillView
from eef_jax.models.model import Model, merge

Leaves = list[jax.Array]  # of a flattened state


class DecodeState(NamedTuple):
    """What one step of a decode dispatch hands to the next, for b rows and n steps.

    Attributes:
        step: i32[] number of the step.
        tokens: i32[b] to be fed.
        positions: i32[b] of these tokens; -1 for rows that have ended.
        cache: the pages.
        ids: i32[n, b] tokens sampled so far; `NO_TOKEN` where there is none.
        logprobs: f32[n, b] their log-probabilities.
    """

    step: jax.Array
    tokens: jax.Array
    positions: jax.Array
    cache: Cache
    ids: jax.Array
    logprobs: jax.Array

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
        self, cache: Cache, frozen: Leaves, adapter: Leaves, chunks: PrefillView, tokens: jax.Array
    ) -> Cache:
        """Return the cache with the entries of tokens i32[t] written."""
        return self._decoder(frozen, adapter).extend(tokens, chunks, cache)[1]

    def decode(
        self, cache: Cache, frozen: Leaves, adapter: Leaves, inputs: DecodeInputs
    ) -> tuple[Cache, jax.Array, jax.Array]:
        """Feed each row's token, sample the next and feed it, until all rows have ended.

        A row ends after a stop id or at its last position.

        Returns:
            The cache, ids i32[n, b] and logprobs f32[n, b]; `NO_TOKEN` after a row has ended.
        """
        steps = len(inputs.forced)

        def unfinished(state: DecodeState) -> jax.Array:
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
        return DecodeState(
            step=step + 1,
            tokens=tokens,
            positions=jnp.where(ended, -1, positions + 1),
            cache=cache,
            ids=state.ids.at[step].set(jnp.where(live, tokens, NO_TOKEN)),
            logprobs=state.logprobs.at[step].set(logprobs),
        )
