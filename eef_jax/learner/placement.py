"""Where a run's base model is: one copy for training, one for rollouts, or one copy for both.

Training spreads the base over the devices of all processes (`config.mesh`). Each process plays on
its own devices (`config.rollout_mesh`) with its own copy, unless both meshes are the same.
"""

import dataclasses
import functools
import os
from typing import Any

import jax
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from eef_jax import bases, sharding
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.config.sections import Config, LoraConfig, ModelSection
from eef_jax.errors import ConfigError
from eef_jax.kernels import resolve_attention
from eef_jax.models import build, memory, stacking
from eef_jax.models.config import ModelConfig, ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.huggingface import peft
from eef_jax.models.model import Model, content_hash
from eef_jax.storage.workdir import find_checkpoint
from eef_jax.text.chat import ChatTokenizer
from eef_jax.train import checkpoint


class Placement:
    """The base model of a run. Nothing is loaded before it is first used.

    Args:
        config: a run's config.
        hosts: the processes of the run.
        compile_cache: folder that compiled programs are kept in for the run's next start, unless
            JAX already has one (`JAX_COMPILATION_CACHE_DIR`). Not used on CPU: programs compiled
            for one processor may use instructions that another one lacks.
    """

    def __init__(
        self,
        config: Config,
        hosts: Hosts = SINGLE_PROCESS,
        *,
        compile_cache: epath.Path | None = None,
    ):
        self._config = config
        self._section = config.model
        self._hosts = hosts
        self._compile_cache = compile_cache
        self._hash: str | None = None

    @functools.cached_property
    def path(self) -> str:
        """Folder of the base model; one on the Hugging Face hub is downloaded first.

        Raises:
            ConfigError: the config names none.
            DataError: it can neither be downloaded nor is in the cache.
        """
        if self._section.architecture and not self._section.path:
            raise ConfigError(
                "this preset ships no weights: name a Hugging Face folder, or a model on the hub, "
                "with --config.model.path=FOLDER (eef_jax.compile alone needs none)"
            )
        return bases.find(self._section.path)

    @functools.cached_property
    def chat(self) -> ChatTokenizer:
        """The base model's tokenizer and chat template."""
        return ChatTokenizer.load(self.path)

    @functools.cached_property
    def lora(self) -> LoraConfig | None:
        """The adapter that is trained; None where all parameters are."""
        section = self._section
        if section.tuning == "full":
            return None
        if not section.adapter:
            return section.lora
        # The stored adapter decides its shape; dropout is not part of it.
        stored = peft.read_config(section.adapter, hf.read_config(epath.Path(self.path)))
        return dataclasses.replace(stored, dropout=section.lora.dropout)

    @functools.cached_property
    def mesh(self) -> Mesh:
        """The devices of all processes, for training."""
        self._set_compile_cache()
        return sharding.make_mesh(dataclasses.asdict(self._config.mesh))

    @functools.cached_property
    def rollout_mesh(self) -> Mesh:
        """The devices of this process, for rollouts."""
        self._set_compile_cache()
        return sharding.make_mesh(
            dataclasses.asdict(self._config.rollout_mesh), jax.local_devices()
        )

    def mesh_sizes(self) -> dict[str, int]:
        """Sizes of both meshes' axes by their config fields."""
        meshes = {"mesh": self.mesh, "rollout_mesh": self.rollout_mesh}
        return {
            f"{name}.{axis}": size
            for name, mesh in meshes.items()
            for axis, size in mesh.shape.items()
        }

    @property
    def attention(self) -> str:
        """The attention of training on its devices."""
        section = self._section
        return resolve_attention(section.attention, self.mesh, section.dtype, self.shape)

    @property
    def shared(self) -> bool:
        """Whether training and rollouts use one copy of the base."""
        return self._hosts.process_count == 1 and self.rollout_mesh == self.mesh

    @functools.cached_property
    def trained(self) -> Model:
        """The base on the mesh of training."""
        return self._load(self.mesh, scan_layers=self._section.scan_layers)

    @functools.cached_property
    def played(self) -> Model:
        """The base on the mesh of rollouts, its layers unstacked."""
        if self.shared:
            return build.unrolled(self.trained)
        memory.check_fits(self.abstract(scan_layers=False), self.rollout_mesh)
        return self._load(self.rollout_mesh, scan_layers=False)

    def base_hash(self, model: Model) -> str:
        """Content hash of the base's frozen parameters, computed once.

        Args:
            model: `trained` or `played`, whichever the caller has: both give the same hash.
        """
        if self._hash is None:
            self._hash = content_hash(model.frozen)
        return self._hash

    def second_copy_bytes(self) -> int:
        """Bytes per device of the rollouts' copy, which stays allocated while training runs."""
        return (
            0
            if self.shared
            else memory.bytes_per_device(self.abstract(scan_layers=False), self.rollout_mesh)
        )

    @functools.cached_property
    def shape(self) -> ModelConfig:
        """The base's shape, from its config.json."""
        return hf.read_config(epath.Path(self.path))

    def abstract(self, *, scan_layers: bool) -> Model:
        """The base's shapes, without values.

        Args:
            scan_layers: whether layers are stacked.
        """
        return hf.abstract_from_folder(self.path, self._options(scan_layers=scan_layers))

    def check_files(self) -> None:
        """Check the base by its config.json and the headers of its tensors; no value is read.

        Raises:
            ConfigError: no family serves it, or the options of tuning do not fit it.
            DataError: files are missing or damaged, or hold other tensors than config.json says.
        """
        hf.check_folder(self.path, self._options(scan_layers=self._section.scan_layers))

    def restore(self, folder: epath.Path, model: Model) -> nnx.State:
        """Load a checkpoint's parameters with the layout and sharding of a copy of the base.

        Args:
            folder: a tune stage's folder, or the checkpoint in it.
            model: `trained` or `played`.

        Raises:
            DataError: the checkpoint is missing, damaged or belongs to another base.
        """
        like = model.trainable
        trainable, _ = checkpoint.load_trainable(
            find_checkpoint(folder), stacking.unstack_state(like), base_hash=self.base_hash(model)
        )
        return stacking.restack_state(trainable, like)

    def metadata(self, model: Model) -> dict[str, Any]:
        """Fields of `train.checkpoint.Metadata` that say which base a checkpoint belongs to.

        Args:
            model: `trained` or `played`, whichever the caller has.
        """
        return {
            "base": self._section.path,
            "base_hash": self.base_hash(model),
            "param_dtype": self._section.param_dtype,
            "quantization": self._section.quantization,
            "lora": self.lora,
        }

    def _options(self, *, scan_layers: bool) -> ModelOptions:
        remat = self._config.train.remat
        return model_options(self._section, self.lora, scan_layers=scan_layers, remat=remat)

    def _load(self, mesh: Mesh, *, scan_layers: bool) -> Model:
        options = self._options(scan_layers=scan_layers)
        model = hf.load(self.path, options, mesh=mesh, seed=self._config.seed)
        if not self._section.adapter:
            return model
        adapter = peft.load(self._section.adapter, model, mesh=mesh)
        return dataclasses.replace(model, trainable=adapter)

    def _set_compile_cache(self) -> None:
        # JAX reads the setting once, when it compiles for the first time: before any program.
        configured = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # dynamic
        on_cpu = jax.default_backend() == "cpu"
        if self._compile_cache is not None and not configured and not on_cpu:
            jax.config.update("jax_compilation_cache_dir", os.fspath(self._compile_cache))


def model_options(
    section: ModelSection, lora: LoraConfig | None, *, scan_layers: bool, remat: str
) -> ModelOptions:
    """Options of a model from the config's section `model`.

    Args:
        section: dtype, param_dtype, quantization and attention are read.
        lora: the adapter; None for full tuning.
        scan_layers: whether layers are stacked and scanned over.
        remat: name in `models.remat.POLICIES`.
    """
    return ModelOptions(
        lora=lora,
        dtype=section.dtype,
        param_dtype=section.param_dtype,
        quantization=section.quantization,
        attention=section.attention,
        scan_layers=scan_layers,
        remat=remat,
    )
