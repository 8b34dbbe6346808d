"""What an environment whose calls hang, crash and return garbage does to a run's episodes."""

import logging
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from etils import epath

from benchmarks.common.measurement import Measurement
from benchmarks.faults import environment
from eef_jax import config as config_lib
from eef_jax import evaluate
from eef_jax.storage.trajectories import index_trajectories
from eef_jax.storage.workdir import find_checkpoint, read_workdir
from eef_jax.types import Attempt

SETTINGS = {
    "env.name": environment.__name__,
    "rollout.env_timeout_s": "2",
    "rollout.max_failures": "1",
}
FLAGS = [f"--config.{name}={value}" for name, value in SETTINGS.items()]


def measure(clean: pathlib.Path, faulty: pathlib.Path) -> list[Measurement]:
    """Compare a run's episodes with those of the same run with faults.

    Args:
        clean: work folder of the run without faults.
        faulty: of the run with them, which has ended.

    Returns:
        Episodes that differ although no fault ended them: of the expert, and of the clean run's
        last policy on the held-out tasks (another policy is tuned from fewer expert's wins).
    """
    logging.getLogger("eef_jax").setLevel(logging.WARNING)
    stages = [list(index_trajectories(epath.Path(run) / "expert")) for run in (clean, faulty)]
    checkpoint = find_checkpoint(clean / "round_1/tune")
    config = read_workdir(clean).config
    played = [
        evaluate.evaluate(checkpoint, config_lib.override(config, overrides))
        for overrides in ((), tuple(SETTINGS.items()))
    ]
    return [_row("the expert's", *stages), _row("the policy's", *played)]


def _row(whose: str, clean: Iterable[Attempt], faulty: Sequence[Attempt]) -> Measurement:
    differing = unaffected_that_differ({a.id: a for a in clean}, faulty)
    lost = sum(not attempt.outcome.completed for attempt in faulty)
    name = (
        f"{whose} episodes that differ, of {len(faulty) - lost} that no fault ended ({lost} were)"
    )
    return Measurement(name=name, value=len(differing), unit="", bound=0)


def unaffected_that_differ(
    clean: Mapping[str, Attempt], faulty: Iterable[Attempt]
) -> Sequence[str]:
    """Ids of episodes that no fault ended, and that differ from the clean run's."""
    return [
        attempt.id
        for attempt in faulty
        if attempt.outcome.completed and _facts(attempt) != _facts(clean[attempt.id])
    ]


def _facts(attempt: Attempt) -> tuple[object, ...]:
    # Where the folder is still there steps are compared byte by byte elsewhere; what was said is
    # in the digest, and what was seen decided it.
    said = attempt.prefix(attempt.length) if attempt.length else b""
    return attempt.outcome, attempt.reward, attempt.win, attempt.length, said
