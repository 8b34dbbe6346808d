"""From examples to a checkpoint: the training run of one round."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from eef_jax import sharding
from eef_jax.analysis import micro_batch
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.config.sections import TrainSection
from eef_jax.data.batches import Batches, order_seed
from eef_jax.data.stored import StoredExamples
from eef_jax.errors import DataError
from eef_jax.learner import reference
from eef_jax.learner.placement import Placement
from eef_jax.models import stacking
from eef_jax.models.model import content_hash
from eef_jax.storage import metrics
from eef_jax.storage.workdir import CHECKPOINT
from eef_jax.train import checkpoint, loop, losses
from eef_jax.train.losses.base import Loss as BatchLoss
from eef_jax.train.saves import Saves
from eef_jax.train.step import SFT, check_batch_size, data_parallel_size, scored_columns
from eef_jax.types import Example, Loss

METRICS = "metrics.jsonl"
TRAINING = "training"  # the saves of an unfinished training
DATASET = "dataset"  # the examples with reference log-probabilities, where the loss needs them
_COUNTS = "counts"  # of the metadata's facts
UNFINISHED = (METRICS, TRAINING, DATASET, CHECKPOINT)  # what a stage that starts again goes on from


def tune(
    placement: Placement,
    examples: Sequence[Example] | StoredExamples,
    folder: epath.Path,
    train: TrainSection,
    *,
    seed: int,
    number: int,
    previous: epath.Path | None,
    config_hash: str,
    made_from: Mapping[str, str] | None = None,
    asked: Loss | None = None,
    hosts: Hosts = SINGLE_PROCESS,
) -> dict[str, Any]:
    """Tune the base on examples and store a checkpoint. All processes call this together.

    What an interrupted call left in `folder` is continued if it was made from the same.

    Args:
        placement: the base.
        examples: the examples to learn; of stored ones, a process reads only those in its rows.
        folder: gets `checkpoint/` and `metrics.jsonl`, and while it trains `training/`; with a loss
            that has a reference also `dataset/`, the examples with its log-probabilities.
        train: the config's section `train`.
        seed: of the run.
        number: the round; together with the seed it decides the order of the data.
        previous: the previous round's tune folder, from which training starts where
            `train.init_from` says so; None in round 0.
        config_hash: of the run's config; stored with the checkpoint.
        made_from: hashes of what `examples` and `previous` hold, by their names.
        asked: the loss; None: SFT.
        hosts: the processes of the run.

    Returns:
        JSON facts about the training: examples, steps, tokens, loss, seconds, and as `content` a
        hash of the parameters.
    """
    model, mesh, key = placement.trained, placement.mesh, order_seed(seed, number)
    asked = asked or Loss()
    loss = losses.make(asked)
    optimizer = train.optimizer.resolved(adapter=placement.lora is not None)
    # Before the rows are divided over processes, where JAX would refuse them without a remedy.
    check_batch_size(train.batch_size, mesh=mesh, accumulation_steps=1)
    if previous is not None and starts_from_previous(train, asked):
        model = dataclasses.replace(model, trainable=placement.restore(previous, model))
    batches = Batches(
        examples=examples,
        batch_size=train.batch_size,
        seq_len=train.seq_len,
        seed=key,
        process_rows=sharding.process_rows(mesh, train.batch_size),
        columns=scored_columns(loss),
    )
    accumulation_steps = _accumulation_steps(
        placement, train, max_loss_positions=batches.max_loss_positions, loss=loss
    )
    metadata = checkpoint.Metadata(
        **placement.metadata(model),
        config_hash=config_hash,
        facts={"round": number, "seed": seed, "examples": len(examples), "from": made_from or {}},
    )
    if stored := _stored(folder, metadata, hosts):
        return stored
    if loss.reference:
        scored = reference.add_column(
            batches,
            folder / DATASET,
            model,
            model.trainable if loss.reference == "start" else placement.trained.trainable,
            mesh=mesh,
            loss=loss,
            accumulation_steps=accumulation_steps,
            made_from={"base": metadata.base_hash, "config": config_hash, **metadata.facts},
            hosts=hosts,
        )
        batches = dataclasses.replace(batches, examples=scored, columns=loss.columns)
    with (
        metrics.MetricsWriter(folder / METRICS if hosts.is_lead else None) as log,
        Saves(
            folder / TRAINING,
            metadata,
            every_s=train.save_every_s,
            every_steps=train.save_every_steps,
            metrics=log,
            hosts=hosts,
        ) as saves,
    ):
        trainable, facts = loop.fit(
            model,
            batches,
            mesh=mesh,
            optimizer=optimizer,
            loss=loss,
            epochs=train.epochs,
            accumulation_steps=accumulation_steps,
            seed=key,
            progress=hosts.is_lead and sys.stderr.isatty(),
            label=f"tune round {number}",
            log=log.log,
            saves=saves,
        )
        facts = {
            "examples": len(examples),
            "learning_rate": optimizer.learning_rate,
            # Orbax names its files at random, so equal values are known by their own hash.
            "content": content_hash(trainable),
            **facts,
        }
        said = dataclasses.replace(
            metadata, step=facts["steps"], facts={**metadata.facts, _COUNTS: facts}
        )
        # Each layer is stored under its own name, so that any layout can load the checkpoint.
        checkpoint.save(folder / CHECKPOINT, stacking.unstack_state(trainable), said)
        saves.remove()
    return facts


def starts_from_previous(train: TrainSection, asked: Loss) -> bool:
    """Whether a round after the clone starts from the previous round's weights."""
    if train.init_from == "auto":
        return asked.name != "sft"
    return train.init_from == "previous"


def choose(placement: Placement, train: TrainSection) -> dict[str, Any]:
    """What open numerics of training come to on these devices: value by field.

    A later round may have more to learn in a row, so all of its tokens are taken to be learned.

    Args:
        placement: the base.
        train: the config's section `train`.
    """
    mesh = placement.mesh
    steps = _accumulation_steps(placement, train, max_loss_positions=train.seq_len)
    rows = train.batch_size // data_parallel_size(mesh) // steps
    return {
        **placement.mesh_sizes(),
        "model.attention": placement.attention,
        "train.micro_batch": rows,
    }


def _stored(folder: epath.Path, metadata: checkpoint.Metadata, hosts: Hosts) -> dict[str, Any]:
    """The counts of a training whose checkpoint was stored before the process died; else {}."""
    counts: dict[str, Any] = {}
    if hosts.is_lead and (folder / CHECKPOINT).exists():
        with contextlib.suppress(DataError):  # half written, or of other data: written again
            found = checkpoint.verified(folder / CHECKPOINT)
            if not metadata.differences(found):
                counts = found.facts[_COUNTS]
                (folder / TRAINING).rmtree(missing_ok=True)
    agreed: dict[str, Any] = json.loads(hosts.broadcast(json.dumps(counts)))
    return agreed


def _accumulation_steps(
    placement: Placement,
    train: TrainSection,
    *,
    max_loss_positions: int,
    loss: BatchLoss = SFT,
) -> int:
    return micro_batch.accumulation_steps(
        train.micro_batch,
        placement.trained,
        mesh=placement.mesh,
        batch_size=train.batch_size,
        seq_len=train.seq_len,
        max_loss_positions=max_loss_positions,
        optimizer=train.optimizer,
        loss=loss,
        # The rollouts' copy of the base stays on the devices while training runs.
        reserved=placement.second_copy_bytes(),
    )
