"""A config's programs for a TPU slice: the mesh, the model of shapes, training, prefill, decode.

Knows the sections of a config; describes devices, never touches any.
"""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from eef_jax import kernels, sharding
from eef_jax.analysis import flops, micro_batch, programs
from eef_jax.analysis.chips import Chip, chip_spec
from eef_jax.config.sections import Config, ModelSection
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
    """What was compiled.

    Attributes:
        topology: the slice, such as `v5e:4x4`.
        chip: its kind.
        mesh: of training.
        rollout_mesh: of the engine: the devices of one process.
        shared_base_bytes: bytes on a device of the base if training and rollouts share one copy of
            it; 0 if each has its own.
        cache_bytes: bytes on a device of the engine's pages.
        parameters: of the model.
        batch_size: rows of the global batch.
        seq_len: tokens of a row.
        accumulation_steps: micro-batches.
        expected_flops: FLOPs of a device in a training step, by hand (`flops.hardware_flops`).
        programs: in the order of `PROGRAMS`.
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
        """Bytes on a device while a run goes on, at the time when they are most.

        Training and sampling take turns, but each keeps its copy of the base: spread over all
        devices for the one, whole on each process's devices for the other. The engine's pages are
        there while it samples.
        """
        memory = {one.name: one.memory for one in self.programs}
        return peak_bytes(
            memory, cache_bytes=self.cache_bytes, shared_base_bytes=self.shared_base_bytes
        )


def peak_bytes(
    memory: Mapping[str, programs.Memory], *, cache_bytes: int, shared_base_bytes: int = 0
) -> int:
    """See `Plan.peak_bytes`: of the memory of programs by name."""
    sampling = [memory[name] for name in ENGINE if name in memory]
    if "train" not in memory or not sampling:
        return max(one.total for one in memory.values())
    train, given = memory["train"], max(one.arguments for one in sampling)
    rest = max(one.total - one.arguments for one in sampling)
    return (
        max(train.total + given - cache_bytes, train.arguments + given + rest) - shared_base_bytes
    )


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
        topology: a TPU slice, such as `v5e:4x4`.
        wanted: which of `PROGRAMS`.
        loss_fraction: largest share of a row's tokens that have a loss weight (0-1].

    Raises:
        ConfigError: for an unknown slice, a missing extra, a config that does not fit, or a
            program that does not (`programs.OutOfMemory`).
    """
    devices = topology_devices(topology)
    shape, train = model_config(config.model), config.train
    mesh = sharding.make_mesh(dataclasses.asdict(config.mesh), devices)
    local = sharding.make_mesh(
        dataclasses.asdict(config.rollout_mesh), process_devices(topology, devices)
    )
    tuned = abstract_model(config, shape, mesh, scan_layers=config.model.scan_layers)
    sizes = {
        "batch_size": train.batch_size,
        "seq_len": train.seq_len,
        "max_loss_positions": max(math.ceil(loss_fraction * train.seq_len), 1),
    }
    sampled, chip = abstract_model(config, shape, local, scan_layers=False), chip_spec(devices)
    alike = local == mesh and not config.model.scan_layers
    second = (
        0 if alike or not set(wanted) & set(ENGINE) else memory_lib.bytes_per_device(sampled, local)
    )
    if second:
        memory_lib.check_bytes(
            second, local, used=memory_lib.bytes_per_device(tuned, mesh), limit=chip.hbm_bytes
        )
    parts = micro_batch.accumulation_steps(
        train.micro_batch, tuned, mesh=mesh, optimizer=train.optimizer, reserved=second, **sizes
    )
    engine_config = config.engine
    rows = engine_config.max_num_seqs or MAX_NUM_SEQS[""]
    engine_config = dataclasses.replace(
        engine_config,
        attention=engine_config.attention or kernels.DEFAULT_PAGED["tpu"],
        max_num_seqs=rows,
        num_pages=engine_config.num_pages or rows * engine_config.pages_per_seq,
    )
    make = {
        "train": lambda: programs.train(
            tuned, mesh=mesh, accumulation_steps=parts, optimizer=train.optimizer, **sizes
        ),
        "prefill": lambda: programs.prefill(sampled, mesh=local, engine_config=engine_config),
        "decode": lambda: programs.decode(sampled, mesh=local, engine_config=engine_config),
    }
    return Plan(
        topology=topology,
        chip=chip,
        mesh=mesh,
        rollout_mesh=local,
        shared_base_bytes=memory_lib.bytes_per_device(sampled, local) if alike else 0,
        cache_bytes=programs.cache_bytes(sampled, mesh=local, engine_config=engine_config),
        parameters=flops.count_parameters(tuned),
        batch_size=train.batch_size,
        seq_len=train.seq_len,
        accumulation_steps=parts,
        expected_flops=expected_flops(config, tuned, mesh, **sizes),
        programs=tuple(make[name]() for name in PROGRAMS if name in wanted),
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
    """FLOPs of a device in a training step by hand, with splash attention."""
    load = programs.device_load(mesh, empty_batch(batch_size, seq_len, max_loss_positions))
    share = flops.causal_fraction(seq_len, splash.tile_size(seq_len))
    return flops.hardware_flops(
        model,
        load,
        remat=config.train.remat,
        attention=flops.attention_flops(model.config, load, share=share),
        chunked=max_loss_positions > CHUNK,
    )


def topology_devices(topology: str) -> list[Any]:
    """The devices of a slice that need not be there.

    Raises:
        ConfigError: libtpu is not installed, or knows no such slice.
    """
    # Without it libtpu asks a cloud's metadata server, which no other machine has, for minutes.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # It drives no chip here, so several processes may load it at once, whatever locks others left.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:  # of several types, by what is missing
        text = str(error)
        if "not installed" in text or importlib.util.find_spec("libtpu") is None:
            raise ConfigError(
                "compiling for TPUs needs libtpu, which runs on any Linux machine: "
                "pip install -e '.[tpu-aot]'"
            ) from error
        raise ConfigError(
            f"no TPU slice {topology!r} ({text.splitlines()[0]}): name a chip and its grid, such "
            "as v5e:4x4, v5e:16x16, v6e:4x4 or v5p:2x2x1"
        ) from error


def model_config(section: ModelSection) -> ModelConfig:
    """The model's shape: of its folder's config.json, or of the config's own fields.

    Raises:
        ConfigError: there is neither.
    """
    if section.path:
        return hf.read_config(epath.Path(section.path))
    raw = dict(section.architecture)
    if not raw:
        raise ConfigError(
            "nothing says what model to compile: set config.model.path to a Hugging Face folder "
            "(its config.json is enough), or take a preset with config.model.architecture"
        )
    return family(raw["model_type"]).config_from_hf(raw)


def abstract_model(config: Config, shape: ModelConfig, mesh: Mesh, *, scan_layers: bool) -> Model:
    """The model of a config as shapes, as it lies on a mesh."""
    section = config.model
    options = model_options(
        section,
        section.lora if section.tuning == "lora" else None,
        scan_layers=scan_layers,
        remat=config.train.remat,
    )
    return build.abstract_model(shape, options, mesh=mesh)


def process_devices(topology: str, devices: Sequence[Any]) -> list[Any]:
    """The devices of a slice's process, as a slice of their own: so numbered, programs compile."""
    first = min(device.process_index for device in devices)
    local = [device for device in devices if device.process_index == first]
    if len(local) == len(devices):
        return local
    chip, _, grid = topology.partition(":")
    spans = [len({device.coords[axis] for device in local}) for axis in range(3)]
    return topology_devices(f"{chip}:{'x'.join(map(str, spans[: grid.count('x') + 1]))}")
