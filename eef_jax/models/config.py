"""Shapes of a decoder and of its adapter: what a family's file or a config says of them."""

import dataclasses
import functools
import re
from collections.abc import Callable

import jax

from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.models import quantize, remat
from eef_jax.models.rope import RopeScaling

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

DTYPES = ("float32", "bfloat16", "float16")

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder; family files translate a Hugging Face `config.json` into it and back.

    The defaults are a Llama's. What another family does differently is a field here, which the
    decoder reads without knowing the family.

    Attributes:
        model_type: Hugging Face `model_type`; names the family file.
        vocab_size: rows of the embedding table.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: query heads.
        n_kv_heads: key/value heads; divides `n_heads`.
        head_dim: width of one head (even).
        d_ff: width of the gated feed-forward layer.
        activation: of its gate, a name in `ACTIVATIONS`.
        attention_bias: whether the projections to queries, keys and values add a bias.
        qk_norm: whether each head's query and key is normed before it is rotated.
        post_norms: whether attention's and feed-forward's outputs are normed as well.
        zero_centered_norms: whether a norm's weight is stored as what it has above 1.
        embedding_scale: what embedded tokens are multiplied by.
        query_pre_attn_scalar: attention scores are divided by its square root; None means
            `head_dim`.
        attention_softcap: bound of the attention scores, None without.
        logit_softcap: bound of the next token's scores, None without.
        windows: for each layer the number of tokens that a token sees, itself included, None for
            all; left empty, all layers see all.
        rope_theta: base of the rotary frequencies.
        rope_scaling: how the frequencies are stretched, None without.
        local_rope_theta: base in layers that have a window, where nothing is stretched; None means
            that they turn like the others.
        rms_eps: epsilon of the RMS norms.
        tie_embeddings: whether the output projection is the embedding table.
        max_positions: longest context the weights are made for, in tokens.
        bos_token_id: carried through for the exported folder; nothing here reads it.
        eos_token_id: likewise; some models name several.
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
                f"n_heads = {self.n_heads} is no multiple of n_kv_heads = {self.n_kv_heads}: "
                "set one of them so that each key/value head serves equally many query heads"
            )
        if self.head_dim % 2:
            raise ConfigError(
                f"head_dim = {self.head_dim}: rotary embeddings turn pairs, so it must be even"
            )
        if self.activation not in ACTIVATIONS:
            raise ConfigError(
                f"unknown activation {self.activation!r}: "
                f"{did_you_mean(self.activation, ACTIVATIONS)}"
            )
        if self.windows and len(self.windows) != self.n_layers:
            raise ConfigError(
                f"{len(self.windows)} windows for {self.n_layers} layers: give one for each, None "
                "for a layer that sees all, or leave them empty"
            )
        for window in self.windows:
            if window is not None and window < 1:
                raise ConfigError(f"a window of {window} tokens: expected 1 or more, or None")

    def window(self, layer: int) -> int | None:
        """Number of tokens that a token of this layer sees, itself included; None for all."""
        return self.windows[layer] if self.windows else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """A low-rank adapter (arXiv:2106.09685): y = x w + scale * dropout(x) a b.

    Attributes:
        rank: width of the bottleneck.
        alpha: scale of the update, divided by `rank`.
        dropout: probability of dropping an input of the adapter while training (0-1).
        targets: what is adapted, as PEFT has it: names of projections (`q_proj`, out of `TARGETS`),
            ends of their Hugging Face names (`layers.3.mlp.up_proj`), or regular expressions for
            the whole name (`model[.]layers[.][0-9][.]self_attn[.].*`).
        rslora: divide `alpha` by the square root of `rank` instead, so that high ranks learn as
            fast as low ones (arXiv:2312.03732).
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS
    rslora: bool = False

    def __post_init__(self) -> None:
        for target in self.targets:
            if target.isidentifier() and target not in TARGETS:
                raise ConfigError(
                    f"unknown LoRA target {target!r}: {did_you_mean(target, TARGETS)}"
                )
            try:
                re.compile(target)
            except re.error as error:
                raise ConfigError(
                    f"LoRA target {target!r} is no regular expression ({error}) and no name: "
                    f"known names: {', '.join(TARGETS)}"
                ) from error
        if self.rank < 1 or not self.targets:
            raise ConfigError(
                f"LoRA of rank {self.rank} on {len(self.targets)} targets adapts nothing: "
                "set rank >= 1 and name targets, or pass lora=None to tune all parameters"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"LoRA dropout = {self.dropout}: expected a value in [0, 1)")

    @property
    def scale(self) -> float:
        """What the update a b is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def adapts(self, module: str) -> bool:
        """Whether the projection of this Hugging Face name gets an adapter."""
        return any(matches(target, module) for target in self.targets)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a decoder of a given shape is tuned, stored and computed.

    Attributes:
        lora: the adapter, which alone is trainable then; None makes every parameter trainable.
        dtype: type that layers compute in, out of `DTYPES`; attention scores, softmax, norms and
            logits are float32 in any case.
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
                "an adapter (config.model.lora.enable), or set it to ''"
            )


DEFAULT_OPTIONS = ModelOptions()  # all parameters trainable, in float32


def matches(target: str, module: str) -> bool:
    """Whether a target of `LoraConfig` means the projection of this Hugging Face name."""
    ends = module == target or module.endswith(f".{target}")
    return ends or re.fullmatch(target, module) is not None
