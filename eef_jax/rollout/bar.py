"""The progress bar of a stage's episodes."""

import sys
import time

import tqdm

from eef_jax.types import Completion, Trajectory
from eef_jax.untrusted import one_line


class Bar:
    """Progress bar with wins, turns/s and tokens/s."""

    def __init__(self, total: int, *, shown: bool | None, label: str):
        self._bar = tqdm.tqdm(
            total=total,
            desc=one_line(label),
            unit="episode",
            smoothing=0,  # the mean speed: episodes end in bursts
            disable=not (label and (sys.stderr.isatty() if shown is None else shown)),
        )
        self._start = time.monotonic()
        self._wins = self._turns = self._tokens = 0

    def count_turn(self, completion: Completion) -> None:
        self._turns += 1
        self._tokens += completion.prefilled + len(completion.tokens)

    def count_episode(self, trajectory: Trajectory) -> None:
        self._wins += trajectory.win
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix(
            {
                "wins": self._wins,
                "turns/s": f"{self._turns / seconds:.0f}",
                "tokens/s": f"{self._tokens / seconds:.0f}",
            },
            refresh=False,
        )
        self._bar.update()

    def close(self) -> None:
        self._bar.close()
