"""The attention registry: several implementations, all taking and giving the same arrays.

| name | runs on | what it is |
|---|---|---|
| xla | everything | plain operations; the reference that the others are tested against |
| splash | TPU | JAX's block-sparse flash attention in Pallas, a device's part under `shard_map` |
| cudnn | NVIDIA GPU, 16-bit types | cuDNN's fused attention, likewise |

`auto` means the one for the devices at hand. `PAGED` likewise maps a name to attention to a paged
cache: `gathered` runs everywhere and is the reference, `pages` is the fast one on CPU, `flash` the
one for TPUs, in Pallas. Knows nothing of models.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike

from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.kernels import cudnn, flash, paged, splash, xla
from eef_jax.kernels.paged import block as block
from eef_jax.kernels.scores import Scores as Scores

Attention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Scores], jax.Array]
ToPages = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, Scores], jax.Array]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Paged:
    """Attention to a paged cache.

    Attributes:
        decode: of one new token a row; see `paged.pages_in_place`.
        chunks: of several; see `paged.chunks`.
        turned: keys lie as [p, k, h, s] instead of [p, k, s, h].
        one_reader: a page can serve one row of a decode only.
    """

    decode: ToPages
    chunks: ToPages
    turned: bool = False
    one_reader: bool = False


def _decode(chunks: ToPages) -> ToPages:
    """Attention of one token a row, by that of several."""

    def decode(
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        table: jax.Array,
        positions: jax.Array,
        scores: Scores,
    ) -> jax.Array:
        return chunks(q[:, :, None], k, v, table, positions[:, None], scores)[:, :, 0]

    return decode


_GATHERED = functools.partial(paged.chunks, turned=False)

IMPLEMENTATIONS: dict[str, Attention] = {
    "xla": xla.attention,
    "splash": splash.attention,
    "cudnn": cudnn.attention,
}
PAGED: dict[str, Paged] = {
    "pages": Paged(
        decode=paged.pages_in_place,
        chunks=functools.partial(paged.chunks, turned=True),
        turned=True,
        one_reader=True,
    ),
    "gathered": Paged(decode=_decode(_GATHERED), chunks=_GATHERED),
    "flash": Paged(decode=_decode(flash.chunks), chunks=flash.chunks),
}
# That for a platform, where nothing else is said.
SUITED = {"cpu": "pages", "tpu": "flash", "gpu": "gathered"}


class Bounded(Protocol):
    """What a choice depends on; a model's shape has it."""

    @property
    def attention_softcap(self) -> float | None:
        """Bound of the scores."""


def chosen(name: str, mesh: Mesh | None, dtype: DTypeLike, model: Bounded) -> str:
    """The implementation that a config's name means.

    Args:
        name: in `IMPLEMENTATIONS`, or "auto".
        mesh: the devices; None for the default one.
        dtype: what attention is computed in.
        model: whether its scores are bounded.

    Raises:
        ConfigError: for an unknown name.
    """
    if name not in (*IMPLEMENTATIONS, "auto"):
        raise ConfigError(
            f"unknown attention {name!r}: {did_you_mean(name, [*IMPLEMENTATIONS, 'auto'])}"
        )
    if name != "auto":
        return name
    device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
    if device.platform == "tpu":
        return "splash"
    fused = jnp.dtype(dtype).itemsize == 2 and model.attention_softcap is None
    return "cudnn" if device.platform == "gpu" and fused else "xla"


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array,
    scores: Scores,
    *,
    implementation: str,
) -> jax.Array:
    """Causal attention within equal segment ids.

    Args:
        q: [b, n, t, h] queries.
        k: [b, k, t, h] keys; n is a multiple of k.
        v: [b, k, t, h] values.
        segment_ids: i32[b, t]; equal ids stand side by side.
        scores: how a query scores the keys, and how far back it sees.
        implementation: name in `IMPLEMENTATIONS`.

    Returns:
        [b, n, t, h].

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(IMPLEMENTATIONS, implementation)(q, k, v, segment_ids, scores)


def to_pages(implementation: str) -> Paged:
    """Attention to a paged cache by its name.

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(PAGED, implementation)


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of our kernels in a compiled program; see theirs."""
    return splash.flops(name, operands) + flash.flops(name, operands)


def _named(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise ConfigError(f"unknown attention {name!r}: {did_you_mean(name, known)}")
    return known[name]
