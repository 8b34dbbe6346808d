"""Saves of an unfinished training run, through Orbax's training checkpointer.

    <stage>/training/<step>/    parameters, optimizer state and key; metadata; a manifest, last

A save runs in the background and counts once its manifest is written. The newest two are kept. A
run that starts again continues from the newest one that is as it was written, on any mesh and
number of processes; with the same ones it ends in the same bits.
"""

import concurrent.futures
import contextlib
import dataclasses
import datetime
import logging
import signal
import types
from collections.abc import Sequence
from typing import Any

from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint.experimental.v1 import training
from orbax.checkpoint.experimental.v1.training import (
    preservation_policies,
    save_decision_policies,
)

from eef_jax.cluster import stopping
from eef_jax.cluster.hosts import SINGLE_PROCESS, Hosts
from eef_jax.data.batches import Position
from eef_jax.errors import DataError
from eef_jax.storage import files, manifest
from eef_jax.storage.metrics import MetricsWriter
from eef_jax.train import checkpoint
from eef_jax.train.state import TrainState

KEPT = 2  # saves, the newest ones

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training run is.

    Attributes:
        state: parameters, optimizer state, key, number of updates done.
        position: of the next batch.
        losses: of the last updates, as many as the mean loss of a finished run is taken of.
    """

    state: TrainState
    position: Position
    losses: Sequence[float] = ()


class Saves:
    """The saves of one training run. All processes make the same calls; use it as a context.

    Args:
        folder: of the saves; made when it is needed.
        metadata: what a save says about itself; its `facts` say what the run is made from, and a
            save whose facts differ belongs to another run and is dropped.
        every_s: seconds between two saves; 0 for none by time.
        every_steps: updates between two saves; 0 for none by number.
        metrics: the run's metrics, which go back to where they were at the save.
        hosts: the processes of the run.
    """

    def __init__(
        self,
        folder: epath.PathLike,
        metadata: checkpoint.Metadata,
        *,
        every_s: float = 0,
        every_steps: int = 0,
        metrics: MetricsWriter | None = None,
        hosts: Hosts = SINGLE_PROCESS,
    ):
        self._folder = files.absolute(folder)
        self._metadata = metadata
        self._policy = _policy(every_s, every_steps)
        self._metrics = metrics or MetricsWriter(None)
        self._hosts = hosts
        self._stop: signal.Signals | None = None
        self._pending: tuple[int, concurrent.futures.Future[None]] | None = None

    def restore(self, like: TrainState) -> Progress | None:
        """Where the run goes on; None where it begins. To be called once, before `due`.

        Args:
            like: shapes, types and shardings of the state (`train.state.abstract_state`).

        Raises:
            DataError: the save has other parameters than `like`.
        """
        step = int(self._hosts.broadcast(str(self.newest() if self._hosts.is_lead else 0)))
        self._open()
        if not step:
            self._metrics.rewind(None)
            return None
        state, metadata = checkpoint.load_training(self._at(step), like)
        self._metrics.rewind(metadata.facts["metrics"])
        _log.info("training goes on after step %d", step)
        return Progress(
            state=state,
            position=metadata.position or Position(),
            losses=metadata.facts["losses"],
        )

    def newest(self) -> int:
        """The step of the newest save that can be used; the lead drops those after it. 0: none."""
        found = [int(path.name) for path in files.entries(self._folder) if path.name.isdigit()]
        for step in sorted(found, reverse=True):
            try:
                self._check(step)
                return step
            except DataError as error:
                _log.warning(
                    "the save of step %d is not used, but the one before, if any: %s", step, error
                )
                self._at(step).rmtree()
        return 0

    def due(self, step: int) -> bool:
        """Whether to call `save` after this update: it is time, or the process is told to end."""
        if self._hosts.process_count == 1:
            self._stop = stopping.requested()
        elif multihost_utils.reached_preemption_sync_point(step):  # at one step in all processes
            self._stop = stopping.requested() or signal.SIGTERM
        return self._stop is not None or self._checkpointer.should_save(step)

    def save(self, progress: Progress) -> None:
        """Begin to save; a failure is logged, then or later, and training goes on.

        Args:
            progress: the state may be donated as soon as this returns.

        Raises:
            Stopped: the process was told to end, and the save is complete.
        """
        step = int(progress.state.step)
        self.wait()
        facts = {"losses": list(progress.losses), "metrics": self._metrics.mark()}
        metadata = dataclasses.replace(
            self._metadata,
            step=step,
            position=progress.position,
            facts={**self._metadata.facts, **facts},
        )
        try:
            response = self._checkpointer.save_checkpointables_async(
                step,
                checkpoint.training_parts(progress.state),
                force=True,
                custom_metadata=checkpoint.note(metadata),
            )
        except Exception as error:  # Orbax and TensorStore raise many types
            self._drop(step, _OrbaxError(error))
        else:
            self._pending = step, self._background.submit(self._finish, step, response)
        if self._stop is not None:
            self.wait()
            _log.info("training: kept up to step %d", step)
            raise stopping.Stopped(self._stop)

    def wait(self) -> None:
        """Wait for the save that runs, if any."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        step, finished = pending
        try:
            finished.result()
        except Exception as error:
            self._drop(step, error)

    def remove(self) -> None:
        """Delete all saves, when training is over and its result is stored."""
        self._close()
        if self._hosts.is_lead:
            self._folder.rmtree(missing_ok=True)

    def __enter__(self) -> "Saves":
        return self

    def __exit__(self, *_: Any) -> None:
        self._close()

    def _at(self, step: int) -> epath.Path:
        return self._folder / str(step)

    def _open(self) -> None:
        self._checkpointer = training.Checkpointer(
            self._folder,
            save_decision_policy=self._policy,
            preservation_policy=preservation_policies.LatestN(KEPT),
            cleanup_tmp_directories=True,
        )
        self._background = concurrent.futures.ThreadPoolExecutor(1, "eef-saves")

    def _close(self) -> None:
        if hasattr(self, "_checkpointer"):
            self.wait()
            self._checkpointer.close()
            self._background.shutdown()
            del self._checkpointer

    def _finish(self, step: int, response: Any) -> None:
        """Wait until a save is written, and write its manifest."""
        try:
            response.result()
        except Exception as error:
            raise _OrbaxError(error) from error
        if self._hosts.is_lead:
            manifest.write(self._at(step), {})

    def _check(self, step: int) -> None:
        """Check that a save is as it was written, and of this run.

        Raises:
            DataError: it is not.
        """
        metadata = checkpoint.verified(self._at(step), remedy="it is dropped")
        if other := self._metadata.differences(metadata):
            raise DataError(f"it was made from another {', '.join(other)}")
        self._metrics.check(metadata.facts["metrics"])

    def _drop(self, step: int, error: Exception) -> None:
        """Say that a save failed, and remove what is left of it."""
        _log.warning(
            "the save of step %d failed (%s); training goes on, and the next save tries again",
            step,
            str(error).strip().partition("\n")[0] or type(error).__name__,
        )
        if self._hosts.is_lead:
            with contextlib.suppress(OSError):
                self._at(step).rmtree(missing_ok=True)
        if isinstance(error, _OrbaxError):
            # A checkpointer raises a failure again at each later call. Where one process fails, the
            # others do so when they have waited for it, so all of them make a new one.
            with contextlib.suppress(Exception):
                self._checkpointer.close()
            self._background.shutdown()
            self._open()
        else:
            self._checkpointer.reload()


class _OrbaxError(Exception):
    """Orbax could not write a save."""


def _policy(every_s: float, every_steps: int) -> save_decision_policies.SaveDecisionPolicy:
    policies: list[Any] = []
    if every_steps:
        policies.append(save_decision_policies.FixedIntervalPolicy(every_steps))
    if every_s:
        start = types.SimpleNamespace(step=0, time=datetime.datetime.now(tz=datetime.UTC))
        policies.append(_ByTime(minimum_interval_secs=every_s, last=start))
    return save_decision_policies.AnySavePolicy(policies)


@dataclasses.dataclass(kw_only=True)
class _ByTime(save_decision_policies.ContinuousCheckpointingPolicy):
    """Orbax's policy of a least time between saves, from the start on and after failures too.

    Orbax's own saves the first step, and tries a failed save again at every step.
    """

    minimum_interval_secs: float | None = None  # Orbax says int, and compares with seconds
    last: Any

    def should_save(self, step: Any, previous_steps: Any, *, context: Any) -> bool:
        due: bool = super().should_save(step, [self.last], context=context)
        if due:
            self.last = step
        return due
