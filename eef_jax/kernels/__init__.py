"""The attention registry: several implementations, all taking and giving the same arrays.

| name | runs on | what it is |
|---|---|---|
| xla | everything | plain operations; the reference that the others are tested against |
| splash | TPU | JAX's block-sparse flash attention in Pallas, a device's part under `shard_map` |
| cudnn | NVIDIA GPU, 16-bit types | cuDNN's fused attention, likewise |

`auto` picks the implementation for the current devices. `PAGED_IMPLEMENTATIONS` maps names to
attention over a paged cache: `gathered` runs everywhere and is the reference, `pages` is the fast
one on CPU, `flash` is a Pallas kernel for TPUs.
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
from eef_jax.kernels.paged import pages_per_block as pages_per_block
from eef_jax.kernels.spec import AttentionSpec as AttentionSpec

Attention = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, AttentionSpec], jax.Array]
PagedAttentionFn = Callable[
    [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, AttentionSpec], jax.Array
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PagedAttention:
    """Attention to a paged cache.

    Attributes:
        decode: of one new token a row; see `paged.decode_in_place`.
        prefill: of several; see `paged.prefill`.
        keys_transposed: keys lie as [p, k, h, s] instead of [p, k, s, h].
        exclusive_pages: a page can serve one row of a decode only.
    """

    decode: PagedAttentionFn
    prefill: PagedAttentionFn
    keys_transposed: bool = False
    exclusive_pages: bool = False


def _decode(chunks: PagedAttentionFn) -> PagedAttentionFn:
    """Attention of one token a row, by that of several."""

    def decode(
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        table: jax.Array,
        positions: jax.Array,
        spec: AttentionSpec,
    ) -> jax.Array:
        return chunks(q[:, :, None], k, v, table, positions[:, None], spec)[:, :, 0]

    return decode


_GATHERED = functools.partial(paged.prefill, keys_transposed=False)

IMPLEMENTATIONS: dict[str, Attention] = {
    "xla": xla.attention,
    "splash": splash.attention,
    "cudnn": cudnn.attention,
}
PAGED_IMPLEMENTATIONS: dict[str, PagedAttention] = {
    "pages": PagedAttention(
        decode=paged.decode_in_place,
        prefill=functools.partial(paged.prefill, keys_transposed=True),
        keys_transposed=True,
        exclusive_pages=True,
    ),
    "gathered": PagedAttention(decode=_decode(_GATHERED), prefill=_GATHERED),
    "flash": PagedAttention(decode=_decode(flash.prefill), prefill=flash.prefill),
}
# That for a platform, where nothing else is said.
DEFAULT_PAGED = {"cpu": "pages", "tpu": "flash", "gpu": "gathered"}


class HasSoftcap(Protocol):
    """What a choice depends on; a model's shape has it."""

    @property
    def attention_softcap(self) -> float | None:
        """Bound of the attention scores; None if they are unbounded."""


def resolve(name: str, mesh: Mesh | None, dtype: DTypeLike, model: HasSoftcap) -> str:
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
    spec: AttentionSpec,
    *,
    implementation: str,
) -> jax.Array:
    """Causal attention within equal segment ids.

    Args:
        q: [b, n, t, h] queries.
        k: [b, k, t, h] keys; n is a multiple of k.
        v: [b, k, t, h] values.
        segment_ids: i32[b, t]; equal ids stand side by side.
        spec: how a query scores the keys, and how far back it sees.
        implementation: name in `IMPLEMENTATIONS`.

    Returns:
        [b, n, t, h].

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(IMPLEMENTATIONS, implementation)(q, k, v, segment_ids, spec)


def paged_attention(implementation: str) -> PagedAttention:
    """Attention to a paged cache by its name.

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(PAGED_IMPLEMENTATIONS, implementation)


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of our kernels in a compiled program; see theirs."""
    return splash.flops(name, operands) + flash.flops(name, operands)


def _named(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise ConfigError(f"unknown attention {name!r}: {did_you_mean(name, known)}")
    return known[name]
