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
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from etils import epath

from eef_jax import metrics, store
from eef_jax.errors import ConfigError
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import Example

if TYPE_CHECKING:
    from flax import nnx
    from jax.sharding import Mesh

    from eef_jax.engine.scheduler import Engine
    from eef_jax.models.base import LoraConfig, Model
    from eef_jax.policies.local import LocalPolicy

NANO = str(importlib.resources.files("eef_jax") / "nano" / "base")  # the base that ships


class Learner:
    """A base model, what it was tuned to, and the engine that lets it speak.

    Args:
        config: a run's config; the sections model, mesh, train and engine are read.
    """

    def __init__(self, config: Mapping[str, Any]):
        self._config = config
        self._section = dict(config["model"])

    @functools.cached_property
    def path(self) -> str:
        """Folder of the base model."""
        if self._section["architecture"] and not self._section["path"]:
            raise ConfigError(
                "this preset ships no weights: name its Hugging Face folder with "
                "--config.model.path=FOLDER (eef_jax.compile alone needs none)"
            )
        return self._section["path"] or NANO

    @functools.cached_property
    def chat(self) -> ChatTokenizer:
        """The base model's tokenizer and chat template."""
        return ChatTokenizer.load(self.path)

    def tune(
        self,
        examples: Sequence[Example],
        folder: epath.Path,
        *,
        before: epath.Path | None,
        number: int,
    ) -> dict[str, Any]:
        """Tune on examples and store a checkpoint.

        Args:
            examples: what to learn.
            folder: gets `checkpoint/` and `metrics.jsonl`.
            before: the previous round's folder, read with `train.start = "previous"`.
            number: the round; a part of the data's order.

        Returns:
            JSON facts about the training (steps, tokens, loss, seconds).
        """
        from eef_jax import checkpoint
        from eef_jax.analysis import fitting
        from eef_jax.data.batches import Batches
        from eef_jax.models import layout
        from eef_jax.train import loop
        from eef_jax.train.optim import OptimizerConfig

        section = self._config["train"]
        seed = self._config["seed"]
        model = self._model
        if section["start"] == "previous" and before is not None:
            model = dataclasses.replace(model, trainable=self._trainable(before))
        batches = Batches(
            examples=examples,
            rows=section["rows"],
            length=section["length"],
            seed=1000 * seed + number,
        )
        optimizer = OptimizerConfig(**section["optimizer"])
        accumulate = fitting.accumulate(
            section["micro_batch"],
            model,
            mesh=self._mesh,
            rows=batches.rows,
            length=batches.length,
            learned=batches.targets,
            optimizer=optimizer,
        )
        with metrics.Metrics(folder / "metrics.jsonl") as log:
            trainable, facts = loop.fit(
                model,
                batches,
                mesh=self._mesh,
                optimizer=optimizer,
                epochs=section["epochs"],
                accumulate=accumulate,
                seed=1000 * seed + number,
                progress=sys.stderr.isatty(),
                label=f"tune round {number}",
                log=log.log,
            )
        metadata = checkpoint.Metadata(
            base=self._section["path"],
            base_hash=self._base_hash,
            param_dtype=self._section["param_dtype"],
            quantise=self._section["quantise"],
            lora=self._lora,
            config_hash=store.config_hash(self._config),
            step=facts["steps"],
            facts={"round": number, "seed": seed, "examples": len(examples)},
        )
        checkpoint.save(folder / checkpoint.FOLDER, layout.unstacked(trainable), metadata)
        return {"examples": len(examples), **facts}

    @contextlib.contextmanager
    def policy(
        self, folder: epath.Path | None, sampling: Mapping[str, Any], *, seed: int
    ) -> Iterator["LocalPolicy"]:
        """The policy of a tuned checkpoint, ready to play.

        Args:
            folder: a tune stage's folder, or the checkpoint in it; None for the untuned base.
            sampling: fields of `engine.sampling.Sampling`.
            seed: decides what is drawn, together with each request.
        """
        from eef_jax.engine.sampling import Sampling
        from eef_jax.models import layout
        from eef_jax.policies.local import LocalPolicy

        trainable = self._model.trainable if folder is None else self._trainable(folder)
        self._engine.set_trainable(layout.unstacked(trainable))
        policy = LocalPolicy(
            self._engine,
            self.chat,
            sampling=Sampling(**sampling),
            seed=seed,
            name="base" if folder is None else folder.parent.name,
        )
        try:
            yield policy
        finally:
            asyncio.run(policy.close())

    @functools.cached_property
    def _engine(self) -> "Engine":
        from eef_jax.engine.decode import Shapes
        from eef_jax.engine.scheduler import Engine
        from eef_jax.models import hf

        return Engine(
            hf.unrolled(self._model),
            stop_ids=self.chat.stop_ids,
            shapes=Shapes(**self._config["engine"]),
        )

    @functools.cached_property
    def _lora(self) -> "LoraConfig | None":
        from eef_jax.models import hf, peft
        from eef_jax.models.base import TARGETS, LoraConfig

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

        return sharding.make_mesh(self._config["mesh"])

    @functools.cached_property
    def _model(self) -> "Model":
        from eef_jax.models import hf, peft

        section = self._section
        model = hf.load(
            self.path,
            lora=self._lora,
            dtype=section["dtype"],
            param_dtype=section["param_dtype"],
            quantise=section["quantise"],
            attention=section["attention"],
            scan=section["scan_layers"],
            remat=self._config["train"]["remat"],
            mesh=self._mesh,
            seed=self._config["seed"],
        )
        if not section["adapter"]:
            return model
        adapter = peft.load(section["adapter"], model, mesh=self._mesh)
        return dataclasses.replace(model, trainable=adapter)

    @functools.cached_property
    def _base_hash(self) -> str:
        from eef_jax.models.base import content_hash

        return content_hash(self._model.frozen)

    def _trainable(self, folder: epath.Path) -> "nnx.State":
        from eef_jax import checkpoint
        from eef_jax.models import layout

        # A checkpoint has each layer under its own name, whatever the layout that was trained.
        like = self._model.trainable
        trainable, _ = checkpoint.load_trainable(
            checkpoint.locate(folder), layout.unstacked(like), base_hash=self._base_hash
        )
        return layout.restacked(trainable, like)
