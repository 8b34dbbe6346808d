"""When infrastructure failures end a stage: how many are allowed, and what the error says.

Such an episode (`Outcome.completed` is False) says nothing about the policy, so scores and labels
leave it out. Where they are many, what is left is a biased sample: the stage is not kept.
"""

import collections
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from eef_jax.errors import RolloutError
from eef_jax.types import Attempt, Outcome
from eef_jax.untrusted import one_line

_SHOWN = 5  # reasons that an error lists
_REASON_CHARS = 400

# A replay that diverges is infrastructure, too: the environment does not repeat itself, or the
# parent was played in another one. Forks of it would be scored from states that never were.
REMEDIES = {
    Outcome.ENV_ERROR: (
        "env_error: the environment raised, or returned what it may not, in each of "
        "config.rollout.env_attempts attempts; check its data and installation"
    ),
    Outcome.ENV_TIMEOUT: (
        "env_timeout: raise config.rollout.env_timeout_s, or lower config.rollout.env_threads"
    ),
    Outcome.DIVERGED: (
        "diverged: a replayed action led elsewhere; check that the expert's trajectories were "
        "played in this environment, and that it is deterministic"
    ),
    Outcome.POLICY_ERROR: (
        "policy_error: the model or the expert could not answer; check its server, key and budget"
    ),
}


def allowed_failures(max_failures: float, episodes: int) -> int:
    """Number of infrastructure failures with which a stage is still kept.

    Args:
        max_failures: largest share (0-1), the config's `rollout.max_failures`.
        episodes: number of episodes of the stage.
    """
    return math.floor(max_failures * episodes + 1e-9)  # 0.29 * 100 is 28.999...


def check_failures(
    trajectories: Iterable[Attempt], *, episodes: int, max_failures: float, label: str
) -> None:
    """Check that few enough episodes ended in an infrastructure failure.

    Args:
        trajectories: those that have ended.
        episodes: number of episodes to play in all.
        max_failures: largest share of failures (0-1).
        label: what was played, for the message.

    Raises:
        RolloutError: there are more; with the commonest reasons, their counts and an example each.
    """
    failed = [t for t in trajectories if not t.outcome.completed]
    allowed = allowed_failures(max_failures, episodes)
    if len(failed) <= allowed:
        return
    remedies = [
        text for outcome, text in REMEDIES.items() if any(t.outcome is outcome for t in failed)
    ]
    raise RolloutError(
        f"{label}: {len(failed)} of {episodes} episodes ended in an infrastructure failure, "
        f"{allowed} may (config.rollout.max_failures={max_failures:g}). The commonest reasons:\n"
        + "\n".join(f"  {line}" for line in reasons(failed))
        + "\nMend the cause and run the command again, which plays these and the missing ones:\n"
        + "\n".join(f"  {line}" for line in remedies)
    )


def reasons(failed: Sequence[Attempt]) -> list[str]:
    """The commonest reasons, a line each: count, outcome, and the first one's own words."""
    return commonest(
        collections.Counter(f"{one.outcome}: {one.reason or 'no reason given'}" for one in failed)
    )


def commonest(counts: Mapping[str, int]) -> list[str]:
    """The commonest of some reasons, a line each: how often, and the first one's own words.

    Args:
        counts: reason -> how often; reasons that differ in names and numbers alone are one.
    """
    sums: collections.Counter[str] = collections.Counter()
    words: dict[str, str] = {}
    for reason, count in counts.items():
        sums[pattern := _pattern(reason)] += count
        words.setdefault(pattern, reason)
    shown = sums.most_common(_SHOWN)
    lines = [f"{count} x {_shortened(words[pattern])}" for pattern, count in shown]
    left = sums.total() - sum(count for _, count in shown)
    return [*lines, f"{left} others"] if left else lines


def _pattern(reason: str) -> str:
    """A reason without what differs between episodes: quoted names and numbers."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "_", reason)


def _shortened(reason: str) -> str:
    line = one_line(" ".join(reason.split()))
    return line if len(line) <= _REASON_CHARS else f"{line[: _REASON_CHARS - 3]}..."
