"""Two layouts of a decoder's layers: each for itself, or stacked so that a scan runs over them.

Stacked, layer i of a repeating pattern of p kinds of layers (Gemma's windows; p = 1 in most
families) lies in stack i % p; layers left over at the end are stacks of one. Every variable of a
stack names the layers that it holds (metadata `layers`), so that files, checkpoints and hashes can
say `layers.17.q_proj.weight` whatever the layout. Knows no values' meaning and no files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from eef_jax.errors import ConfigError
from eef_jax.models.config import ModelConfig
from eef_jax.models.decoder import Decoder

Path = tuple[Any, ...]


def stack_groups(config: ModelConfig) -> list[tuple[int, ...]]:
    """The layers of each stack: the repeating pattern's, then leftovers of one layer each."""
    n, kinds = config.n_layers, [config.window(i) for i in range(config.n_layers)]
    p = next(p for p in range(1, n + 1) if all(kinds[i] == kinds[i % p] for i in range(n)))
    whole = n // p * p
    return [tuple(range(j, whole, p)) for j in range(p)] + [(i,) for i in range(whole, n)]


def stack_layers(decoder: Decoder) -> None:
    """Turn a blank decoder's layers into stacks, in place.

    Raises:
        ConfigError: layers of one stack differ (an adapter that targets some of them).
    """
    blocks = list(decoder.layers)
    decoder.layers = nnx.List([_stacked(blocks, held) for held in stack_groups(decoder.config)])
    decoder.scanned = True


def _stacked(blocks: Sequence[nnx.Module], held: tuple[int, ...]) -> Any:
    graphdef, state = nnx.split(blocks[held[0]])
    for i in held[1:]:
        if nnx.graphdef(blocks[i]) != graphdef:
            raise ConfigError(
                f"layers {held[0]} and {i} differ (does config.model.lora.targets name some layers "
                "only?), so a scan cannot run over them: set config.model.scan_layers=False"
            )

    def widened(variable: nnx.Variable) -> nnx.Variable:
        axes = variable.get_metadata()["axes"]
        blank = jnp.zeros((len(held), *variable.shape), variable.dtype)
        return type(variable)(blank, axes=("layers", *axes), layers=held)

    return nnx.merge(graphdef, jax.tree.map(widened, state, is_leaf=_is_variable))


def unstack_layers(decoder: Decoder) -> None:
    """Turn a decoder's stacks into layers, in place; slices are made beside the stacks."""
    layers: dict[int, Any] = {}
    for block, numbers in zip(decoder.layers, stack_groups(decoder.config), strict=True):
        graphdef, state = nnx.split(block)
        for row, i in enumerate(numbers):
            one = jax.tree.map(lambda v, row=row: _plain(v, row), state, is_leaf=_is_variable)
            layers[i] = nnx.merge(graphdef, one)
    decoder.layers = nnx.List([layers[i] for i in range(len(layers))])
    decoder.scanned = False


def layer_paths(path: Path, variable: nnx.Variable) -> list[Path]:
    """Each layer's own name for a variable: one, or in a stack as many as it holds."""
    layers = variable.get_metadata().get("layers")
    return [path] if layers is None else [("layers", i, *path[2:]) for i in layers]


def unstack_state(state: nnx.State) -> nnx.State:
    """Parameters of any layout with each layer's under its own name.

    Slices of stacks are made one by one as `jax.numpy` does: on their devices, beside the stacks.
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
    """Parameters under each layer's own name, in the layout and at the places of `like`."""
    flat = dict(nnx.to_flat_state(state))
    back = {}
    for path, variable in nnx.to_flat_state(like):
        values = [flat[name].get_value() for name in layer_paths(path, variable)]
        value = jnp.stack(values) if "layers" in variable.get_metadata() else values[0]
        place = getattr(variable.get_value(), "sharding", None)
        back[path] = variable.replace(value if place is None else jax.device_put(value, place))
    return nnx.from_flat_state(back)


def by_layer(state: nnx.State) -> Mapping[Path, tuple[nnx.Variable, int | None]]:
    """Each layer's own name -> the variable that holds it and its row there (None: all of it)."""
    found: dict[Path, tuple[nnx.Variable, int | None]] = {}
    for path, variable in nnx.to_flat_state(state):
        stacked = "layers" in variable.get_metadata()
        for at, name in enumerate(layer_paths(path, variable)):
            found[name] = (variable, at if stacked else None)
    return found


def layer_value(variable: nnx.Variable, row: int | None) -> np.ndarray:
    """A variable's value on the host, or one layer's part of it."""
    array = variable.get_value()
    return np.asarray(jax.device_get(array if row is None else array[row]))


def _plain(variable: nnx.Variable, row: int) -> nnx.Variable:
    axes = variable.get_metadata()["axes"]
    return type(variable)(variable.get_value()[row], axes=axes[1:])


def _is_variable(leaf: Any) -> bool:
    return isinstance(leaf, nnx.Variable)
