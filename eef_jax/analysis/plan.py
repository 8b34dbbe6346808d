"""From a config and a TPU topology to its compiled programs: training, prefill and decode.

Builds meshes of a topology's devices and abstract models on them; no device is used and no weight
is read.
"""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from eef_jax import bases, kernels, sharding
from eef_jax.analysis import flops, micro_batch, programs
from eef_jax.analysis.chips import Chip, chip_spec
from eef_jax.config.sections import Config, EngineConfig, ModelSection
from eef_jax.data.batches import empty_batch
from eef_jax.engine.config import MAX_NUM_SEQS
from eef_jax.errors import ConfigError
from eef_jax.kernels import splash
from eef_jax.learner.placement import model_options
from eef_jax.models import build
from eef_jax.models import memory as memory_lib
from eef_jax.models.config import ModelConfig
from eef_jax.models.families.registry import family
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model
from eef_jax.train.step import CHUNK

ENGINE = ("prefill", "decode")
PROGRAMS = ("train", *ENGINE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A config's compiled programs on a slice.

    Attributes:
        topology: name of the slice, such as `v5e:4x4`.
        chip: specification of its chips.
        mesh: mesh of training, over all devices.
        rollout_mesh: mesh of the engine, over the devices of one process.
        shared_base_bytes: bytes per device of the base if training and rollouts share one copy of
            it; 0 if each has its own.
        cache_bytes: bytes per device of the engine's KV cache.
        parameters: number of parameters of the model.
        batch_size: rows of the global batch.
        seq_len: tokens per row.
        accumulation_steps: micro-batches per optimizer step.
        expected_flops: analytic FLOPs per device of a training step (`flops.hardware_flops`).
        programs: the compiled programs, in the order of `PROGRAMS`.
    """

    topology: str
    chip: Chip
    mesh: Mesh
    rollout_mesh: Mesh
    shared_base_bytes: int
    cache_bytes: int
    parameters: int
    batch_size: int
    seq_len: int
    accumulation_steps: int
    expected_flops: float
    programs: tuple[programs.Program, ...]

    @property
    def peak_bytes(self) -> float:
        """Peak bytes per device over a run that alternates training and sampling.

        Each keeps its copy of the base: training's is sharded over all devices, the engine's over
        those of one process. The KV cache is allocated only while the engine samples.
        """
        memory = {one.name: one.memory for one in self.programs}
        return peak_bytes(
            memory, cache_bytes=self.cache_bytes, shared_base_bytes=self.shared_base_bytes
        )


def peak_bytes(
    memory: Mapping[str, programs.Memory], *, cache_bytes: int, shared_base_bytes: int = 0
) -> int:
    """Peak bytes per device of a run, as `Plan.peak_bytes` describes it.

    Args:
        memory: memory of each program that was compiled, by name.
        cache_bytes: bytes per device of the KV cache, which is among the engine's arguments.
        shared_base_bytes: bytes per device of the base if both share one copy; otherwise 0.
    """
    sampling = [memory[name] for name in ENGINE if name in memory]
    if "train" not in memory or not sampling:
        return max(one.total for one in memory.values())
    train, engine_arguments = memory["train"], max(one.arguments for one in sampling)
    engine_rest = max(one.total - one.arguments for one in sampling)
    # While one of them runs, the other's arguments (its base and adapter) stay allocated.
    while_training = train.total + engine_arguments - cache_bytes
    while_sampling = train.arguments + engine_arguments + engine_rest
    return max(while_training, while_sampling) - shared_base_bytes


def plan(
    config: Config,
    topology: str,
    *,
    wanted: Sequence[str] = PROGRAMS,
    loss_fraction: float = 1.0,
) -> Plan:
    """Compile a config's programs for a slice.

    Args:
        config: the run's config.
        topology: name of a TPU slice, such as `v5e:4x4`.
        wanted: the programs to compile, out of `PROGRAMS`.
        loss_fraction: largest share of a row's tokens that have a loss weight, in (0, 1].

    Raises:
        ConfigError: the slice is unknown, an extra is missing, the config's sizes do not divide,
            or a program does not fit (`programs.OutOfMemory`).
    """
    devices = topology_devices(topology)
    chip, train, engine = chip_spec(devices), config.train, resolved_engine(config.engine)
    models = _abstract_models(config, topology, devices)
    samples = bool(set(wanted) & set(ENGINE))
    # Checked before anything is compiled, which takes minutes.
    reserved = _check_second_copy(models, chip) if samples and not models.shared else 0
    sizes: dict[str, Any] = {
        "batch_size": train.batch_size,
        "seq_len": train.seq_len,
        "max_loss_positions": max(math.ceil(loss_fraction * train.seq_len), 1),
    }
    accumulation_steps = micro_batch.accumulation_steps(
        train.micro_batch,
        models.trained,
        mesh=models.mesh,
        optimizer=train.optimizer,
        reserved=reserved,
        **sizes,
    )
    compilers: dict[str, Callable[[], programs.Program]] = {
        "train": lambda: programs.train(
            models.trained,
            mesh=models.mesh,
            accumulation_steps=accumulation_steps,
            optimizer=train.optimizer,
            **sizes,
        ),
        "prefill": lambda: programs.prefill(
            models.played, mesh=models.rollout_mesh, engine_config=engine
        ),
        "decode": lambda: programs.decode(
            models.played, mesh=models.rollout_mesh, engine_config=engine
        ),
    }
    return Plan(
        topology=topology,
        chip=chip,
        mesh=models.mesh,
        rollout_mesh=models.rollout_mesh,
        shared_base_bytes=models.base_bytes if models.shared else 0,
        cache_bytes=programs.cache_bytes(
            models.played, mesh=models.rollout_mesh, engine_config=engine
        ),
        parameters=flops.count_parameters(models.trained),
        batch_size=train.batch_size,
        seq_len=train.seq_len,
        accumulation_steps=accumulation_steps,
        expected_flops=expected_flops(config, models.trained, models.mesh, **sizes),
        programs=tuple(compilers[name]() for name in PROGRAMS if name in wanted),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Models:
    """A run's two abstract copies of the model and their meshes.

    Attributes:
        trained: the copy of training.
        mesh: mesh of training, over all devices.
        played: the copy of the engine.
        rollout_mesh: mesh of the engine, over the devices of one process.
        shared: whether one copy serves both.
    """

    trained: Model
    mesh: Mesh
    played: Model
    rollout_mesh: Mesh
    shared: bool

    @property
    def base_bytes(self) -> int:
        """Bytes per device of the engine's copy."""
        return memory_lib.bytes_per_device(self.played, self.rollout_mesh)


def _abstract_models(config: Config, topology: str, devices: Sequence[Any]) -> _Models:
    mesh = sharding.make_mesh(dataclasses.asdict(config.mesh), devices)
    rollout_mesh = sharding.make_mesh(
        dataclasses.asdict(config.rollout_mesh), process_devices(topology, devices)
    )
    shape, scan_layers = model_config(config.model), config.model.scan_layers
    return _Models(
        trained=abstract_model(config, shape, mesh, scan_layers=scan_layers),
        mesh=mesh,
        # The engine's layers are never stacked: each has its own part of the KV cache.
        played=abstract_model(config, shape, rollout_mesh, scan_layers=False),
        rollout_mesh=rollout_mesh,
        shared=rollout_mesh == mesh and not scan_layers,
    )


def _check_second_copy(models: _Models, chip: Chip) -> int:
    """Bytes per device of the engine's copy, which must fit next to that of training."""
    memory_lib.check_bytes(
        models.base_bytes,
        models.rollout_mesh,
        used=memory_lib.bytes_per_device(models.trained, models.mesh),
        limit=chip.hbm_bytes,
    )
    return models.base_bytes


def resolved_engine(engine: EngineConfig) -> EngineConfig:
    """The engine's sizes with the open ones filled in for a TPU.

    A run fills them in by the free memory of its devices, which a slice that is not attached does
    not have: here every row gets the pages of a full context.
    """
    rows = engine.max_num_seqs or MAX_NUM_SEQS[""]
    return dataclasses.replace(
        engine,
        attention=engine.attention or kernels.DEFAULT_PAGED["tpu"],
        max_num_seqs=rows,
        num_pages=engine.num_pages or rows * engine.pages_per_seq,
    )


def expected_flops(
    config: Config,
    model: Model,
    mesh: Mesh,
    *,
    batch_size: int,
    seq_len: int,
    max_loss_positions: int,
) -> float:
    """Analytic FLOPs per device of a training step with splash attention."""
    load = programs.device_load(mesh, empty_batch(batch_size, seq_len, max_loss_positions))
    fraction = flops.causal_fraction(seq_len, splash.tile_size(seq_len))
    return flops.hardware_flops(
        model,
        load,
        remat=config.train.remat,
        attention=flops.attention_flops(model.config, load, share=fraction),
        chunked=max_loss_positions > CHUNK,
    )


def topology_devices(topology: str) -> list[Any]:
    """The devices of a slice, which need not be attached.

    Raises:
        ConfigError: libtpu is not installed, or does not have this slice.
    """
    # Otherwise libtpu waits for minutes for a metadata server, which only cloud machines have.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # It uses no chip here, so the lock that keeps a second process from loading it is not needed.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # the type depends on what is missing
        text = str(error)
        if "not installed" in text or importlib.util.find_spec("libtpu") is None:
            raise ConfigError(
                "compiling for TPUs needs libtpu, which runs on any Linux machine: "
                "pip install -e '.[tpu-aot]'"
            ) from error
        raise ConfigError(
            f"no TPU slice {topology!r} ({text.splitlines()[0]}): expected a chip and its grid, "
            "such as v5e:4x4, v5e:16x16, v6e:4x4 or v5p:2x2x1"
        ) from error


def model_config(section: ModelSection) -> ModelConfig:
    """The model's shape, from the config.json in its folder or from `model.architecture`.

    Raises:
        ConfigError: the config names neither.
    """
    if section.path:
        return hf.read_config(epath.Path(bases.find(section.path, weights=False)))
    raw = dict(section.architecture)
    if not raw:
        raise ConfigError(
            "the config names no model to compile: set config.model.path to a Hugging Face folder "
            "(its config.json is enough) or a model on the hub, or take a preset with "
            "config.model.architecture"
        )
    return family(raw["model_type"]).config_from_hf(raw)


def abstract_model(config: Config, shape: ModelConfig, mesh: Mesh, *, scan_layers: bool) -> Model:
    """The config's model without values: shapes, dtypes and their shardings on a mesh."""
    section = config.model
    options = model_options(
        section,
        section.lora if section.tuning == "lora" else None,
        scan_layers=scan_layers,
        remat=config.train.remat,
    )
    return build.abstract_model(shape, options, mesh=mesh)


def process_devices(topology: str, devices: Sequence[Any]) -> list[Any]:
    """The devices of one process of a slice.

    They are numbered as a slice of that size, because the compiler refuses a mesh of only some of
    a topology's devices.
    """
    first = min(device.process_index for device in devices)
    local = [device for device in devices if device.process_index == first]
    if len(local) == len(devices):
        return local
    chip, _, grid = topology.partition(":")
    spans = [len({device.coords[axis] for device in local}) for axis in range(3)]
    return topology_devices(f"{chip}:{'x'.join(map(str, spans[: grid.count('x') + 1]))}")
