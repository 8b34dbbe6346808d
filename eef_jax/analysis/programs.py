"""Training, prefill and decode, compiled ahead of time for a mesh and analyzed.

The devices may be those of a TPU topology that is not attached. A program that does not fit raises
an error with the compiler's own reason and the settings that help.
"""

import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from eef_jax import kernels, sharding
from eef_jax.analysis import chips, count, flops, hlo
from eef_jax.analysis.roofline import Roofline, roofline
from eef_jax.config.sections import EngineConfig, OptimizerConfig
from eef_jax.data.batches import empty_batch
from eef_jax.engine.functions import EngineFunctions
from eef_jax.engine.inputs import DecodeInputs, empty_prefill
from eef_jax.errors import ConfigError
from eef_jax.models.cache import CACHE_AXES, init_cache
from eef_jax.models.model import Model
from eef_jax.train import step as step_lib
from eef_jax.train.optim import make_optimizer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory of a program on one device, in bytes, as the compiler reports it.

    Attributes:
        arguments: bytes of its arguments.
        temporaries: bytes of buffers that are live only while it runs.
        outputs: bytes of results that do not alias a donated argument.
        code: bytes of the executable.
    """

    arguments: int
    temporaries: int
    outputs: int
    code: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return self.arguments + self.temporaries + self.outputs + self.code


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A compiled program and its analysis, per device.

    Attributes:
        name: `train`, `prefill` or `decode`.
        memory: bytes by use.
        counts: FLOPs, HBM traffic and collectives.
        roofline: lower and upper bounds of its time.
        model_flops: FLOPs that the task itself requires.
        seconds: time that compiling took.
    """

    name: str
    memory: Memory
    counts: count.ProgramCounts
    roofline: Roofline
    model_flops: float
    seconds: float


# Length of the learning-rate schedule; the compiled program does not depend on it.
ANY_STEPS = 1000


class OutOfMemory(ConfigError):
    """A program does not fit the memory of its devices."""


def train(
    model: Model,
    *,
    mesh: Mesh,
    batch_size: int,
    seq_len: int,
    max_loss_positions: int,
    accumulation_steps: int = 1,
    optimizer: OptimizerConfig | None = None,
) -> Program:
    """Compile the training step.

    Args:
        model: the abstract model.
        mesh: mesh of training.
        batch_size: rows of the global batch.
        seq_len: tokens per row.
        max_loss_positions: most learned tokens per row.
        accumulation_steps: micro-batches per optimizer step.
        optimizer: the optimizer; None for AdamW at its defaults.

    Raises:
        OutOfMemory: the program does not fit.
    """
    transform = make_optimizer(
        optimizer or OptimizerConfig(), 1000
    )  # the schedule's length is free
    batch = empty_batch(batch_size, seq_len, max_loss_positions)
    lowered = step_lib.lower(
        model, transform, batch, mesh=mesh, accumulation_steps=accumulation_steps
    )
    return compile_and_analyze(
        "train", lowered, mesh, model_flops=flops.model_flops(model, device_load(mesh, batch))
    )


def device_load(mesh: Mesh, batch: Any) -> flops.DeviceLoad:
    """One device's share of a batch."""
    rows, seq_len = batch["tokens"].shape
    # Devices of the tensor axis compute parts of the same tokens.
    parts = mesh.size / mesh.shape["tensor"]
    return flops.DeviceLoad(
        tokens=rows * seq_len / parts,
        loss_positions=rows * batch["loss_positions"].shape[1] / parts,
        seq_len=seq_len,
        share=1 / mesh.shape["tensor"],
    )


def prefill(model: Model, *, mesh: Mesh, engine_config: EngineConfig) -> Program:
    """Compile the engine's prefill in its widest bucket: tokens at the end of the longest context.

    Args:
        model: the abstract model.
        mesh: mesh of one process's devices.
        engine_config: sizes of the engine, with none left open.

    Raises:
        OutOfMemory: the program does not fit.
    """
    functions = EngineFunctions(model, engine_config)
    inputs = empty_prefill(engine_config, engine_config.pages_per_seq)
    lowered = _lowered_on_cache(functions.prefill, model, mesh, engine_config, *inputs)
    model_flops = (
        2.0 * flops.parameter_counts(model).body * engine_config.prefill_tokens / mesh.size
    )
    return compile_and_analyze("prefill", lowered, mesh, model_flops=model_flops)


def decode(model: Model, *, mesh: Mesh, engine_config: EngineConfig) -> Program:
    """Compile a decode step of the engine: one token for each of `max_num_seqs` rows.

    Args:
        model: the abstract model.
        mesh: mesh of one process's devices.
        engine_config: sizes of the engine, with none left open.

    Raises:
        OutOfMemory: the program does not fit.
    """
    functions = EngineFunctions(model, engine_config)
    inputs = DecodeInputs.empty(engine_config)
    lowered = _lowered_on_cache(functions.decode_step, model, mesh, engine_config, inputs)
    n = flops.parameter_counts(model)
    model_flops = 2.0 * (n.body + n.head) * engine_config.max_num_seqs / mesh.size
    return compile_and_analyze("decode", lowered, mesh, model_flops=model_flops)


def _lowered_on_cache(
    run: Callable[..., Any], model: Model, mesh: Mesh, engine_config: EngineConfig, *inputs: Any
) -> jax.stages.Lowered:
    """Lower an engine function (cache, frozen, adapter, *inputs) with its cache donated."""

    def replicated(leaf: Any) -> jax.ShapeDtypeStruct:
        return _with_sharding(leaf, [None] * leaf.ndim, mesh)

    states = [
        jax.tree.leaves(sharding.abstract_tree(state, mesh))
        for state in (model.frozen, model.trainable)
    ]
    # A dispatch's inputs are a few kilobytes: each device gets all of them.
    inputs = tuple(jax.tree.map(replicated, part) for part in inputs)
    with jax.set_mesh(mesh):
        # Donated as in the engine: otherwise a program would hold the cache twice.
        jitted = jax.jit(run, donate_argnums=0)
        return jitted.lower(_abstract_cache(model, mesh, engine_config), *states, *inputs)


def cache_bytes(model: Model, *, mesh: Mesh, engine_config: EngineConfig) -> int:
    """Bytes of the engine's KV cache on one device."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(_abstract_cache(model, mesh, engine_config))
    )


def _abstract_cache(model: Model, mesh: Mesh, engine_config: EngineConfig) -> Any:
    """Shapes and shardings of the engine's KV cache."""
    make = functools.partial(
        init_cache,
        model.config,
        num_pages=engine_config.num_pages,
        page_size=engine_config.page_size,
        dtype=model.decoder.dtype,
        attention=engine_config.attention,
    )
    cache = jax.eval_shape(make)
    return jax.tree.map(lambda leaf: _with_sharding(leaf, CACHE_AXES, mesh), cache)


def _with_sharding(leaf: Any, axes: Sequence[str | None], mesh: Mesh) -> jax.ShapeDtypeStruct:
    placement = NamedSharding(mesh, sharding.partition_spec(axes, leaf.shape, mesh))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placement)


def compile_and_analyze(
    name: str, lowered: jax.stages.Lowered, mesh: Mesh, *, model_flops: float
) -> Program:
    """Compile a program for TPUs and analyze it.

    Args:
        name: `train`, `prefill` or `decode`.
        lowered: the program, lowered for the devices of `mesh`.
        mesh: its mesh, whose devices form the slice.
        model_flops: FLOPs per device that the task itself requires.

    Raises:
        OutOfMemory: the program does not fit.
    """
    began = time.monotonic()
    program = compile_lowered(name, lowered)
    seconds = time.monotonic() - began
    counts = count.count_program(hlo.parse(program.as_text() or ""), kernel=kernels.flops)
    topology = chips.slice_topology(list(mesh.devices.flat))
    return Program(
        name=name,
        memory=memory_usage(program),
        counts=counts,
        roofline=roofline(counts, topology, model_flops=model_flops),
        model_flops=model_flops,
        seconds=seconds,
    )


def compile_lowered(name: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compile a program.

    Raises:
        OutOfMemory: the program does not fit; with the compiler's reason and what would help.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemory(
            f"the {name} program does not fit: {oom_reason(str(error))}\n{HELP[name]}"
        ) from error


def oom_reason(error: str) -> str:
    """The compiler's own sentence about memory, without its list of buffers."""
    found = re.search(r"(Ran out of memory[^\n]*|Used [^\n]*)", error)
    used = re.search(r"Used [^\n]*", error)
    lines = [found[1]] if found else [error.splitlines()[0]]
    if used and used[0] not in lines[0]:
        lines.append(used[0].strip())
    return " ".join(lines)


def memory_usage(program: jax.stages.Compiled) -> Memory:
    """Memory of a compiled program on one device."""
    stats: Any = program.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
        # Results that alias a donated argument take no further memory.
        outputs=stats.output_size_in_bytes - stats.alias_size_in_bytes,
        code=stats.generated_code_size_in_bytes,
    )


_ENGINE = (
    "what helps, in this order: a lower config.engine.max_num_seqs, a shorter "
    "config.engine.max_context, config.model.quantization='int8', more chips on a host"
)
HELP = {
    "train": (
        "what helps, in this order: config.train.micro_batch=1 (or 'auto'), "
        "config.train.remat='block' or 'offload', a larger config.mesh.fsdp, config.mesh.context "
        "for long rows, config.model.quantization='int8', a larger slice"
    ),
    "prefill": _ENGINE,
    "decode": _ENGINE,
}
