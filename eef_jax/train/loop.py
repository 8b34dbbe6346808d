"""The training loop: steps over packed batches, with progress, logging and saving.

Deterministic: the parameters depend only on the model, the data and the arguments; a run that was
interrupted and goes on from a save ends in the same bits.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax
import tqdm
from flax import nnx
from jax.sharding import Mesh

from eef_jax import sharding
from eef_jax.cluster import stopping
from eef_jax.config.sections import OptimizerConfig
from eef_jax.data.batches import Batches, BatchStats, Position
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model
from eef_jax.train import state as state_lib
from eef_jax.train import step as step_lib
from eef_jax.train.losses.base import Loss
from eef_jax.train.optim import make_optimizer
from eef_jax.train.saves import Progress, Saves
from eef_jax.train.step import Scalars

_log = logging.getLogger(__name__)

Log = Callable[[int, Mapping[str, float]], None]


def fit(
    model: Model,
    batches: Batches,
    *,
    mesh: Mesh,
    optimizer: OptimizerConfig,
    loss: Loss = step_lib.SFT,
    steps: int | None = None,
    epochs: int | None = None,
    accumulation_steps: int = 1,
    seed: int = 0,
    progress: bool = True,
    label: str = "train",
    log: Log | None = None,
    saves: Saves | None = None,
) -> tuple[nnx.State, dict[str, Any]]:
    """Train a model's trainable parameters.

    Args:
        model: the model to train; it is not changed.
        batches: the data; rows are sharded over the mesh, in `accumulation_steps` micro-batches.
        mesh: the devices.
        optimizer: how parameters are updated; its schedule spans all steps.
        loss: what is minimized; `batches` has its columns.
        steps: number of updates; exactly one of `steps` and `epochs` is given.
        epochs: number of passes over the data.
        accumulation_steps: number of micro-batches that a batch is split into.
        seed: seed of dropout.
        progress: show a bar with loss, tokens per second and time left.
        label: name of the bar.
        log: called with (step, scalars) after each step.
        saves: where the run is saved, and goes on from; None saves nothing.

    Returns:
        The parameters, and JSON facts: `steps`, `loss` (mean over the last tenth of the steps),
        `tokens`, `weighted_tokens`, `padding` (share of the batches' capacity, 0-1), and for the
        steps of this call alone `seconds` and `tokens_per_s`.

    Raises:
        ConfigError: not exactly one of `steps` and `epochs` is given, or rows cannot be sharded
            evenly.
        Stopped: the process was told to end, after a save.
    """
    if (steps is None) == (epochs is None):
        raise ConfigError(f"got steps={steps} and epochs={epochs}: set exactly one of the two")
    total = steps if steps is not None else batches.steps(epochs or 0)
    step_lib.check_batch_size(batches.batch_size, mesh=mesh, accumulation_steps=accumulation_steps)
    transform = make_optimizer(optimizer, total)
    step = step_lib.make_step(
        model, transform, mesh=mesh, loss=loss, accumulation_steps=accumulation_steps
    )
    frozen = sharding.place_tree(model.frozen, mesh)
    start = _start(model, transform, mesh=mesh, seed=seed, saves=saves)
    state, here, done = start.state, start.position, int(start.state.step)
    meter = _Meter(batches, start, total=total, label=label, progress=progress, log=log)
    compiled = False

    with contextlib.ExitStack() as stack:
        for batch, position in batches.iterate(here):
            if done >= total:
                break
            on_device = step_lib.put_batch(batch, mesh, batch_size=batches.batch_size)
            began = time.monotonic()
            state, scalars = step(state, frozen, on_device)
            if not compiled:  # the call returns when it is compiled, before it is computed
                meter.compiled(time.monotonic() - began)
                compiled = True
                if saves:  # from now on there is something that a signal would lose
                    stack.enter_context(stopping.cooperative())
            done += 1
            meter.add(done, batches.stats(here), scalars)
            here = position
            if saves and done < total and saves.due(done):
                losses = meter.recent_losses()  # waits for this step
                saves.save(Progress(state=state, position=position, losses=losses))
    return state.trainable, meter.close()


def _start(
    model: Model,
    transform: optax.GradientTransformation,
    *,
    mesh: Mesh,
    seed: int,
    saves: Saves | None,
) -> Progress:
    """Where training goes on, or its beginning."""
    if saves:
        like = state_lib.abstract_state(model, transform, mesh=mesh)
        if found := saves.restore(like):
            return found
    fresh = state_lib.create(model, transform, mesh=mesh, seed=seed)
    return Progress(state=fresh, position=Position())


class _Meter:
    """Counts, times and shows steps."""

    # A step's scalars are read when the next step has been dispatched: reading them at once would
    # leave the device idle while the host prepares the next batch.

    def __init__(
        self,
        batches: Batches,
        start: Progress,
        *,
        total: int,
        label: str,
        progress: bool,
        log: Log | None,
    ) -> None:
        self._label = label
        self._total, self._done = total, int(start.state.step)
        self._bar = tqdm.tqdm(
            total=total,
            initial=self._done,
            desc=label,
            unit="step",
            smoothing=0,
            disable=not progress,
        )
        self._bar.set_postfix_str("compiling ...")
        self._log = log
        self._began = time.monotonic()
        self._losses = list(start.losses)
        self._before = batches.before(start.position)
        self._tokens = self._capacity = self._weighted_tokens = 0  # of this call's steps
        self._pending: tuple[int, Scalars] | None = None

    def compiled(self, seconds: float) -> None:
        self._bar.clear()
        _log.info("%s: compiled in %.1f s", self._label, seconds)
        self._bar.unpause()  # so that the time left does not count it
        self._bar.set_postfix_str("")

    def add(self, number: int, stats: BatchStats, scalars: Scalars) -> None:
        self._flush()
        self._done, self._pending = number, (number, scalars)
        self._tokens += stats.tokens
        self._capacity += stats.capacity
        self._weighted_tokens += stats.weighted_tokens

    def recent_losses(self) -> list[float]:
        """The losses of the last tenth of all steps, as far as they are done."""
        self._flush()
        return self._losses[-max(self._total // 10, 1) :]

    def close(self) -> dict[str, Any]:
        self._flush()
        self._bar.close()
        tail = self._losses[-max(self._done // 10, 1) :]
        seconds = time.monotonic() - self._began
        tokens = self._before.tokens + self._tokens
        capacity = self._before.capacity + self._capacity
        return {
            "steps": self._done,
            "loss": float(np.mean(tail)) if tail else None,
            "tokens": tokens,
            "weighted_tokens": self._before.weighted_tokens + self._weighted_tokens,
            "padding": 1 - tokens / max(capacity, 1),
            "seconds": seconds,
            "tokens_per_s": self._tokens / max(seconds, 1e-9),
        }

    def _flush(self) -> None:
        """Wait for the device, then show and log the step before."""
        if self._pending is None:
            return
        number, scalars = self._pending
        self._pending = None
        values = {name: float(value) for name, value in scalars.items()}
        speed = self._tokens / (time.monotonic() - self._began)
        self._losses.append(values["loss"])
        self._bar.set_postfix_str(
            f"loss {values['loss']:.4f}, {speed:,.0f} tokens/s", refresh=False
        )
        self._bar.update()
        if self._log:
            self._log(number, values | {"tokens_per_s": speed})
