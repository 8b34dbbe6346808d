"""Peak memory over the trajectories of a run: `python -m benchmarks.memory [--tasks=11000]`.

Plays nothing: trajectories are generated, and take the way of a run's. An expert's failures are
explored (6 episodes a task and round), kept as they end, put in order, selected from, encoded,
written as examples, and reported. All of it happens in this process, as on the lead of a run; the
others do less. No model is loaded.
"""

import argparse
import dataclasses
import hashlib
import json
import pathlib
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from etils import epath

from benchmarks.common import machine
from benchmarks.common.measurement import Measurement, table
from eef_jax import config as config_lib
from eef_jax import report
from eef_jax import scores as scores_lib
from eef_jax.data import encode, tfrecord
from eef_jax.methods.base import Attempts
from eef_jax.methods.eef import Eef
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.rollout import gather, keeping, play
from eef_jax.storage.files import write_json
from eef_jax.storage.provenance import collect_provenance
from eef_jax.storage.selections import write_selections
from eef_jax.storage.trajectories import index_trajectories, write_trajectories
from eef_jax.storage.workdir import Stage, Workdir, open_workdir
from eef_jax.types import Attempt, Episode, Message, Outcome, Step, Task, Trajectory

STATES = 5  # with s_0 six episodes a task
MAX_STEPS = 15
PAGE_CHARS = 800  # of an observation, as a page of WebShop
SAMPLED = 24  # token ids of a message
BOUND_GIB = 2.0

_TEXT = "".join(random.Random(0).choices("abcdefghij klmnop qrstuv wxyz", k=1 << 20))


class Chat:
    """A tokenizer of four characters a token."""

    fingerprint = "generated"

    def example(
        self, messages: Sequence[Message], tokens: Sequence[Sequence[int]] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ids of a conversation, and the message of each id that a policy would sample."""
        sizes = [len(message.content) // 4 + 4 for message in messages]
        owners = [n if m.role == "assistant" else -1 for n, m in enumerate(messages)]
        ids = np.arange(sum(sizes), dtype=np.int32) % 32_000
        return ids, np.repeat(np.array(owners), sizes)


def tasks_of(count: int, split: str = "train") -> list[Task]:
    """Tasks of a size as WebShop's."""
    return [
        Task(
            id=f"generated/{split}/{n}",
            env="generated",
            split=split,
            goal=_text(n, 120),
            payload=json.dumps({"asin": f"B{n:09d}", "options": _text(n, 60)}),
            tags=("hard" if n % 3 else "easy",),
        )
        for n in range(count)
    ]


def _text(seed: int, size: int) -> str:
    begin = seed * 7919 % (len(_TEXT) - size)
    return _TEXT[begin : begin + size]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big")


def _steps(name: str, count: int, *, source: Any) -> Iterator[Step]:
    for turn in range(count):
        seed = _number(f"{name}/{turn}")
        action = f"click[{_text(seed, 20)}]"
        yield Step(
            observation=_text(seed, PAGE_CHARS),
            message=f"Thought: {_text(seed + 1, 100)}\nAction: {action}",
            action=action,
            source=source,
            tokens=tuple(range(SAMPLED)) if source == "policy" else (),
            logprobs=tuple(-seed % 97 / 31 for _ in range(SAMPLED)) if source == "policy" else (),
        )


def _trajectory(
    name: str, task: Task, steps: Sequence[Step], win: bool, **fields: Any
) -> Trajectory:
    return Trajectory(
        id=name,
        task=task,
        steps=tuple(steps),
        final_observation=_text(_number(name), PAGE_CHARS),
        reward=float(win),
        win=win,
        outcome=Outcome.WON if win else Outcome.FAILED,
        **fields,
    )


def experts_of(tasks: Sequence[Task]) -> Iterator[Trajectory]:
    """A failure of 6 to 11 actions on each task: every one is explored from five states."""
    for task in tasks:
        name = f"expert/generated/{task.id}"
        steps = _steps(name, 6 + _number(name) % 6, source="expert")
        yield _trajectory(name, task, list(steps), False, source="expert", agent="generated")


def played(episode: Episode) -> Trajectory:
    """An episode's trajectory: its parent's steps, then up to six of its own; two of five win."""
    before = episode.parent.load().steps[: episode.fork_step] if episode.parent else ()
    number = _number(episode.id)
    own = min(1 + number % 6, episode.max_steps - len(before))
    return _trajectory(
        episode.id,
        episode.task,
        [*before, *_steps(episode.id, own, source="policy")],
        number % 5 < 2,
        source="policy",
        agent="round",
        round=episode.round,
        attempt=episode.attempt,
        parent=episode.parent.id if episode.parent else None,
        fork_step=episode.fork_step,
    )


class Memory:
    """Peak memory of this process after each part of the run."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._begun = time.monotonic()
        self.note("imports")

    def note(self, name: str) -> None:
        """Note the peak so far, which a later part cannot lower."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)  # KiB on Linux
        seconds = round(time.monotonic() - self._begun)
        self.rows.append({"after": name, "peak_gib": round(peak, 3), "seconds": seconds})
        print(self.rows[-1], flush=True)


def run_rounds(root: epath.Path, tasks: Sequence[Task], rounds: int, memory: Memory) -> int:
    """Take generated trajectories through a run's stages; returns the number of rollouts."""
    method = Eef(rounds=rounds, states=STATES, rollouts=1)
    sections = {"name": "eef", "rounds": rounds, "states": STATES, "rollouts": 1}
    webshop = {name: {"name": "webshop"} for name in ("env", "expert")}
    config = config_lib.plain(config_lib.read({**webshop, "method": sections}))
    held_out = list(experts_of(tasks_of(500, "test")))
    with open_workdir(root, config) as work:
        stage = _started(work, "expert")
        write_trajectories(stage.folder, experts_of(tasks))
        write_json(stage.folder / "scores.json", scores_lib.score_summary(held_out))
        experts = index_trajectories(stage.folder)
        _commit(stage, play.counts(experts))
        memory.note("expert")
        rollouts: tuple[Attempt, ...] = ()
        for number in range(rounds + 1):
            if number:
                attempts = Attempts(experts=experts, rollouts=rollouts)
                episodes = method.episodes(attempts, tasks, number, MAX_STEPS)
                rollouts += _explore(_started(work, f"round_{number}/explore"), episodes)
                memory.note(f"explore {number}")
            attempts = Attempts(experts=experts, rollouts=rollouts)
            stage = _started(work, f"round_{number}/select")
            made = _select(stage, method, attempts, tasks, number)
            memory.note(f"select {number}")
            tuned = {"examples": made.examples, "steps": 0, "tokens": 0, "weighted_tokens": 0}
            _commit(_started(work, f"round_{number}/tune"), tuned | {"padding": 0.0})
            stage = _started(work, f"round_{number}/evaluate")
            write_trajectories(stage.folder, held_out)
            write_json(stage.folder / "scores.json", scores_lib.score_summary(held_out))
            _commit(stage, play.counts(held_out) | {"tokens": {}})
        report.write(work)
        memory.note("report")
    return len(rollouts)


def _started(work: Workdir, name: str) -> Stage:
    stage = work.stage(name)
    stage.start()
    return stage


def _commit(stage: Stage, counts: dict[str, Any]) -> None:
    stage.commit(counts | {"seconds": 0.0}, {})


def _explore(stage: Stage, episodes: Sequence[Episode]) -> tuple[Attempt, ...]:
    with keeping.Keeper(stage.parts, ScriptedPolicy(str, name="x"), writer=0) as keeper:
        for episode in episodes:
            keeper.keep(played(episode))
    with keeping.kept_episodes(stage.parts) as kept:
        write_trajectories(stage.folder, gather.in_order(kept, episodes, label="explore"))
    attempts = index_trajectories(stage.folder)
    _commit(stage, play.counts(attempts) | {"tokens": {}})
    return attempts


def _select(
    stage: Stage, method: Eef, attempts: Attempts, tasks: Sequence[Task], number: int
) -> encode.Counts:
    selections = method.select(attempts, tasks, number)
    prompt = (Message(role="system", content=_text(1, 800)),)
    examples, counts = encode.encode_all(
        selections, lambda _: prompt, Chat(), encode.Options(max_length=4096)
    )
    write_selections(stage.folder, selections)
    if examples:  # the generated expert wins nothing: there is no clone
        tfrecord.write(stage.folder / "dataset", examples)
    facts = dict(method.facts(attempts, tasks, number)) if number else {}
    _commit(stage, dataclasses.asdict(counts) | {"facts": facts})
    return counts


def main() -> None:
    """Measure, print a table, and write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=11_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workdir", type=pathlib.Path, help="where the run is written, and left")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("benchmarks/results/memory.json")
    )
    args = parser.parse_args()
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        root = epath.Path(args.workdir or pathlib.Path(folder) / "run")
        rollouts = run_rounds(root, tasks_of(args.tasks), args.rounds, memory)
        size = sum(p.stat().st_size for p in pathlib.Path(root).rglob("*.jsonl"))
    peak = memory.rows[-1]["peak_gib"]
    name = f"peak memory over {rollouts:,} rollouts ({size / 2**30:.1f} GiB of files)"
    print(table([Measurement(name=name, value=peak, unit="GiB", bound=BOUND_GIB)]))
    figures = {
        "machine": machine.describe(),
        "provenance": collect_provenance({}, 0),
        "tasks": args.tasks,
        "rounds": args.rounds,
        "rollouts": rollouts,
        "files_gib": round(size / 2**30, 2),
        "peak_gib": peak,
        "parts": memory.rows,
    }
    write_json(args.out, figures)
