"""The programs of a run, compiled ahead of time for described devices, and what they take.

A program that does not fit is an error with the compiler's own reason and the settings that help.
Knows configs' parts as arguments; prints nothing.
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
        model_flops: FLOPs of one device that the task asks for.
        seconds: that compiling took.
    """

    name: str
    memory: Memory
    counts: count.ProgramCounts
    roofline: Roofline
    model_flops: float
    seconds: float


class OutOfMemory(ConfigError):
    """A program does not fit its devices' memory."""


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
        model: abstract.
        mesh: of described or real devices.
        batch_size: rows of the global batch.
        seq_len: tokens of a row.
        max_loss_positions: learned tokens of a row at most.
        accumulation_steps: micro-batches.
        optimizer: by default AdamW.

    Raises:
        OutOfMemory: it does not fit.
    """
    transform = make_optimizer(optimizer or OptimizerConfig(), 1000)
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
    return flops.DeviceLoad(
        tokens=rows * seq_len / (mesh.size / mesh.shape["tensor"]),
        loss_positions=rows * batch["loss_positions"].shape[1] / (mesh.size / mesh.shape["tensor"]),
        seq_len=seq_len,
        share=1 / mesh.shape["tensor"],
    )


def prefill(model: Model, *, mesh: Mesh, engine_config: EngineConfig) -> Program:
    """Compile the engine's prefill, of runs that lie as deep as a conversation can.

    Args:
        model: abstract.
        mesh: of one process's devices.
        engine_config: sizes of the engine, all resolved.

    Raises:
        OutOfMemory: it does not fit.
    """
    functions = EngineFunctions(model, engine_config)
    inputs = empty_prefill(engine_config, engine_config.pages_per_seq)
    lowered = _lowered_on_cache(functions.prefill, model, mesh, engine_config, *inputs)
    model_flops = (
        2.0 * flops.parameter_counts(model).body * engine_config.prefill_tokens / mesh.size
    )
    return compile_and_analyze("prefill", lowered, mesh, model_flops=model_flops)


def decode(model: Model, *, mesh: Mesh, engine_config: EngineConfig) -> Program:
    """Compile the engine's decoding of one token for every slot; arguments as for `prefill`.

    Raises:
        OutOfMemory: it does not fit.
    """
    functions = EngineFunctions(model, engine_config)
    inputs = DecodeInputs.empty(engine_config)
    lowered = _lowered_on_cache(functions.decode_step, model, mesh, engine_config, inputs)
    n = flops.parameter_counts(model)
    model_flops = 2.0 * (n.body + n.head) * engine_config.max_num_seqs / mesh.size
    return compile_and_analyze("decode", lowered, mesh, model_flops=model_flops)


def _lowered_on_cache(
    run: Callable[..., Any], model: Model, mesh: Mesh, engine_config: EngineConfig, *rest: Any
) -> jax.stages.Lowered:
    """Lower a program of the engine, (cache, frozen, adapter, ...), on a mesh."""

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        return _placed(leaf, [None] * leaf.ndim, mesh)

    states = [
        jax.tree.leaves(sharding.abstract_tree(state, mesh))
        for state in (model.frozen, model.trainable)
    ]
    small = [jax.tree.map(placed, part) for part in rest]
    with jax.set_mesh(mesh):
        jitted = jax.jit(run, donate_argnums=0)
        return jitted.lower(_cache(model, mesh, engine_config), *states, *small)


def cache_bytes(model: Model, *, mesh: Mesh, engine_config: EngineConfig) -> int:
    """Bytes on one device of the engine's pages."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(_cache(model, mesh, engine_config))
    )


def _cache(model: Model, mesh: Mesh, engine_config: EngineConfig) -> Any:
    """The engine's pages as shapes on a mesh."""
    make = functools.partial(
        init_cache,
        model.config,
        num_pages=engine_config.num_pages,
        page_size=engine_config.page_size,
        dtype=model.decoder.dtype,
        attention=engine_config.attention,
    )
    cache = jax.eval_shape(make)
    return jax.tree.map(lambda leaf: _placed(leaf, CACHE_AXES, mesh), cache)


def _placed(leaf: Any, axes: Sequence[str | None], mesh: Mesh) -> jax.ShapeDtypeStruct:
    lies = NamedSharding(mesh, sharding.partition_spec(axes, leaf.shape, mesh))
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=lies)


def compile_and_analyze(
    name: str, lowered: jax.stages.Lowered, mesh: Mesh, *, model_flops: float
) -> Program:
    """Compile and account for a program on TPUs.

    Raises:
        OutOfMemory: it does not fit.
    """
    began = time.monotonic()
    program = compile_lowered(name, lowered)
    seconds = time.monotonic() - began
    counts = count.count_program(hlo.parse(program.as_text() or ""), kernel=kernels.flops)
    where = chips.slice_topology(list(mesh.devices.flat))
    return Program(
        name=name,
        memory=memory_usage(program),
        counts=counts,
        roofline=roofline(counts, where, model_flops=model_flops),
        model_flops=model_flops,
        seconds=seconds,
    )


def compile_lowered(name: str, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
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
            f"the {name} program does not fit: {oom_reason(str(error))}\n{HELP[name]}"
        ) from error


def oom_reason(error: str) -> str:
    """The compiler's own sentence on memory, without the list of buffers."""
    found = re.search(r"(Ran out of memory[^\n]*|Used [^\n]*)", error)
    used = re.search(r"Used [^\n]*", error)
    lines = [found[1]] if found else [error.splitlines()[0]]
    if used and used[0] not in lines[0]:
        lines.append(used[0].strip())
    return " ".join(lines)


def memory_usage(program: jax.stages.Compiled) -> Memory:
    """The compiler's account of a program's memory on one device."""
    stats: Any = program.memory_analysis()
    return Memory(
        arguments=stats.argument_size_in_bytes,
        temporaries=stats.temp_size_in_bytes,
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
