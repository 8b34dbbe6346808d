"""The policy as the pipeline uses it: tuned on examples, stored, loaded again and asked to play.

Ties model, tokenizer, training loop, checkpoints and engine together for one config. Everything
heavy is made on first use, so stages that need no accelerator never load one. Knows no environment,
method or round beyond the numbers it is given.
"""

import asyncio
import contextlib
import dataclasses
import functools
import importlib.resources
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from eef_jax.cluster.hosts import ALONE, Hosts
from eef_jax.errors import ConfigError, near
from eef_jax.storage import metrics
from eef_jax.storage.provenance import config_hash
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import Example

if TYPE_CHECKING:
    from flax import nnx
    from jax.sharding import Mesh

    from eef_jax.data.stored import Stored
    from eef_jax.engine.engine import Engine
    from eef_jax.models.config import LoraConfig
    from eef_jax.models.model import Model
    from eef_jax.policies.local import LocalPolicy

_BASES = importlib.resources.files("eef_jax") / "bases"  # those that ship, a folder each
NANO = str(_BASES / "webshop")  # the one for WebShop


def find_base(path: str) -> str:
    """Folder of a base model.

    Args:
        path: a Hugging Face folder; `nano:NAME`, a base that ships with the package; "": the one
            that ships for WebShop.

    Raises:
        ConfigError: no base of that name ships.
    """
    if not path.startswith("nano:"):
        return path or NANO
    name = path.removeprefix("nano:")
    bases = sorted(found.name for found in _BASES.iterdir() if (found / "config.json").is_file())
    if name not in bases:
        raise ConfigError(
            f"config.model.path is {path!r}, and no such base ships; {near(name, bases)}. Make one "
            "with python -m pretrain.main --course=COURSE --out=FOLDER, and name its folder"
        )
    return str(_BASES / name)


class Learner:
    """A base model, what it was tuned to, and the engine that lets it speak.

    Args:
        config: a run's config; the sections model, mesh, local_mesh, train and engine are read.
        hosts: the processes of the run. They tune together, on one mesh; each plays by itself, on
            its own devices, with a copy of the base of its own unless that lies as the other does.
        compiled: folder that programs are kept in for the run's next start, where JAX was given
            none (`JAX_COMPILATION_CACHE_DIR`). Not on CPU: another processor that finds the folder
            might not know the instructions of the one that filled it.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        hosts: Hosts = ALONE,
        *,
        compiled: epath.Path | None = None,
    ):
        self._config = config
        self._hosts = hosts
        self._compiled = compiled
        self._section = dict(config["model"])
        self._hash: str | None = None

    @functools.cached_property
    def path(self) -> str:
        """Folder of the base model."""
        if self._section["architecture"] and not self._section["path"]:
            raise ConfigError(
                "this preset ships no weights: name its Hugging Face folder with "
                "--config.model.path=FOLDER (eef_jax.compile alone needs none)"
            )
        return find_base(self._section["path"])

    @functools.cached_property
    def chat(self) -> ChatTokenizer:
        """The base model's tokenizer and chat template."""
        return ChatTokenizer.load(self.path)

    def tune(
        self,
        examples: "Sequence[Example] | Stored",
        folder: epath.Path,
        *,
        before: epath.Path | None,
        number: int,
    ) -> dict[str, Any]:
        """Tune on examples and store a checkpoint; all processes call this.

        Args:
            examples: what to learn; of stored ones a process reads those of its own rows.
            folder: gets `checkpoint/` and `metrics.jsonl`.
            before: the previous round's folder, read with `train.start = "previous"`.
            number: the round; a part of the data's order.

        Returns:
            JSON facts about the training (steps, tokens, loss, seconds).
        """
        from eef_jax import sharding
        from eef_jax.analysis import micro_batch
        from eef_jax.data.batches import Batches
        from eef_jax.models import stacking
        from eef_jax.train import checkpoint, loop
        from eef_jax.train.optim import OptimizerConfig

        section = self._config["train"]
        seed = self._config["seed"]
        model = self._model
        if section["start"] == "previous" and before is not None:
            model = dataclasses.replace(model, trainable=self._trainable(before, model))
        batches = Batches(
            examples=examples,
            rows=section["rows"],
            length=section["length"],
            seed=1000 * seed + number,
            own=sharding.own_rows(self._mesh, section["rows"]),
        )
        if "_engine" in vars(self):  # it was made
            self._engine.release()
        optimizer = OptimizerConfig(**section["optimizer"])
        accumulate = micro_batch.accumulate(
            section["micro_batch"],
            model,
            mesh=self._mesh,
            rows=batches.rows,
            length=batches.length,
            learned=batches.targets,
            optimizer=optimizer,
            beside=self._second(),
        )
        lead = self._hosts.lead
        with metrics.Metrics(folder / "metrics.jsonl" if lead else None) as log:
            trainable, facts = loop.fit(
                model,
                batches,
                mesh=self._mesh,
                optimizer=optimizer,
                epochs=section["epochs"],
                accumulate=accumulate,
                seed=1000 * seed + number,
                progress=lead and sys.stderr.isatty(),
                label=f"tune round {number}",
                log=log.log,
            )
        metadata = checkpoint.Metadata(
            base=self._section["path"],
            base_hash=self._base_hash(model),
            param_dtype=self._section["param_dtype"],
            quantise=self._section["quantise"],
            lora=self._lora,
            config_hash=config_hash(self._config),
            step=facts["steps"],
            facts={"round": number, "seed": seed, "examples": len(examples)},
        )
        checkpoint.save(folder / checkpoint.FOLDER, stacking.unstacked(trainable), metadata)
        return {"examples": len(examples), **facts}

    @contextlib.contextmanager
    def policy(
        self, folder: epath.Path | None, sampling: Mapping[str, Any], *, seed: int
    ) -> Iterator["LocalPolicy"]:
        """The policy of a tuned checkpoint, ready to play.

        Args:
            folder: a tune stage's folder, or the checkpoint in it; None for the untuned base.
            sampling: fields of `engine.sampling.Sampling`; `stop` are texts that end an answer.
            seed: decides what is drawn, together with each request.
        """
        from eef_jax.engine.sampling import Sampling
        from eef_jax.policies.local import LocalPolicy

        engine, player = self._engine, self._player
        adapter = engine.base if folder is None else engine.load(self._trainable(folder, player))
        options = dict(sampling)
        policy = LocalPolicy(
            engine,
            self.chat,
            stop=tuple(options.pop("stop", ())),
            sampling=Sampling(**options),
            seed=seed,
            name="base" if folder is None else folder.parent.name,
            adapter=adapter,
        )
        try:
            yield policy
        finally:
            asyncio.run(policy.close())
            if adapter is not engine.base:
                engine.unload(adapter)

    @functools.cached_property
    def _engine(self) -> "Engine":
        from eef_jax.engine.config import Shapes
        from eef_jax.engine.engine import Engine

        return Engine(
            self._player, stop_ids=self.chat.stop_ids, shapes=Shapes(**self._config["engine"])
        )

    @functools.cached_property
    def _lora(self) -> "LoraConfig | None":
        from eef_jax.models.config import TARGETS, LoraConfig
        from eef_jax.models.huggingface import folder as hf
        from eef_jax.models.huggingface import peft

        section = dict(self._section["lora"])
        adapter = self._section["adapter"]
        if not section.pop("enable"):
            if adapter:
                raise ConfigError(
                    f"config.model.adapter = {adapter!r} is tuned on as an adapter, but "
                    "config.model.lora.enable is False: set it to True"
                )
            return None
        if adapter:
            stored = peft.read_config(adapter, hf.read_config(epath.Path(self.path)))
            return dataclasses.replace(stored, dropout=section["dropout"])
        targets = section.pop("targets")
        chosen = TARGETS if targets == "all" else tuple(targets.split(","))
        return LoraConfig(targets=chosen, **section)

    @functools.cached_property
    def _mesh(self) -> "Mesh":
        from eef_jax import sharding

        self._keep_compiled()
        return sharding.make_mesh(self._config["mesh"])

    @functools.cached_property
    def _model(self) -> "Model":
        """The base as it is tuned, over the devices of all processes."""
        return self._load(self._mesh, scan=self._section["scan_layers"])

    @functools.cached_property
    def _player(self) -> "Model":
        """The base as it plays, on this process's devices: the same copy if that lies alike."""
        from eef_jax.models import memory
        from eef_jax.models.huggingface import folder as hf

        if self._alike:
            return hf.unrolled(self._model)
        memory.check(self._outline, self._local_mesh)
        return self._load(self._local_mesh, scan=False)

    @functools.cached_property
    def _local_mesh(self) -> "Mesh":
        import jax

        from eef_jax import sharding

        self._keep_compiled()
        return sharding.make_mesh(self._config["local_mesh"], jax.local_devices())

    def _keep_compiled(self) -> None:
        """See `compiled`; JAX looks once, when it compiles for the first time."""
        import jax

        told = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]  # made at run time
        if self._compiled is not None and not told and jax.default_backend() != "cpu":
            jax.config.update("jax_compilation_cache_dir", os.fspath(self._compiled))

    @property
    def _alike(self) -> bool:
        """Whether the base plays where it is tuned, so that one copy does for both."""
        return self._hosts.processes == 1 and self._local_mesh == self._mesh

    @property
    def _outline(self) -> "Model":
        """The base's shapes."""
        from eef_jax.models.huggingface import folder as hf

        options = {name: self._section[name] for name in ("param_dtype", "quantise")}
        return hf.outline(self.path, lora=self._lora, **options)

    def _second(self) -> int:
        """Bytes on a device of the copy that plays, which stays there during training."""
        from eef_jax.models import memory

        return 0 if self._alike else memory.needed(self._outline, self._local_mesh)

    def _load(self, mesh: "Mesh", *, scan: bool) -> "Model":
        from eef_jax.models.huggingface import folder as hf
        from eef_jax.models.huggingface import peft

        section = self._section
        model = hf.load(
            self.path,
            lora=self._lora,
            dtype=section["dtype"],
            param_dtype=section["param_dtype"],
            quantise=section["quantise"],
            attention=section["attention"],
            scan=scan,
            remat=self._config["train"]["remat"],
            mesh=mesh,
            seed=self._config["seed"],
        )
        if not section["adapter"]:
            return model
        adapter = peft.load(section["adapter"], model, mesh=mesh)
        return dataclasses.replace(model, trainable=adapter)

    def _base_hash(self, model: "Model") -> str:
        """Hash of the base, of which `model` is one of the two copies: both give the same."""
        from eef_jax.models.model import content_hash

        if self._hash is None:
            self._hash = content_hash(model.frozen)
        return self._hash

    def _trainable(self, folder: epath.Path, model: "Model") -> "nnx.State":
        """A checkpoint's parameters, where those of `model` lie."""
        from eef_jax.models import stacking
        from eef_jax.train import checkpoint

        # A checkpoint has each layer under its own name, whatever the layout that was trained.
        like = model.trainable
        trainable, _ = checkpoint.load_trainable(
            checkpoint.locate(folder), stacking.unstacked(like), base_hash=self._base_hash(model)
        )
        return stacking.restacked(trainable, like)
