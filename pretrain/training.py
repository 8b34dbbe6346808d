"""The training loop: AdamW on the targets of each batch, with a schedule that goes by the clock."""

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from eef_jax.models.model import merge
from eef_jax.storage.metrics import MetricsWriter
from pretrain.batches import Batch

PEAK_LR, WARMUP_STEPS, END_LR_RATIO = 2e-3, 200, 0.1
MAX_STEP_S = 3.0  # seconds of a step that count: a suspended process has trained nothing meanwhile
LOG_STEPS = 50  # steps between two lines of log.jsonl
PRINT_S = 10.0  # seconds between two printed lines
SAVE_S = 120.0  # seconds between two saved states

Update = Callable[..., tuple[Any, Any, jax.Array, jax.Array]]


@dataclasses.dataclass(slots=True, kw_only=True)
class TrainingState:
    """Everything that a resumed run needs.

    Attributes:
        params: the model's parameters.
        opt_state: the optimizer's state.
        step: number of the next batch.
        seconds: training time so far; a step counts at most `MAX_STEP_S`.
    """

    params: Any
    opt_state: Any
    step: int = 0
    seconds: float = 0.0

    def save(self, file: pathlib.Path) -> None:
        """Write the state atomically."""
        leaves = jax.tree.leaves((self.params, self.opt_state))
        arrays: dict[str, Any] = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        temporary = file.with_suffix(".tmp.npz")
        np.savez(temporary, **arrays, step=self.step, spent=self.seconds)
        temporary.rename(file)

    def restore(self, file: pathlib.Path) -> None:
        """Read what `save` wrote, if the file exists."""
        if file.exists():
            saved = np.load(file)
            initial, tree = jax.tree.flatten((self.params, self.opt_state))
            leaves = [jnp.asarray(saved[f"leaf{i}"]) for i in range(len(initial))]
            self.params, self.opt_state = jax.tree.unflatten(tree, leaves)
            self.step, self.seconds = int(saved["step"]), float(saved["spent"])


def make_optimizer() -> optax.GradientTransformation:
    """Return AdamW whose learning rate is set at each step; the schedule goes by the clock."""
    return optax.inject_hyperparams(optax.adamw)(
        learning_rate=0.0, b1=0.9, b2=0.98, weight_decay=0.05
    )


def make_update(graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation) -> Update:
    """Return the compiled training step.

    It maps (params, opt_state, batch, learning rate) to (params, opt_state, loss, accuracy); loss
    and accuracy (0-1) are weighted means over the targets.
    """
    clip = optax.clip_by_global_norm(1.0)

    def loss_fn(params: nnx.State, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        decoder = merge(graphdef, nnx.State({}), params)
        hidden = decoder(batch["tokens"], batch["positions"], batch["segment_ids"])
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits, labels = decoder.logits(flat[batch["target_positions"]]), batch["labels"]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        weights = batch["weights"] / batch["weights"].sum()
        return (nll * weights).sum(), ((logits.argmax(-1) == labels) * weights).sum()

    @jax.jit
    def update(
        params: Any, opt_state: Any, batch: dict[str, jax.Array], learning_rate: float
    ) -> tuple[Any, Any, jax.Array, jax.Array]:
        (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch)
        grads, _ = clip.update(grads, clip.init(params))
        opt_state.hyperparams["learning_rate"] = learning_rate
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, accuracy

    return update


def learning_rate(step: int, elapsed: float) -> float:
    """Return the learning rate: warm-up, constant, then linear decay in the second half.

    Args:
        step: steps since the optimizer was initialized.
        elapsed: elapsed share of the schedule (0-1).
    """
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_LR * warmup * max(END_LR_RATIO, min(1.0, 2 * (1 - elapsed)))


def train(
    state: TrainingState,
    update: Update,
    next_batch: Callable[[], Batch],
    *,
    schedule_s: float,
    first_step: int,
    out: pathlib.Path,
) -> None:
    """Train until the schedule is over; advances `state`, and writes it to `out/state.npz`.

    Args:
        state: parameters, optimizer state and progress; changed in place.
        update: the compiled training step.
        next_batch: returns the next batch.
        schedule_s: training time of the whole schedule, in seconds.
        first_step: step at which the optimizer was initialized.
        out: folder of the state and of `log.jsonl`.
    """
    now = saved_at = time.monotonic()
    with MetricsWriter(out / "log.jsonl") as metrics:
        progress = _Progress(metrics, schedule_s)
        while state.seconds < schedule_s:
            rate = learning_rate(state.step - first_step, state.seconds / schedule_s)
            state.params, state.opt_state, loss, accuracy = update(
                state.params, state.opt_state, next_batch(), rate
            )
            state.step += 1
            progress.add(float(loss), float(accuracy))
            now, before = time.monotonic(), now
            state.seconds += min(now - before, MAX_STEP_S)
            progress.report(state)
            if now - saved_at > SAVE_S:
                state.save(out / "state.npz")
                saved_at = now
    state.save(out / "state.npz")


class _Progress:
    """Writes means of loss and accuracy: to log.jsonl by steps, to the terminal by time."""

    def __init__(self, metrics: MetricsWriter, schedule_s: float):
        self._metrics, self._schedule_s = metrics, schedule_s
        self._to_log: list[tuple[float, float]] = []
        self._to_print: list[tuple[float, float]] = []
        self._print_at = time.monotonic()

    def add(self, loss: float, accuracy: float) -> None:
        self._to_log.append((loss, accuracy))
        self._to_print.append((loss, accuracy))

    def report(self, state: TrainingState) -> None:
        """Write what is due after a step."""
        minutes = state.seconds / 60
        if state.step % LOG_STEPS == 0:
            loss, accuracy = np.mean(self._to_log, axis=0)
            self._metrics.log(state.step, {"loss": loss, "accuracy": accuracy, "minutes": minutes})
            self._to_log = []
        over = state.seconds >= self._schedule_s
        if over or time.monotonic() >= self._print_at:
            loss, accuracy = np.mean(self._to_print, axis=0)
            print(
                f"batch {state.step}, {minutes:.1f} of {self._schedule_s / 60:g} min: "
                f"loss {loss:.3f}, {accuracy:.1%} of the targets right",
                flush=True,
            )
            self._to_print, self._print_at = [], time.monotonic() + PRINT_S
