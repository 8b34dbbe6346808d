"""What an import does: read, replay, tell, and write what may be learned from."""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

from etils import epath

from eef_jax import plugins
from eef_jax.envs.base import Env
from eef_jax.errors import DataError
from eef_jax.importers import base
from eef_jax.importers._replay import Messages, Replay, Replayer, Status
from eef_jax.storage.files import write_json
from eef_jax.storage.trajectories import tell_apart, write_trajectories
from eef_jax.types import Task, Trajectory

TASKS, REPORT = "tasks.json", "import.json"


def replay_files(
    env: Env, paths: Sequence[str], format: str, *, messages: Messages = "render"
) -> list[Replay]:
    """Read and replay all attempts of some files.

    Args:
        env: the run's environment.
        paths: the files.
        format: name of an importer.
        messages: `render` says thought and action in the run's prompt; `as_is` keeps replies.

    Raises:
        ConfigError: there is no such format.
        DataError: a file cannot be read.
    """
    reader = plugins.load("importers", format).make()
    replayer = Replayer(env, messages=messages)
    return [
        replayer.replay(conversation)
        for path in paths
        for conversation in base.conversations(path, reader, format=format)
    ]


def write(folder: epath.PathLike, replays: Sequence[Replay], *, unverified: bool = False) -> int:
    """Write trajectories, their tasks and what was found; returns the number of trajectories.

    Args:
        folder: gets `trajectories.jsonl`, `tasks.json` and `import.json`.
        replays: the attempts.
        unverified: write those that diverged too, as their file tells them.

    Raises:
        DataError: no attempt was equal, so that the file was made with other data.
    """
    if not any(replay.verified for replay in replays):
        first = next(iter(replays), None)
        raise DataError(
            f"none of {len(replays)} attempts is of this environment's data"
            + (f"; the first, {first.conversation.place}: {first.reason}" if first else "")
            + ". Was the file made with another catalogue? Set env.data_dir to that one"
        )
    kept = [r.trajectory for r in replays if r.trajectory and (unverified or r.verified)]
    trajectories = number_attempts(tell_apart(kept))
    folder = epath.Path(folder)
    write_trajectories(folder, trajectories)
    tasks: dict[str, Task] = {t.task.id: t.task for t in trajectories}
    write_json(folder / TASKS, [dataclasses.asdict(task) for task in tasks.values()])
    rows = [
        {
            "place": replay.conversation.place,
            "name": replay.conversation.name,
            "agent": replay.conversation.agent,
            "status": str(replay.status),
            "reason": replay.reason,
            "task": replay.trajectory.task.id if replay.trajectory else None,
        }
        for replay in replays
    ]
    write_json(folder / REPORT, {"counts": counts(replays), "attempts": rows})
    return len(trajectories)


def number_attempts(trajectories: Iterable[Trajectory]) -> list[Trajectory]:
    """Number the attempts of each agent at each task, from 0."""
    seen: collections.Counter[tuple[str, str]] = collections.Counter()
    numbered = []
    for trajectory in trajectories:
        key = (trajectory.task.id, trajectory.agent)
        numbered.append(dataclasses.replace(trajectory, attempt=seen[key]))
        seen[key] += 1
    return numbered


def counts(replays: Sequence[Replay]) -> dict[str, int]:
    """Attempts of each status, wins, steps and steps without an action."""
    statuses = collections.Counter(replay.status for replay in replays)
    kept = [r.trajectory for r in replays if r.trajectory and r.verified]
    steps = [step for trajectory in kept for step in trajectory.steps]
    return {
        **{str(status): statuses[status] for status in Status},
        "wins": sum(trajectory.win for trajectory in kept),
        "steps": len(steps),
        "steps without an action": sum(step.action is None for step in steps),
    }
