"""The attention registry: several implementations with the same arguments and result.

| name | runs on | implementation |
|---|---|---|
| xla | everything | plain XLA operations; the reference that the others are tested against |
| splash | TPU | JAX's block-sparse flash attention in Pallas, under `shard_map` |
| cudnn | NVIDIA GPU, 16-bit dtypes | cuDNN's fused attention, under `shard_map` |

`auto` picks the implementation for the current devices. `PAGED_IMPLEMENTATIONS` maps names to
attention over a paged cache: `gathered` runs everywhere and is the reference, `pages` is the fast
one on CPU, `flash` is a Pallas kernel for TPUs.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from eef_jax.config.sections import PagedName
from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.kernels import cudnn, flash, paged, splash, xla
from eef_jax.kernels.paged import pages_per_block as pages_per_block
from eef_jax.kernels.spec import AttentionSpec as AttentionSpec

# (q, k, v, segment ids, spec) -> attended values
Attention = Callable[
    [
        Float[Array, "b n t h"],
        Float[Array, "b k t h"],
        Float[Array, "b k t h"],
        Int[Array, "b t"],
        AttentionSpec,
    ],
    Float[Array, "b n t h"],
]
# (q, pages of keys, pages of values, block tables, positions, spec) -> attended values; of one new
# token per row, or of c
PagedAttentionFn = Callable[
    [
        Float[Array, "b n ..."],
        Float[Array, "p k _ _"],
        Float[Array, "p k s h"],
        Int[Array, "b w"],
        Int[Array, "b ..."],
        AttentionSpec,
    ],
    Float[Array, "b n ..."],
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PagedAttention:
    """Attention over a paged cache.

    Attributes:
        decode: of one new token per row; arguments as for `paged.decode_in_place`.
        prefill: of several new tokens per row; arguments as for `paged.prefill_gathered`.
        keys_transposed: pages of keys are [p, k, h, s] instead of [p, k, s, h].
        exclusive_pages: a page may be in the block table of only one row of a decode.
    """

    decode: PagedAttentionFn
    prefill: PagedAttentionFn
    # On CPU only: writing single entries into transposed pages made XLA for TPUs copy the whole
    # cache twice a layer.
    keys_transposed: bool = False
    exclusive_pages: bool = False


def _decode(prefill: PagedAttentionFn) -> PagedAttentionFn:
    """Attention of one token per row, from attention of several."""

    def decode(
        q: Float[Array, "b n h"],
        k: Float[Array, "p k _ _"],
        v: Float[Array, "p k s h"],
        table: Int[Array, "b w"],
        positions: Int[Array, " b"],
        spec: AttentionSpec,
    ) -> Float[Array, "b n h"]:
        return prefill(q[:, :, None], k, v, table, positions[:, None], spec)[:, :, 0]

    return decode


_GATHERED = functools.partial(paged.prefill_gathered, keys_transposed=False)

IMPLEMENTATIONS: dict[str, Attention] = {
    "xla": xla.attention,
    "splash": splash.attention,
    "cudnn": cudnn.attention,
}
PAGED_IMPLEMENTATIONS: dict[str, PagedAttention] = {
    "pages": PagedAttention(
        decode=paged.decode_in_place,
        prefill=functools.partial(paged.prefill_gathered, keys_transposed=True),
        keys_transposed=True,
        exclusive_pages=True,
    ),
    "gathered": PagedAttention(decode=_decode(_GATHERED), prefill=_GATHERED),
    "flash": PagedAttention(decode=_decode(flash.prefill_in_place), prefill=flash.prefill_in_place),
}
# The default for each platform.
DEFAULT_PAGED: dict[str, PagedName] = {"cpu": "pages", "tpu": "flash", "gpu": "gathered"}


@runtime_checkable
class HasSoftcap(Protocol):
    """The part of a model config that `resolve` reads."""

    @property
    def attention_softcap(self) -> float | None:
        """Bound of the attention scores; None if they are unbounded."""


def resolve_attention(name: str, mesh: Mesh | None, dtype: DTypeLike, model: HasSoftcap) -> str:
    """Resolve the name in a config to an implementation.

    Args:
        name: in `IMPLEMENTATIONS`, or "auto".
        mesh: the devices; None for the default device.
        dtype: of queries, keys and values.
        model: its config; tells whether the scores have a softcap.

    Returns:
        A name in `IMPLEMENTATIONS`.

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
    q: Float[Array, "b n t h"],
    k: Float[Array, "b k t h"],
    v: Float[Array, "b k t h"],
    segment_ids: Int[Array, "b t"],
    spec: AttentionSpec,
    *,
    implementation: str,
) -> Float[Array, "b n t h"]:
    """Causal attention within equal segment ids.

    Args:
        q: queries.
        k: keys; n is a multiple of k.
        v: values.
        segment_ids: equal ids are contiguous.
        spec: scale, window and softcap of the scores.
        implementation: name in `IMPLEMENTATIONS`.

    Returns:
        The attended values of each query head.

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(IMPLEMENTATIONS, implementation)(q, k, v, segment_ids, spec)


def paged_attention(implementation: str) -> PagedAttention:
    """Look up attention over a paged cache by name.

    Raises:
        ConfigError: for an unknown name.
    """
    return _named(PAGED_IMPLEMENTATIONS, implementation)


def flops(name: str, operands: Sequence[Any]) -> float:
    """FLOPs of one call of a Pallas kernel in a compiled program; 0 if it is not one of ours."""
    return splash.flops(name, operands) + flash.flops(name, operands)


def _named(known: Mapping[str, Any], name: str) -> Any:
    if name not in known:
        raise ConfigError(f"unknown attention {name!r}: {did_you_mean(name, known)}")
    return known[name]
