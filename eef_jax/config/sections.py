"""The sections of a run's config: the only place of their defaults.

A section holds what one part of the program reads; parts take their own section. Kinds of fields:
see `fields.Kind`.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from eef_jax.config.fields import check, field, section
from eef_jax.errors import ConfigError, did_you_mean

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# Names in `kernels.PAGED_IMPLEMENTATIONS`; empty: what suits the device.
PagedName = Literal["", "gathered", "pages", "flash"]
# Optimizers of optax that need nothing but a learning rate.
OptimizerName = Literal[
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "fromage",
    "lamb",
    "lars",
    "lion",
    "novograd",
    "radam",
    "rmsprop",
    "rprop",
    "sgd",
    "sign_sgd",
    "yogi",
]
Dtype = Literal["float32", "bfloat16", "float16"]
Split = Literal["train", "dev", "test"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """A low-rank adapter (arXiv:2106.09685): y = x w + scale * dropout(x) a b."""

    rank: int = field(16, "width of the bottleneck", at_least=1)
    alpha: float = field(32.0, "scale of the update, divided by `rank`", above=0)
    dropout: float = field(
        0.0, "probability of dropping an input of the adapter in training", at_least=0, below=1
    )
    targets: tuple[str, ...] = field(
        TARGETS,
        "what is adapted: `all`, or projections (q_proj), ends of Hugging Face names "
        "(layers.3.mlp.up_proj) or regular expressions for whole names",
    )
    rslora: bool = field(
        False, "divide alpha by the square root of the rank instead (arXiv:2312.03732)"
    )

    def __post_init__(self) -> None:
        check(self, "lora")
        if tuple(self.targets) == ("all",):
            object.__setattr__(self, "targets", TARGETS)
        for target in self.targets:
            if target.isidentifier() and target not in TARGETS:
                raise ConfigError(
                    f"unknown target {target!r} in lora.targets: {did_you_mean(target, TARGETS)}"
                )
            try:
                re.compile(target)
            except re.error as error:
                raise ConfigError(
                    f"LoRA target {target!r} is neither a name nor a regular expression ({error}): "
                    f"known names: {', '.join(TARGETS)}"
                ) from error
        if not self.targets:
            raise ConfigError(
                "LoRA without targets adapts nothing: name some, or tune all parameters "
                "(config.model.tuning=full)"
            )

    @property
    def scale(self) -> float:
        """What the update a b is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def adapts(self, module: str) -> bool:
        """Whether the projection of this Hugging Face name gets an adapter."""
        return any(matches(target, module) for target in self.targets)


def matches(target: str, module: str) -> bool:
    """Whether a target of `LoraConfig` means the projection of this Hugging Face name."""
    ends = module == target or module.endswith(f".{target}")
    return ends or re.fullmatch(target, module) is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """The base model and what of it is trained."""

    path: str = field(
        "",
        "Hugging Face folder of the base, or ORG/NAME[@REVISION] on the hub; nano:NAME for one "
        "that ships; empty: WebShop's",
        path=True,
    )
    architecture: Mapping[str, Any] = section(
        dict, "fields of a config.json, for eef_jax.compile where there is no folder"
    )
    dtype: Dtype = field("float32", "type that layers compute in")
    param_dtype: Dtype = field("float32", "type that frozen parameters are stored in")
    attention: Literal["auto", "xla", "splash", "cudnn"] = field(
        "auto",
        "attention of training; auto: what the devices have",
        kind="numerics",
        open=("auto",),
    )
    scan_layers: bool = field(
        False, "stack layers, so that training compiles one of them", kind="numerics"
    )
    quantization: Literal["", "int8", "nf4"] = field(
        "", "how the projections of the base are stored under an adapter; empty: as they are"
    )
    tuning: Literal["lora", "full"] = field("lora", "train an adapter, or all parameters")
    adapter: str = field(
        "",
        "PEFT folder to start from; its rank, alpha, targets and rslora replace those of lora",
        path=True,
    )
    lora: LoraConfig = section(LoraConfig, "the adapter")

    def problems(self) -> Iterator[str]:
        """Contradictions between fields."""
        if self.tuning == "full" and self.adapter:
            yield (
                f"model.adapter = {self.adapter!r} is tuned on as an adapter, but model.tuning is "
                "'full': set it to 'lora'"
            )
        if self.tuning == "full" and self.quantization:
            yield (
                f"model.quantization = {self.quantization!r} stores weights that cannot be tuned, "
                "but model.tuning is 'full': set it to 'lora', or quantization to ''"
            )


def _axis(help: str) -> Any:
    return field(1, help, at_least=1, also=-1, kind="numerics", open=(-1,))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MeshSection:
    """Sizes of a device mesh's axes; one of them may be -1: the remaining devices."""

    data: int = _axis("copies of the model")
    fsdp: int = _axis("parts of the weights' width")
    tensor: int = _axis("parts of heads and feed-forward")
    context: int = _axis("parts of a row's tokens")

    def problems(self) -> Iterator[str]:
        """More than one axis that takes the rest."""
        sizes = {axis: getattr(self, axis) for axis in ("data", "fsdp", "tensor", "context")}
        if list(sizes.values()).count(-1) > 1:
            yield f"mesh {sizes}: only one axis may be -1"


def _training_mesh() -> MeshSection:
    return MeshSection(data=-1)


def _rollout_mesh() -> MeshSection:
    return MeshSection(tensor=-1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Sizes of the rollout engine's KV cache and of its dispatches. Defaults suit a few cores."""

    max_num_seqs: int = field(
        0,
        "rows of a decode dispatch: messages generated at once; 0: what memory holds",
        at_least=0,
        kind="numerics",
        open=(0,),
    )
    max_context: int = field(1024, "longest conversation", unit="tokens", at_least=1)
    # On CPU a decode's scores of a page are a product [3, 64] x [64, 64], which reads the cache at
    # 31 GB/s; with pages of 128 positions it read at 19.
    page_size: int = field(
        64, "positions in a page; 128 on accelerators", unit="tokens", at_least=1, kind="numerics"
    )
    num_pages: int = field(
        0, "pages of the cache; 0: what memory holds", at_least=0, kind="numerics", open=(0,)
    )
    # Four whole chunks: 19.2 s for 48 episodes of SmolLM2 on a Zen 5, with three 20.8.
    prefill_tokens: int = field(
        384, "tokens of a prefill dispatch", unit="tokens", at_least=1, kind="numerics"
    )
    prefill_seqs: int = field(4, "conversations of a prefill dispatch", at_least=1, kind="numerics")
    # With chunks of 96 tokens the products of a prefill's attention ran at 120 to 146 GFLOP/s on
    # two cores, with chunks of 32 at 53.
    prefill_chunk: int = field(
        96,
        "tokens of one conversation in a row of a prefill dispatch",
        unit="tokens",
        at_least=1,
        kind="numerics",
    )
    decode_steps: int = field(
        2, "tokens that a decode dispatch may generate a row", at_least=1, kind="numerics"
    )
    attention: PagedName = field(
        "", "attention over pages; empty: what suits the device", kind="numerics", open=("",)
    )

    def __post_init__(self) -> None:
        check(self, "engine")
        if self.num_pages and self.num_pages < self.pages_per_seq:
            raise ConfigError(
                f"engine.num_pages = {self.num_pages} of {self.page_size} positions cannot hold "
                f"one conversation of max_context {self.max_context}: set it to "
                f"{self.pages_per_seq} or more, or to 0"
            )

    @property
    def pages_per_seq(self) -> int:
        """Pages of the longest conversation."""
        return -(-self.max_context // self.page_size)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSection:
    """How episodes are played."""

    max_steps: int = field(
        0, "cap on an agent's actions in an episode; 0: the environment's", at_least=0
    )
    concurrency: int = field(
        0, "episodes at once; 0: as many as the policy serves", at_least=0, kind="free"
    )
    env_threads: int = field(4, "threads that step environments", at_least=1, kind="free")
    env_timeout_s: float = field(
        60.0, "limit of one environment call", unit="seconds", above=0, kind="free"
    )
    env_attempts: int = field(
        3,
        "how often an environment call that hangs, raises or returns what it may not is tried, on "
        "a fresh game that repeats the episode's actions",
        at_least=1,
        kind="free",
    )
    max_observation: int = field(
        100_000,
        "largest observation; a longer one is a fault of the environment, never the policy's",
        unit="characters",
        at_least=1,
        kind="free",
    )
    max_consecutive_invalid: int = field(
        3, "messages in a row without an action that end an episode", at_least=1
    )
    max_failures: float = field(
        0.05,
        "largest share of a stage's episodes that infrastructure may end (env_error, env_timeout, "
        "diverged, policy_error); with more the stage is not kept",
        at_least=0,
        at_most=1,
        kind="free",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SamplingSection:
    """How a policy samples a message in exploration."""

    temperature: float = field(
        1.0, "divides the logits; 0 takes the most likely token", at_least=0, at_most=1e6
    )
    top_p: float = field(
        1.0, "sample from the most likely tokens of this total probability", above=0, at_most=1
    )
    top_k: int = field(0, "sample from that many most likely tokens; 0: from all", at_least=0)
    max_new_tokens: int = field(32, "cap on a message's tokens", unit="tokens", at_least=1)
    stop: tuple[str, ...] = field((), "texts that end a message")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateSection(SamplingSection):
    """How a policy is evaluated on held-out tasks: greedily, unless a temperature is set."""

    split: Split = field("test", "tasks to play")
    temperature: float = field(
        0.0, "divides the logits; 0 takes the most likely token", at_least=0, at_most=1e6
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """How parameters are updated."""

    name: OptimizerName = field("adamw", "an optimizer of optax")
    learning_rate: float = field(
        0.0, "peak of the schedule; 0: 2e-4 for an adapter, 1e-5 in full tuning", at_least=0
    )
    schedule: Literal["constant", "linear", "cosine"] = field(
        "cosine", "the rate after its peak: down to `end_lr_ratio` of it"
    )
    warmup_ratio: float = field(
        0.05, "share of the steps in which the rate rises from 0", at_least=0, at_most=1
    )
    end_lr_ratio: float = field(0.1, "last step's share of the peak", at_least=0, at_most=1)
    weight_decay: float = field(
        0.0, "decoupled decay of matrices; vectors are never decayed", at_least=0
    )
    b1: float = field(0.9, "decay of the first moment (momentum of sgd)", at_least=0, below=1)
    b2: float = field(0.99, "decay of the second moment", at_least=0, below=1)
    clip_norm: float = field(1.0, "largest global norm of a gradient; 0: no clipping", at_least=0)

    def resolved(self, *, adapter: bool) -> "OptimizerConfig":
        """The same with a learning rate in place of 0.

        Args:
            adapter: an adapter is tuned, which takes a rate some twenty times that of all weights.
        """
        rate = self.learning_rate or (2e-4 if adapter else 1e-5)
        return dataclasses.replace(self, learning_rate=rate)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainSection:
    """How a round's examples are learned."""

    init_from: Literal["auto", "base", "previous"] = field(
        "auto",
        "weights that a round starts from: the base's, or the previous round's; auto: previous "
        "where the method's loss compares with the policy that played (dpo, pg), else base",
    )
    observation_weight: float = field(
        0.0,
        "loss weight of the observations that answer an action, next to 1 of the agent's tokens "
        "(arXiv 2605.24517); 0: not learned",
        at_least=0,
    )
    conversations: str = field(
        "",
        "file of chats to learn as well in every round, or several with commas between them: JSON "
        'lines with "messages", of which the assistant\'s are learned; empty: none',
        path=True,
    )
    conversations_weight: float = field(
        1.0, "loss weight of the tokens learned from `conversations`", above=0
    )
    epochs: int = field(3, "passes over the examples", at_least=1)
    batch_size: int = field(8, "packed rows in a global batch", unit="rows", at_least=1)
    seq_len: int = field(1024, "tokens of a packed row", unit="tokens", at_least=2)
    micro_batch: int | Literal["auto"] = field(
        0,
        "rows that a device computes at a time; 0: all of its rows; auto: what memory holds",
        at_least=0,
        kind="numerics",
        open=(0, "auto"),
    )
    remat: Literal["none", "dots", "block", "offload"] = field(
        "none", "rematerialization: what the backward pass computes again", kind="numerics"
    )
    save_every_s: float = field(
        600.0,
        "time between two saves of an unfinished training; 0: none by time",
        unit="seconds",
        at_least=0,
        kind="free",
    )
    save_every_steps: int = field(
        0,
        "steps between two saves of an unfinished training; 0: none by number",
        at_least=0,
        kind="free",
    )
    optimizer: OptimizerConfig = section(OptimizerConfig, "the optimizer")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """A plug-in and its own section.

    Attributes:
        name: a module of the family in the package, or a dotted module path from outside of it.
        options: the plug-in's frozen dataclass `Config`; None without a plug-in.
    """

    name: str = field("", "a module of the family, or a dotted module path from outside")
    options: Any = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expert(Plugin):
    """The expert: a plug-in that plays, or trajectories from a file.

    Attributes:
        trajectories: folder or file of trajectories to use instead of playing; "": none.
        evaluate: whether it plays the evaluation split too.
    """

    trajectories: str = field(
        "", "folder or file of trajectories to take instead of playing; empty: play", path=True
    )
    evaluate: Literal["auto", "yes", "no"] = field(
        "auto",
        "play the evaluation split too, as the report's row of the expert; auto: unless its "
        "answers are paid for",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All sections of a run."""

    seed: int = field(0, "of data order, sampling and new weights", at_least=0)
    env: Plugin = section(Plugin, "the environment")
    expert: Expert = section(Expert, "the expert")
    method: Plugin = section(Plugin, "the method")
    model: ModelSection = section(ModelSection, "the base model and what of it is trained")
    mesh: MeshSection = section(_training_mesh, "devices of training, all processes together")
    rollout_mesh: MeshSection = section(_rollout_mesh, "devices of one process, for rollouts")
    engine: EngineConfig = section(EngineConfig, "the rollout engine")
    rollout: RolloutSection = section(RolloutSection, "how episodes are played")
    explore: SamplingSection = section(SamplingSection, "sampling in exploration")
    train: TrainSection = section(TrainSection, "training")
    evaluate: EvaluateSection = section(EvaluateSection, "evaluation")

    def problems(self) -> Iterator[str]:
        """Contradictions between sections."""
        for name, sampling in (("explore", self.explore), ("evaluate", self.evaluate)):
            if sampling.max_new_tokens >= self.engine.max_context:
                yield (
                    f"engine.max_context is {self.engine.max_context}, expected more than the "
                    f"{sampling.max_new_tokens} tokens of one message ({name}.max_new_tokens) and "
                    "its prompt"
                )
