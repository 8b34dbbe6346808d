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
from eef_jax.analysis.chips import Chip, chip_of
from eef_jax.data.batches import empty
from eef_jax.engine.config import MAX_NUM_SEQS, EngineConfig
from eef_jax.errors import ConfigError
from eef_jax.kernels import splash
from eef_jax.learner.placement import lora_of
from eef_jax.models import memory as memory_lib
from eef_jax.models.config import ModelConfig
from eef_jax.models.families.registry import family
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model
from eef_jax.train.optim import OptimizerConfig
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
        local: of the engine: the devices of one process.
        common: bytes on a device that training and the engine both use: the base, where it lies
            alike for both; 0 where each has its copy.
        cache: bytes on a device of the engine's pages.
        parameters: of the model.
        rows: of the global batch.
        length: tokens of a row.
        accumulate: micro-batches.
        expected: FLOPs of a device in a training step, by hand (`flops.done`).
        programs: in the order of `PROGRAMS`.
    """

    topology: str
    chip: Chip
    mesh: Mesh
    local: Mesh
    common: int
    cache: int
    parameters: int
    rows: int
    length: int
    accumulate: int
    expected: float
    programs: tuple[programs.Program, ...]

    @property
    def resident(self) -> float:
        """Bytes on a device while a run goes on, at the time when they are most.

        Training and sampling take turns, but each keeps its copy of the base: spread over all
        devices for the one, whole on each process's devices for the other. The engine's pages are
        there while it samples.
        """
        memory = {one.name: one.memory for one in self.programs}
        return resident(memory, cache=self.cache, common=self.common)


def resident(memory: Mapping[str, programs.Memory], *, cache: int, common: int = 0) -> int:
    """See `Plan.resident`: of the memory of programs by name."""
    sampling = [memory[name] for name in ENGINE if name in memory]
    if "train" not in memory or not sampling:
        return max(one.total for one in memory.values())
    train, given = memory["train"], max(one.arguments for one in sampling)
    rest = max(one.total - one.arguments for one in sampling)
    return max(train.total + given - cache, train.arguments + given + rest) - common


def plan(
    config: Mapping[str, Any],
    topology: str,
    *,
    wanted: Sequence[str] = PROGRAMS,
    learned: float = 1.0,
) -> Plan:
    """Compile a config's programs for a slice.

    Args:
        config: plain sections, as in `configs/common.py`.
        topology: a TPU slice, such as `v5e:4x4`.
        wanted: which of `PROGRAMS`.
        learned: share of a row's tokens that may be learned (0-1].

    Raises:
        ConfigError: for an unknown slice, a missing extra, a config that does not fit, or a
            program that does not (`programs.OutOfMemory`).
    """
    devices = described(topology)
    shape, train = shape_of(config["model"]), config["train"]
    mesh = sharding.make_mesh(config["mesh"], devices)
    local = sharding.make_mesh(config["local_mesh"], of_one_process(topology, devices))
    optimizer = OptimizerConfig(**train["optimizer"])
    tuned = model_of(config, shape, mesh, scan=config["model"]["scan_layers"])
    sizes = {
        "rows": train["rows"],
        "length": train["length"],
        "learned": max(math.ceil(learned * train["length"]), 1),
    }
    sampled, chip = model_of(config, shape, local, scan=False), chip_of(devices)
    alike = local == mesh and not config["model"]["scan_layers"]
    second = 0 if alike or not set(wanted) & set(ENGINE) else memory_lib.needed(sampled, local)
    if second:
        memory_lib.beside(second, local, used=memory_lib.needed(tuned, mesh), limit=chip.memory)
    parts = micro_batch.accumulate(
        train["micro_batch"], tuned, mesh=mesh, optimizer=optimizer, beside=second, **sizes
    )
    engine_config = EngineConfig(**config["engine"])
    rows = engine_config.max_num_seqs or MAX_NUM_SEQS[""]
    engine_config = dataclasses.replace(
        engine_config,
        attention=engine_config.attention or kernels.SUITED["tpu"],
        max_num_seqs=rows,
        num_pages=engine_config.num_pages or rows * engine_config.pages_per_seq,
    )
    make = {
        "train": lambda: programs.train(
            tuned, mesh=mesh, accumulate=parts, optimizer=optimizer, **sizes
        ),
        "prefill": lambda: programs.prefill(sampled, mesh=local, engine_config=engine_config),
        "decode": lambda: programs.decode(sampled, mesh=local, engine_config=engine_config),
    }
    return Plan(
        topology=topology,
        chip=chip,
        mesh=mesh,
        local=local,
        common=memory_lib.needed(sampled, local) if alike else 0,
        cache=programs.cache_bytes(sampled, mesh=local, engine_config=engine_config),
        parameters=flops.parameters(tuned),
        rows=train["rows"],
        length=train["length"],
        accumulate=parts,
        expected=expected(config, tuned, mesh, **sizes),
        programs=tuple(make[name]() for name in PROGRAMS if name in wanted),
    )


def expected(
    config: Mapping[str, Any], model: Model, mesh: Mesh, *, rows: int, length: int, learned: int
) -> float:
    """FLOPs of a device in a training step by hand, with splash attention."""
    load = programs.load(mesh, empty(rows, length, learned))
    share = flops.seen(length, splash.block(length))
    return flops.done(
        model,
        load,
        remat=config["train"]["remat"],
        attention=flops.attention(model.config, load, share=share),
        chunked=learned > CHUNK,
    )


def described(topology: str) -> list[Any]:
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
                "pip install 'eef-jax[tpu-aot]'"
            ) from error
        raise ConfigError(
            f"no TPU slice {topology!r} ({text.splitlines()[0]}): name a chip and its grid, such "
            "as v5e:4x4, v5e:16x16, v6e:4x4 or v5p:2x2x1"
        ) from error


def shape_of(section: Mapping[str, Any]) -> ModelConfig:
    """The model's shape: of its folder's config.json, or of the config's own fields.

    Raises:
        ConfigError: there is neither.
    """
    if section["path"]:
        return hf.read_config(epath.Path(section["path"]).expanduser())
    raw = dict(section["architecture"])
    if not raw:
        raise ConfigError(
            "nothing says what model to compile: set config.model.path to a Hugging Face folder "
            "(its config.json is enough), or take a preset with config.model.architecture"
        )
    return family(raw["model_type"]).config_from_hf(raw)


def model_of(config: Mapping[str, Any], shape: ModelConfig, mesh: Mesh, *, scan: bool) -> Model:
    """The model of a config as shapes, as it lies on a mesh."""
    section = config["model"]
    return hf.abstract(
        shape,
        lora=lora_of(section["lora"]),
        dtype=section["dtype"],
        param_dtype=section["param_dtype"],
        quantization=section["quantization"],
        attention=kernels.chosen(section["attention"], mesh, section["dtype"], shape),
        scan=scan,
        remat=config["train"]["remat"],
    )


def of_one_process(topology: str, devices: Sequence[Any]) -> list[Any]:
    """The devices of a slice's process, as a slice of their own: so numbered, programs compile."""
    first = min(device.process_index for device in devices)
    local = [device for device in devices if device.process_index == first]
    if len(local) == len(devices):
        return local
    chip, _, grid = topology.partition(":")
    spans = [len({device.coords[axis] for device in local}) for axis in range(3)]
    return described(f"{chip}:{'x'.join(map(str, spans[: grid.count('x') + 1]))}")
