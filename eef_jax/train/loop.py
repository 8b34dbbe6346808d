"""The training loop: steps over packed batches, with progress and saving.

Deterministic: parameters depend on the model, the data and the arguments alone. Knows no
environment and no files; what evaluation and saving mean is the caller's.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from eef_jax import sharding
from eef_jax.data.batches import Batches, BatchStats, Position
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model
from eef_jax.train import state as state_lib
from eef_jax.train import step as step_lib
from eef_jax.train.optim import OptimizerConfig, make_optimizer
from eef_jax.train.state import TrainState

Evaluate = Callable[[nnx.State, int], float]
Save = Callable[[TrainState, Position], None]
Log = Callable[[int, Mapping[str, float]], None]


def fit(
    model: Model,
    batches: Batches,
    *,
    mesh: Mesh,
    optimizer: OptimizerConfig,
    steps: int | None = None,
    epochs: int | None = None,
    accumulation_steps: int = 1,
    seed: int = 0,
    progress: bool = True,
    label: str = "train",
    log: Log | None = None,
    on_eval: Evaluate | None = None,
    eval_every: int = 0,
    patience: int = 0,
    start: tuple[TrainState, Position] | None = None,
    on_save: Save | None = None,
    save_every: int = 0,
) -> tuple[nnx.State, dict[str, Any]]:
    """Train a model's trainable parameters.

    Args:
        model: what to train; it is left as it is.
        batches: the data; its rows spread over the mesh and over `accumulation_steps`.
        mesh: the devices.
        optimizer: how parameters are updated; its schedule spans all steps.
        steps: number of updates; or
        epochs: number of passes over the data (exactly one of the two).
        accumulation_steps: micro-batches a batch is computed in.
        seed: of dropout.
        progress: show a bar with loss, tokens a second and time left.
        label: the bar's name.
        log: called with (step, scalars) after each step.
        on_eval: called as `on_eval(trainable, step)`; returns a score, higher is better (a dev win
            rate). It must be done with `trainable` when it returns.
        eval_every: steps between two evaluations; the last step is always evaluated.
        patience: stop after this many evaluations in a row without a better score; 0 never stops.
        start: continue from here instead of from the model; the best score starts anew.
        on_save: called with the state and the position of the next batch, likewise to be done with
            both when it returns.
        save_every: steps between two saves.

    Returns:
        The parameters with the best score (without `on_eval` the last), and JSON facts: `steps`
        (updates done in all), `loss` (mean of the last tenth of the steps), and of the steps done
        here `tokens`, `weighted_tokens`, `padding` (share), `seconds`, `tokens_per_s`; with
        `on_eval` also `best_score`, `best_step` and `scores` (pairs of step and score).

    Raises:
        ConfigError: for contradictory lengths, or rows that do not spread.
    """
    if (steps is None) == (epochs is None):
        raise ConfigError(f"got steps={steps} and epochs={epochs}: set exactly one of the two")
    total = steps if steps is not None else batches.steps(epochs or 0)
    step_lib.check_batch_size(batches.batch_size, mesh=mesh, accumulation_steps=accumulation_steps)
    transform = make_optimizer(optimizer, total)
    step = step_lib.make_step(model, transform, mesh=mesh, accumulation_steps=accumulation_steps)
    frozen = sharding.place(model.frozen, mesh)
    if start is None:
        start = state_lib.create(model, transform, mesh=mesh, seed=seed), Position()
    state, first = start
    done = int(state.step)
    meter = _Meter(total=total, done=done, label=label, progress=progress, log=log)
    best = _Best(patience=patience)

    here = first
    for batch, position in batches.iterate(first):
        if done >= total:
            break
        state, scalars = step(
            state, frozen, step_lib.put_batch(batch, mesh, batch_size=batches.batch_size)
        )
        done += 1
        meter.add(done, batches.stats(here), scalars)
        here = position
        if on_eval and (done == total or (eval_every and done % eval_every == 0)):
            best.offer(state.trainable, on_eval(state.trainable, done), done)
            if best.exhausted:
                break
        if on_save and save_every and done % save_every == 0:
            on_save(state, position)

    facts = meter.close()
    if best.trainable is None:
        return state.trainable, facts
    return best.trainable, facts | best.facts()


class _Best:
    """The best parameters seen, and whether to go on."""

    def __init__(self, *, patience: int) -> None:
        self.trainable: nnx.State | None = None
        self._scores: list[tuple[int, float]] = []
        self._patience = patience

    def offer(self, trainable: nnx.State, score: float, step: int) -> None:
        """Take note of a score; of equal ones the first stays."""
        if not self._scores or score > max(value for _, value in self._scores):
            self.trainable = jax.tree.map(jnp.copy, trainable)  # the next step donates the original
        self._scores.append((step, float(score)))

    @property
    def exhausted(self) -> bool:
        since = len(self._scores) - 1 - self._index()
        return bool(self._patience) and since >= self._patience

    def facts(self) -> dict[str, Any]:
        step, score = self._scores[self._index()]
        return {"best_step": step, "best_score": score, "scores": self._scores}

    def _index(self) -> int:
        return max(range(len(self._scores)), key=lambda i: (self._scores[i][1], -i))


class _Meter:
    """Counts, times and shows steps; reads a step's scalars only when the next one is under way."""

    def __init__(
        self, *, total: int, done: int, label: str, progress: bool, log: Log | None
    ) -> None:
        self._bar = tqdm(total=total, initial=done, desc=label, unit="step", disable=not progress)
        self._log = log
        self._done = done
        self._began = time.monotonic()
        self._losses: list[float] = []
        self._tokens = self._slots = self._learned = 0
        self._pending: tuple[int, dict[str, jax.Array]] | None = None

    def add(self, number: int, stats: BatchStats, scalars: dict[str, jax.Array]) -> None:
        self._flush()
        self._done, self._pending = number, (number, scalars)
        self._tokens += stats.tokens
        self._slots += stats.capacity
        self._learned += stats.weighted_tokens

    def close(self) -> dict[str, Any]:
        self._flush()
        self._bar.close()
        tail = self._losses[-max(len(self._losses) // 10, 1) :]
        seconds = time.monotonic() - self._began
        return {
            "steps": self._done,
            "loss": float(np.mean(tail)) if tail else None,
            "tokens": self._tokens,
            "weighted_tokens": self._learned,
            "padding": 1 - self._tokens / max(self._slots, 1),
            "seconds": seconds,
            "tokens_per_s": self._tokens / max(seconds, 1e-9),
        }

    def _flush(self) -> None:
        """Waits for the device, then shows and logs the step before."""
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
