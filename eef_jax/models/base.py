"""What a model is: its configuration, its adapter's configuration, and its three parts.

Knows how families are found (a module of this package that declares `MODEL_TYPES`), not what any of
them looks like; knows neither files nor text.
"""

import dataclasses
import hashlib
import importlib
import pkgutil
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from flax import nnx

from eef_jax.errors import ConfigError, near

if TYPE_CHECKING:
    from eef_jax.models.decoder import Decoder

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RopeScaling:
    """Llama 3's stretching of the slow rotary frequencies (arXiv:2407.21783, section 3.2)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder; family files translate a Hugging Face `config.json` into it and back.

    Attributes:
        model_type: Hugging Face `model_type`; names the family file.
        vocab_size: rows of the embedding table.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: query heads.
        n_kv_heads: key/value heads; divides `n_heads`.
        head_dim: width of one head (even).
        d_ff: width of the gated feed-forward layer.
        rope_theta: base of the rotary frequencies.
        rope_scaling: Llama 3's frequency scaling, None without.
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
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """A low-rank adapter (arXiv:2106.09685): y = x w + alpha / rank * dropout(x) a b.

    Attributes:
        rank: width of the bottleneck.
        alpha: scale of the update, divided by `rank`.
        dropout: probability of dropping an input of the adapter while training (0-1).
        targets: names of the adapted projections, out of `TARGETS`.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        for name in self.targets:
            if name not in TARGETS:
                raise ConfigError(f"unknown LoRA target {name!r}: {near(name, TARGETS)}")
        if self.rank < 1 or not self.targets:
            raise ConfigError(
                f"LoRA of rank {self.rank} on {len(self.targets)} targets adapts nothing: "
                "set rank >= 1 and name targets, or pass lora=None to tune all parameters"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"LoRA dropout = {self.dropout}: expected a value in [0, 1)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A decoder taken apart: what is trained, what is not, and how to put them together.

    Attributes:
        config: the shape.
        lora: the adapter's configuration; None means that every parameter is trained.
        graphdef: static structure, hashable.
        frozen: parameters that never change (empty without an adapter).
        trainable: parameters that training changes: the adapter, or everything.
    """

    config: ModelConfig
    lora: LoraConfig | None
    graphdef: nnx.GraphDef
    frozen: nnx.State
    trainable: nnx.State

    @property
    def decoder(self) -> "Decoder":
        """The decoder with the parameters this model holds."""
        return merge(self.graphdef, self.frozen, self.trainable)


def merge(graphdef: nnx.GraphDef, frozen: nnx.State, trainable: nnx.State) -> "Decoder":
    """Put a decoder together; works inside `jax.jit` (pass the states, close over the graphdef)."""
    return nnx.merge(graphdef, frozen, trainable)


def content_hash(state: nnx.State) -> str:
    """SHA-256 over the paths, types, shapes and bytes of a state, as a hex string.

    A checkpoint names the frozen weights it belongs to by it instead of storing them. Equal weights
    give equal hashes on any mesh.
    """
    digest = hashlib.sha256()
    for path, variable in sorted(nnx.to_flat_state(state), key=lambda item: str(item[0])):
        value = np.asarray(jax.device_get(variable[...]))
        digest.update(f"{path} {value.dtype} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def families() -> dict[str, ModuleType]:
    """Map each served Hugging Face `model_type` to its family module."""
    found: dict[str, ModuleType] = {}
    package: Any = importlib.import_module("eef_jax.models")
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"eef_jax.models.{info.name}")
        for model_type in getattr(module, "MODEL_TYPES", ()):
            found[model_type] = module
    return found


def family(model_type: str) -> ModuleType:
    """Return the module that serves `model_type`.

    Raises:
        ConfigError: when no family file declares it.
    """
    known = families()
    if model_type not in known:
        raise ConfigError(
            f"model_type {model_type!r} is served by no family file: {near(model_type, known)}; "
            "add one to eef_jax/models that declares MODEL_TYPES"
        )
    return known[model_type]
