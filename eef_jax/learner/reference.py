"""The column of reference log-probabilities: a data set scored once, before it is learned.

They are computed by the forward pass of training, over the batches of its first epoch. On one
device that gives the bits that the first update computes, so a margin is exactly 0 before it.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from flax import nnx
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.cluster.hosts import Hosts
from eef_jax.data import tfrecord
from eef_jax.data.batches import Batches, Position
from eef_jax.data.stored import StoredExamples
from eef_jax.models.model import Model
from eef_jax.storage import files
from eef_jax.train import step as step_lib
from eef_jax.train.losses.base import REFERENCE, Loss
from eef_jax.types import Example

_MADE_FROM = "made_from.json"  # written last: with it the data set is whole


def add_column(
    batches: Batches,
    folder: epath.Path,
    model: Model,
    weights: nnx.State,
    *,
    mesh: Mesh,
    loss: Loss,
    accumulation_steps: int,
    made_from: Mapping[str, Any],
    hosts: Hosts,
) -> StoredExamples:
    """Write a data set again, with the column. All processes call this together.

    Args:
        batches: of the training, without the column.
        folder: gets the data set, unless it has it from an interrupted start.
        model: what is trained.
        weights: trainable parameters of the reference.
        mesh: the devices.
        loss: decides the temperatures of tokens.
        accumulation_steps: number of micro-batches of the training.
        made_from: JSON values that tell what the data and the weights are.
        hosts: the processes of the run.

    Returns:
        The examples with the column, in the order they had.
    """
    stamp = json.dumps(made_from, sort_keys=True)
    if hosts.broadcast(json.dumps(hosts.is_lead and _stamp(folder) == stamp)) == "false":
        score = step_lib.make_scorer(
            model, mesh=mesh, loss=loss, accumulation_steps=accumulation_steps
        )
        columns: dict[int, np.ndarray] = {}
        for here, logps in _scored(batches, model, weights, mesh, score):
            if hosts.is_lead:
                columns.update(batches.by_example(here, logps))
        if hosts.is_lead:
            _write(folder, batches.examples, columns, stamp)
    hosts.barrier()
    return StoredExamples(folder)


def _stamp(folder: epath.Path) -> str:
    path = folder / _MADE_FROM
    return path.read_text() if path.exists() else ""


def _scored(
    batches: Batches, model: Model, weights: nnx.State, mesh: Mesh, score: step_lib.Scorer
) -> Iterator[tuple[Position, np.ndarray]]:
    """The position of each batch of the first epoch, and its log-probabilities."""
    trainable = sharding.place_tree(weights, mesh)
    frozen = sharding.place_tree(model.frozen, mesh)
    here = Position()
    for batch, after in batches.iterate(here):
        on_devices = step_lib.put_batch(batch, mesh, batch_size=batches.batch_size)
        yield here, np.asarray(score(trainable, frozen, on_devices))
        if after.epoch:
            return
        here = after


def _write(
    folder: epath.Path,
    examples: Sequence[Example] | StoredExamples,
    columns: Mapping[int, np.ndarray],
    stamp: str,
) -> None:
    with_column = [
        dataclasses.replace(example, columns={**example.columns, REFERENCE: columns[number]})
        for number, example in enumerate(examples)
    ]
    folder.rmtree(missing_ok=True)
    tfrecord.write(folder, with_column, description="the selected data with reference log-probs")
    files.write_text(folder / _MADE_FROM, stamp)
