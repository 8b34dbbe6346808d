"""The programs of a run, compiled ahead of time for described devices, and what they take.

A program that does not fit is an error with the compiler's own reason and the settings that help.
Knows configs' parts as arguments; prints nothing.
"""

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from eef_jax import kernels, sharding
from eef_jax.analysis import chips, count, hlo, work
from eef_jax.analysis.roofline import Roofline, roofline
from eef_jax.data.batches import empty
from eef_jax.engine.sampling import sample
from eef_jax.errors import ConfigError
from eef_jax.models.base import Model, merge
from eef_jax.models.cache import init_cache
from eef_jax.train import step as step_lib
from eef_jax.train.optim import OptimizerConfig, make_optimizer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device, by the compiler's own account.

    Attributes:
        arguments: what the program is given.
        temporaries: what it needs beside.
        outputs: results that take no argument's place.
        code: of the program itself.
    """

    arguments: int
    temporaries: int
    outputs: int
    code: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled program.

    Attributes:
        name: `train`, `prefill` or `decode`.
        memory: on one device.
        counts: what one device does.
        roofline: how long that takes.
        useful: FLOPs of one device that the task asks for.
        seconds: that compiling took.
    """

    name: str
    memory: Memory
    counts: count.Counts
    roofline: Roofline
    useful: float
    seconds: float


class OutOfMemory(ConfigError):
    """A program does not fit its devices' memory."""


def train(
    model: Model,
    *,
    mesh: Mesh,
    rows: int,
    length: int,
    learned: int,
    accumulate: int = 1,
    optimizer: OptimizerConfig | None = None,
) -> Program:
    """Compile the training step.

    Args:
        model: abstract.
        mesh: of described or real devices.
        rows: of the global batch.
        length: tokens of a row.
        learned: learned tokens of a row at most.
        accumulate: micro-batches.
        optimizer: by default AdamW.

    Raises:
        OutOfMemory: it does not fit.
    """
    transform = make_optimizer(optimizer or OptimizerConfig(), 1000)
    batch = empty(rows, length, learned)
    lowered = step_lib.lower(model, transform, batch, mesh=mesh, accumulate=accumulate)
    return compiled("train", lowered, mesh, useful=work.useful(model, load(mesh, batch)))


def load(mesh: Mesh, batch: Any) -> work.Load:
    """One device's share of a batch."""
    rows, length = batch["tokens"].shape
    return work.Load(
        tokens=rows * length / (mesh.size / mesh.shape["tensor"]),
        learned=rows * batch["targets"].shape[1] / (mesh.size / mesh.shape["tensor"]),
        length=length,
        share=1 / mesh.shape["tensor"],
    )


def prefill(
    model: Model, *, mesh: Mesh, slots: int, context: int, rows: int, chunk: int
) -> Program:
    """Compile the engine's prefill of `rows` chunks of `chunk` tokens, at the full context.

    Raises:
        OutOfMemory: it does not fit.
    """

    def run(frozen: Any, trainable: Any, cache: Any, tokens: Any, positions: Any, at: Any) -> Any:
        decoder = merge(model.graphdef, frozen, trainable)
        return decoder.extend(tokens, positions, at, cache, length=context)[1]

    cells, line = (rows, chunk), (rows,)
    shapes = [(cells, "int32"), (cells, "int32"), (line, "int32")]
    lowered = _lowered_on_cache(run, model, mesh, slots, context, shapes)
    useful = 2.0 * work.sizes(model).body * rows * chunk / mesh.size
    return compiled("prefill", lowered, mesh, useful=useful)


def decode(model: Model, *, mesh: Mesh, slots: int, context: int) -> Program:
    """Compile the engine's decoding of a token for every slot, at the full context.

    Raises:
        OutOfMemory: it does not fit.
    """

    def run(
        frozen: Any, trainable: Any, cache: Any,
        tokens: Any, positions: Any, keys: Any, temperature: Any, top_p: Any,
    ) -> Any:  # fmt: skip
        decoder = merge(model.graphdef, frozen, trainable)
        hidden, cache = decoder.extend(
            tokens[:, None], positions[:, None], None, cache, length=context
        )
        logits = decoder.logits(hidden[:, 0])
        return cache, *sample(logits, keys, positions + 1, temperature, top_p)

    line = (slots,)
    shapes = [(line, "int32"), (line, "int32"), ((slots, 2), "uint32")]
    shapes += [(line, "float32"), (line, "float32")]
    lowered = _lowered_on_cache(run, model, mesh, slots, context, shapes)
    n = work.sizes(model)
    return compiled("decode", lowered, mesh, useful=2.0 * (n.body + n.head) * slots / mesh.size)


def _lowered_on_cache(
    run: Callable[..., Any],
    model: Model,
    mesh: Mesh,
    slots: int,
    context: int,
    shapes: Sequence[tuple[tuple[int, ...], str]],
) -> jax.stages.Lowered:
    """Lower a program of the engine: (frozen, trainable, cache, ...) on a mesh."""
    cache = jax.eval_shape(
        lambda: init_cache(model.config, slots=slots, max_context=context, dtype=jnp.bfloat16)
    )

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        lies = NamedSharding(
            mesh, sharding.spec(("batch", "kv_heads", None, None), leaf.shape, mesh)
        )
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies)

    everywhere = NamedSharding(mesh, PartitionSpec())
    rest = [jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere) for shape, dtype in shapes]
    states = [sharding.abstract(state, mesh) for state in (model.frozen, model.trainable)]
    with jax.set_mesh(mesh):
        jitted = jax.jit(run, donate_argnums=2)
        return jitted.lower(*states, jax.tree.map(placed, cache), *rest)


def compiled(name: str, lowered: jax.stages.Lowered, mesh: Mesh, *, useful: float) -> Program:
    """Compile and account for a program on TPUs.

    Raises:
        OutOfMemory: it does not fit.
    """
    began = time.monotonic()
    program = build(name, lowered)
    seconds = time.monotonic() - began
    counts = count.count(hlo.parse(program.as_text() or ""), kernel=kernels.splash.flops)
    where = chips.slice_of(list(mesh.devices.flat))
    return Program(
        name=name,
        memory=memory(program),
        counts=counts,
        roofline=roofline(counts, where, useful=useful),
        useful=useful,
        seconds=seconds,
    )


def build(name: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile a program.

    Raises:
        OutOfMemory: it does not fit; with the compiler's reason and what would help.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(
            f"the {name} program does not fit: {reason(str(error))}\n{HELP[name]}"
        ) from error


def reason(error: str) -> str:
    """The compiler's own sentence on memory, without the list of buffers."""
    found = re.search(r"(Ran out of memory[^\n]*|Used [^\n]*)", error)
    used = re.search(r"Used [^\n]*", error)
    lines = [found[1]] if found else [error.splitlines()[0]]
    if used and used[0] not in lines[0]:
        lines.append(used[0].strip())
    return " ".join(lines)


def memory(program: jax.stages.Compiled) -> Memory:
    """The compiler's account of a program's memory on one device."""
    stats: Any = program.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


_ENGINE = (
    "what helps, in this order: fewer config.engine.slots, a shorter config.engine.max_context, "
    "config.model.quantise='int8', more chips on a host"
)
HELP = {
    "train": (
        "what helps, in this order: config.train.micro_batch=1 (or 'auto'), "
        "config.train.remat='block' or 'offload', a larger config.mesh.fsdp, config.mesh.context "
        "for long rows, config.model.quantise='int8', a larger slice"
    ),
    "prefill": _ENGINE,
    "decode": _ENGINE,
}
