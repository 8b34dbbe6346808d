"""The shape of a decoder, its LoRA adapter, and how it is stored and computed."""

import dataclasses
import functools
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.models import quantize, remat
from eef_jax.models.rope import RopeScaling

DTYPES = ("float32", "bfloat16", "float16")

ACTIVATIONS: dict[str, Callable[[Float[Array, "*x"]], Float[Array, "*x"]]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder; family files translate a Hugging Face `config.json` into it and back.

    The defaults are those of Llama. What another family does differently is a field here, so that
    the decoder never tests for a family.

    Attributes:
        model_type: Hugging Face `model_type`; selects the family file.
        vocab_size: rows of the embedding table.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: query heads.
        n_kv_heads: key/value heads; divides `n_heads`.
        head_dim: width of one head (even).
        d_ff: width of the gated feed-forward layer.
        activation: activation of its gate, a name in `ACTIVATIONS`.
        attention_bias: whether the projections to queries, keys and values add a bias.
        qk_norm: whether queries and keys of each head are normed before the rotary embedding.
        post_norms: whether the outputs of attention and feed-forward are normed, too.
        zero_centered_norms: whether norms store their weight minus 1 (Gemma).
        embedding_scale: factor of the embedded tokens.
        query_pre_attn_scalar: attention scores are divided by its square root; None means
            `head_dim`.
        attention_softcap: soft bound of the attention scores; None for no bound.
        logit_softcap: soft bound of the logits; None for no bound.
        windows: sliding window of each layer, in tokens and including the token itself; None
            for full attention. Empty: full attention in all layers.
        rope_theta: base of the rotary frequencies.
        rope_scaling: scaling of the rotary frequencies; None for no scaling.
        local_rope_theta: base of the rotary frequencies in layers with a window, without scaling;
            None: the same embedding as in the other layers.
        rms_eps: epsilon of the RMS norms.
        tie_embeddings: whether the output projection is the embedding table.
        max_positions: longest context that the weights were trained for, in tokens.
        bos_token_id: id of the first token of a text; kept for exported folders.
        eos_token_id: id, or ids, of the last token of a text; kept for exported folders.
    """

    model_type: str = "llama"
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    activation: str = "silu"
    attention_bias: bool = False
    qk_norm: bool = False
    post_norms: bool = False
    zero_centered_norms: bool = False
    embedding_scale: float = 1.0
    query_pre_attn_scalar: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    windows: tuple[int | None, ...] = ()
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    local_rope_theta: float | None = None
    rms_eps: float = 1e-5
    tie_embeddings: bool = True
    max_positions: int = 2048
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.n_heads % self.n_kv_heads:
            raise ConfigError(
                f"n_heads = {self.n_heads} is not a multiple of n_kv_heads = {self.n_kv_heads}: "
                "set one of them so that each key/value head serves equally many query heads"
            )
        if self.head_dim % 2:
            raise ConfigError(
                f"head_dim = {self.head_dim}: rotary embeddings rotate pairs, so it must be even"
            )
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"unknown activation {self.activation!r}: "
                f"{did_you_mean(self.activation, ACTIVATIONS)}"
            )
        if self.windows and len(self.windows) != self.n_layers:
            raise ConfigError(
                f"{len(self.windows)} windows for {self.n_layers} layers: give one for each, None "
                "for a layer with full attention, or leave them empty"
            )
        for window in self.windows:
            if window is not None and window < 1:
                raise ConfigError(f"a window of {window} tokens: expected 1 or more, or None")

    def window(self, layer: int) -> int | None:
        """Sliding window of a layer, in tokens and including the token itself; None for full."""
        return self.windows[layer] if self.windows else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a decoder of a given shape is tuned, stored and computed.

    Attributes:
        lora: the adapter, which is all that is trained then; None trains every parameter.
        dtype: type that layers compute in, out of `DTYPES`; attention scores, softmax, norms and
            logits are always float32.
        param_dtype: type that parameters are stored in, out of `DTYPES`; an adapter is float32.
        quantization: `int8` or `nf4` for the weights of the projections, under an adapter; "" for
            none.
        attention: name in `kernels.IMPLEMENTATIONS`, or "auto" for the one that the devices have.
        scan_layers: stack the layers and scan over them, so that training compiles one of them
            (see `stacking`).
        remat: what is saved for the backward pass, a name in `remat.POLICIES`.
    """

    lora: LoraConfig | None = None
    dtype: str = "float32"
    param_dtype: str = "float32"
    quantization: str = ""
    attention: str = "xla"
    scan_layers: bool = False
    remat: str = "none"

    def __post_init__(self) -> None:
        for name in ("dtype", "param_dtype"):
            if (dtype := getattr(self, name)) not in DTYPES:
                raise ConfigError(f"unknown {name} {dtype!r}: {did_you_mean(dtype, DTYPES)}")
        quantize.check_kind(self.quantization)
        remat.check_policy(self.remat)
        if self.quantization and self.lora is None:
            raise ConfigError(
                f"quantization = {self.quantization!r} stores weights that cannot be tuned: add "
                "an adapter (config.model.tuning=lora), or set it to ''"
            )


DEFAULT_OPTIONS = ModelOptions()  # all parameters trainable, in float32
