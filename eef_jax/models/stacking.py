"""Two layouts of a decoder's layers: separate, or stacked so that a scan runs over them.

In a repeating pattern of p kinds of layers (Gemma's windows; p = 1 in most families), layer i is in
stack i % p; layers left over at the end are stacks of one. Every variable of a stack lists its
layers (metadata `layers`), so that files, checkpoints and hashes use names such as
`layers.17.q_proj.weight` in either layout.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Shaped

from eef_jax.errors import ConfigError
from eef_jax.models.config import ModelConfig
from eef_jax.models.decoder import Decoder

Path = tuple[Any, ...]


def stack_groups(config: ModelConfig) -> list[tuple[int, ...]]:
    """Layer numbers of each stack: those of the repeating pattern, then leftovers of one layer."""
    n, kinds = config.n_layers, [config.window(i) for i in range(config.n_layers)]
    p = next(p for p in range(1, n + 1) if all(kinds[i] == kinds[i % p] for i in range(n)))
    whole = n // p * p  # layers in complete repetitions
    return [tuple(range(j, whole, p)) for j in range(p)] + [(i,) for i in range(whole, n)]


def stack_layers(decoder: Decoder) -> None:
    """Replace the layers of a decoder without values by stacks, in place.

    Raises:
        ConfigError: layers of one stack differ (an adapter that targets some of them).
    """
    blocks = list(decoder.layers)
    decoder.layers = nnx.List([_stacked(blocks, group) for group in stack_groups(decoder.config)])
    decoder.scanned = True


def _stacked(blocks: Sequence[nnx.Module], layers: tuple[int, ...]) -> Any:
    graphdef, state = nnx.split(blocks[layers[0]])
    for i in layers[1:]:
        # A scan merges one graph definition with the parameters of each layer.
        if nnx.graphdef(blocks[i]) != graphdef:
            raise ConfigError(
                f"layers {layers[0]} and {i} differ (does config.model.lora.targets name only some "
                "layers?), so a scan cannot run over them: set config.model.scan_layers=False"
            )

    def stacked(variable: nnx.Variable) -> nnx.Variable:
        axes = variable.get_metadata()["axes"]
        blank = jnp.zeros((len(layers), *variable.shape), variable.dtype)
        return type(variable)(blank, axes=("layers", *axes), layers=layers)

    return nnx.merge(graphdef, jax.tree.map(stacked, state, is_leaf=_is_variable))


def unstack_layers(decoder: Decoder) -> None:
    """Replace the stacks of a decoder by layers, in place; they are slices on the same devices."""
    layers: dict[int, Any] = {}
    for block, numbers in zip(decoder.layers, stack_groups(decoder.config), strict=True):
        graphdef, state = nnx.split(block)
        for row, i in enumerate(numbers):
            one = jax.tree.map(lambda v, row=row: _plain(v, row), state, is_leaf=_is_variable)
            layers[i] = nnx.merge(graphdef, one)
    decoder.layers = nnx.List([layers[i] for i in range(len(layers))])
    decoder.scanned = False


def layer_paths(path: Path, variable: nnx.Variable) -> list[Path]:
    """Paths of a variable by layer: one, or for a stack one for each of its layers."""
    layers = variable.get_metadata().get("layers")
    # The path of a stack has the number of the stack where that of a layer has the layer's.
    return [path] if layers is None else [("layers", i, *path[2:]) for i in layers]


def unstack_state(state: nnx.State) -> nnx.State:
    """A state with each layer under its own path, from a state in either layout.

    Layers are slices of the stacks, on the same devices; the stacks stay allocated.
    """
    flat = {}
    for path, variable in nnx.to_flat_state(state):
        if "layers" not in variable.get_metadata():
            flat[path] = variable
            continue
        for at, name in enumerate(layer_paths(path, variable)):
            flat[name] = _plain(variable, at)
    return nnx.from_flat_state(flat)


def restack_state(state: nnx.State, like: nnx.State) -> nnx.State:
    """The inverse of `unstack_state`: a state in the layout and with the sharding of `like`."""
    flat = dict(nnx.to_flat_state(state))
    restacked = {}
    for path, variable in nnx.to_flat_state(like):
        values = [flat[name].get_value() for name in layer_paths(path, variable)]
        value = jnp.stack(values) if "layers" in variable.get_metadata() else values[0]
        sharding = getattr(variable.get_value(), "sharding", None)
        restacked[path] = variable.replace(
            value if sharding is None else jax.device_put(value, sharding)
        )
    return nnx.from_flat_state(restacked)


def by_layer(state: nnx.State) -> Mapping[Path, tuple[nnx.Variable, int | None]]:
    """Map each layer's path to its variable and its row in the stack (None without a stack)."""
    found: dict[Path, tuple[nnx.Variable, int | None]] = {}
    for path, variable in nnx.to_flat_state(state):
        stacked = "layers" in variable.get_metadata()
        for at, name in enumerate(layer_paths(path, variable)):
            found[name] = (variable, at if stacked else None)
    return found


def layer_value(variable: nnx.Variable, row: int | None) -> Shaped[np.ndarray, "..."]:
    """The value of a variable, or of one row of a stack, on the host."""
    array = variable.get_value()
    return np.asarray(jax.device_get(array if row is None else array[row]))


def _plain(variable: nnx.Variable, row: int) -> nnx.Variable:
    axes = variable.get_metadata()["axes"]
    return type(variable)(variable.get_value()[row], axes=axes[1:])


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)
