"""The way through the layers: one after the other or by a scan, and what is kept for the way back.

A scan compiles one layer whatever their number. Knows blocks as functions of the residual stream.

| policy | kept for the way back | computed again |
|---|---|---|
| none | everything else | the feed-forward's gated width, from gate and up (see `Block`) |
| dots | products with weights | the rest: norms, attention's scores, activations |
| block | what goes into each layer | each layer, once |
| offload | the same, in the host's memory | the same |
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from eef_jax.errors import ConfigError, did_you_mean

LayerFn = Callable[[Any, int, jax.Array | int, jax.Array], jax.Array]

_INTO = "into_layer"


def _offloaded() -> Any:
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[_INTO],
        offload_src="device",
        offload_dst="pinned_host",
    )


POLICIES: dict[str, Callable[[], Any]] = {
    "none": lambda: jax.checkpoint_policies.everything_saveable,
    "dots": lambda: jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "block": lambda: jax.checkpoint_policies.nothing_saveable,
    "offload": _offloaded,
}


def check_policy(remat: str) -> None:
    """Check a policy's name.

    Raises:
        ConfigError: naming the near ones.
    """
    if remat not in POLICIES:
        raise ConfigError(f"unknown remat policy {remat!r}: {did_you_mean(remat, POLICIES)}")


def run_layers(
    layers: Sequence[nnx.Module], layer: LayerFn, x: jax.Array, *, scanned: bool, remat: str
) -> jax.Array:
    """Take the residual stream through all layers.

    Args:
        layers: blocks; or stacks of them, the repeating pattern's first (see `layout`).
        layer: `(block, kind, index, x) -> x`: `kind` is static and says which layer's window and
            rotation hold, `index` is the layer's number and may be traced.
        x: [b, t, d].
        scanned: whether `layers` are stacks.
        remat: name in `POLICIES`.
    """
    if not scanned:
        for index, block in enumerate(layers):
            x = _kept(lambda x, block=block, i=index: layer(block, i, i, x), remat)(x)
        return x
    split = [nnx.split(block) for block in layers]
    depth = [_length(state) for _, state in split]
    # Stacks of one follow the pattern; where the pattern itself came once, a scan of one does it.
    period = sum(1 for n in depth if n == depth[0]) if depth[0] > 1 else len(depth)

    def group(x: jax.Array, part: tuple[Any, jax.Array]) -> tuple[jax.Array, None]:
        states, number = part
        for kind, state in enumerate(states):
            block = nnx.merge(split[kind][0], state)
            x = layer(block, kind, number * period + kind, x)
        return x, None

    body = _kept(group, remat, prevent_cse=False)
    stacks = tuple(state for _, state in split[:period])
    x, _ = jax.lax.scan(body, x, (stacks, jnp.arange(depth[0])))
    for rest, (graphdef, state) in enumerate(split[period:]):
        index = depth[0] * period + rest
        block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))
        x = _kept(lambda x, block=block, i=index: layer(block, i, i, x), remat)(x)
    return x


def _kept(function: Callable[..., Any], remat: str, *, prevent_cse: bool = True) -> Any:
    """A function whose way back keeps what the policy says."""
    if remat == "none":
        return function

    def named(x: jax.Array, *rest: Any) -> Any:
        return function(checkpoint_name(x, _INTO), *rest)

    return jax.checkpoint(named, policy=POLICIES[remat](), prevent_cse=prevent_cse)


def _length(state: nnx.State) -> int:
    return jax.tree.leaves(state)[0].shape[0]
