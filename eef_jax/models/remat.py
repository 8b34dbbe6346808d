"""Running the layers, one by one or as a scan, under a rematerialisation policy.

A scan compiles one layer, however many there are.

| policy | saved for the backward pass | recomputed |
|---|---|---|
| none | everything else | the feed-forward's gated width, from gate and up (see `Block`) |
| dots | products with weights | norms, attention scores, activations |
| block | input of each layer | each layer, once |
| offload | input of each layer, in host memory | each layer, once |
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from eef_jax.errors import ConfigError, did_you_mean

LayerFn = Callable[[Any, int, Int[Array, ""] | int, Float[Array, "b t d"]], Float[Array, "b t d"]]

_LAYER_INPUT = "layer_input"


def _offloaded() -> Any:
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=[_LAYER_INPUT],
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
    """Check the name of a policy.

    Raises:
        ConfigError: it is unknown; with the near names.
    """
    if remat not in POLICIES:
        raise ConfigError(f"unknown remat policy {remat!r}: {did_you_mean(remat, POLICIES)}")


def run_layers(
    layers: Sequence[nnx.Module],
    layer: LayerFn,
    x: Float[Array, "b t d"],
    *,
    scanned: bool,
    remat: str,
) -> Float[Array, "b t d"]:
    """Run the residual stream through all layers.

    Args:
        layers: blocks, or stacks of them in the order of `stacking.stack_groups`.
        layer: `(block, kind, index, x) -> x`. `kind` is static: the number of a layer with the same
            window and rotary embedding. `index` is the number of the layer; it may be traced.
        x: the residual stream.
        scanned: whether `layers` are stacks.
        remat: name in `POLICIES`.
    """
    if not scanned:
        for index, block in enumerate(layers):
            # Defaults bind the values of this iteration.
            x = _rematerialized(lambda x, block=block, i=index: layer(block, i, i, x), remat)(x)
        return x
    split = [nnx.split(block) for block in layers]
    depth = [_length(state) for _, state in split]
    # Leftover stacks of one layer follow the pattern. A pattern that occurs once is scanned once.
    period = sum(1 for n in depth if n == depth[0]) if depth[0] > 1 else len(depth)

    def group(
        x: Float[Array, "b t d"], part: tuple[Any, Int[Array, ""]]
    ) -> tuple[Float[Array, "b t d"], None]:
        states, number = part
        for kind, state in enumerate(states):
            block = nnx.merge(split[kind][0], state)
            x = layer(block, kind, number * period + kind, x)
        return x, None

    # In a scan, XLA cannot merge the recomputation with the forward pass, so that the barriers
    # against it (`prevent_cse`) are not needed.
    body = _rematerialized(group, remat, prevent_cse=False)
    stacks = tuple(state for _, state in split[:period])
    x, _ = jax.lax.scan(body, x, (stacks, jnp.arange(depth[0])))
    for rest, (graphdef, state) in enumerate(split[period:]):
        index = depth[0] * period + rest
        block = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[0], state))
        x = _rematerialized(lambda x, block=block, i=index: layer(block, i, i, x), remat)(x)
    return x


def _rematerialized(function: Callable[..., Any], remat: str, *, prevent_cse: bool = True) -> Any:
    """A function that saves for the backward pass what the policy names."""
    if remat == "none":
        return function

    def named(x: Float[Array, "b t d"], *rest: Any) -> Any:
        return function(checkpoint_name(x, _LAYER_INPUT), *rest)

    return jax.checkpoint(named, policy=POLICIES[remat](), prevent_cse=prevent_cse)


def _length(state: nnx.State) -> int:
    return jax.tree.leaves(state)[0].shape[0]
