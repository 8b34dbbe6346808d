"""Compare a base in 8 and 4 bits with the unquantized one.

    python -m benchmarks.models.quantized --model=FOLDER

Prints one table. On the same text and with the same adapter (rank 16 on all projections, no longer
fresh) it compares, with the unquantized base: the distribution of the next token, the gradients of
the adapter, and memory: of the frozen weights, and of the temporary buffers of a training step
(XLA's figure for the compiled step).
"""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.common import tables
from eef_jax import cli
from eef_jax.config.sections import LoraConfig
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model, merge
from eef_jax.text import tokenizer as tokenizer_lib

KINDS = ("", "int8", "nf4")
# Standard deviation of noise added to a fresh adapter: B = 0 there, so the gradient of A is 0.
NOISE = 0.01


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Measurements of one base.

    Attributes:
        logits: float32[t, v] logits of the text.
        gradients: float32[p] gradients of the adapter, flattened.
        frozen: bytes of the base.
        temporary: bytes of the temporary buffers of a training step.
    """

    logits: np.ndarray
    gradients: np.ndarray
    frozen: int
    temporary: int


def run_step(model: Model, tokens: np.ndarray) -> Result:
    """Logits, gradients and memory of one step on one row of text."""
    ones = jnp.ones((1, len(tokens)), jnp.int32)
    batch = jnp.asarray(tokens[None]), jnp.arange(len(tokens))[None], ones

    def loss(trainable: Any, frozen: Any) -> tuple[jax.Array, jax.Array]:
        decoder = merge(model.graphdef, frozen, trainable)
        logits = decoder.logits(decoder(*batch))[0]
        scores = jax.nn.log_softmax(logits[:-1])
        return -jnp.take_along_axis(scores, tokens[1:, None], axis=-1).mean(), logits

    rng = np.random.default_rng(0)
    trainable = jax.tree.map(
        lambda leaf: leaf + NOISE * rng.standard_normal(leaf.shape, np.float32), model.trainable
    )
    step = jax.jit(jax.grad(loss, has_aux=True)).lower(trainable, model.frozen).compile()
    gradients, logits = step(trainable, model.frozen)
    memory = step.memory_analysis()
    assert memory is not None  # XLA has it on all backends
    flat = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)])
    return Result(
        logits=np.asarray(logits),
        gradients=flat,
        frozen=sum(leaf.nbytes for leaf in jax.tree.leaves(model.frozen)),
        temporary=memory.temp_size_in_bytes,
    )


def cells(kind: str, got: Result, plain: Result) -> list[object]:
    """One row of the table: a base compared with the unquantized one."""
    p, q = (jax.nn.log_softmax(result.logits) for result in (plain, got))
    divergence = float(jnp.sum(jnp.exp(p) * (p - q), axis=-1).mean())
    same = float(np.mean(got.logits.argmax(-1) == plain.logits.argmax(-1)))
    error = np.sqrt(np.mean((got.logits - plain.logits) ** 2) / np.var(plain.logits))
    sizes = np.linalg.norm(got.gradients), np.linalg.norm(plain.gradients)
    cosine = float(got.gradients @ plain.gradients / np.prod(sizes))
    return [
        kind or "unquantized",
        f"{error:.3f}",
        f"{divergence:.4f}",
        f"{same:.1%}",
        f"{cosine:.4f}",
        f"{sizes[0] / sizes[1]:.3f}",
        got.frozen / 1e6,
        got.temporary / 1e6,
    ]


def _main() -> None:
    given = flags.FLAGS
    folder = given.model
    # The license never changes, so that figures of different commits are comparable.
    text = pathlib.Path(__file__).parents[2].joinpath("LICENSE").read_text()
    tokens = np.asarray(tokenizer_lib.load(folder).encode(text)[: given.tokens], np.int32)
    header = ["base", "error of logits", "KL, nats", "same top token", "cosine of gradients"]
    header += ["ratio of their norms", "base, MB", "step, MB"]
    print("\n".join(tables.head(header)), flush=True)
    plain = None
    for kind in KINDS:
        options = ModelOptions(
            lora=LoraConfig(), quantization=kind, dtype=given.dtype, param_dtype=given.param_dtype
        )
        model = hf.load(folder, options)
        got = run_step(model, tokens)
        plain = plain or got
        print(tables.row(cells(kind, got, plain)), flush=True)


def run() -> None:
    """Run the command."""
    cli.define_path("model", None, "A Hugging Face folder.", required=True, local=True)
    flags.DEFINE_string("dtype", "float32", "Type that layers compute in.")
    flags.DEFINE_string("param_dtype", "float32", "Type of what is not quantized.")
    flags.DEFINE_integer("tokens", 256, "Length of the text in tokens.")
    cli.run(_main)


if __name__ == "__main__":
    run()
