"""Determinism, speed and robustness of ScienceWorld: `python -m benchmarks.scienceworld`.

Prints one table of measurements with their required bounds. Parts:

    gold     gold paths over all task types, replayed in two JVMs: identical texts, score 100
    step     a step of the environment against the same simulator calls without it
    workers  two of our JVMs against two processes of the package's wrapper, steps per second
    branch   forks of expert trajectories against the wrapper replaying each of them, CPU seconds
    expert   how often the fallible gold expert wins
    soak     many episodes while JVMs are killed: all accounted for, memory constant

`workers` compares wall times, so nothing else should run. A whole run takes about 20 minutes on two
idle cores; smaller numbers are for trying it out.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from benchmarks.common import tables
from benchmarks.common.measurement import HEADER, Measurement
from benchmarks.scienceworld import official
from eef_jax import cli
from eef_jax.envs import scienceworld
from eef_jax.envs._jvm.process import Jvm, find_package
from eef_jax.envs.scienceworld import ScienceWorld
from eef_jax.envs.scienceworld.simulator import ENTRY_POINT, JAR, parse_payload
from eef_jax.errors import ConfigError, did_you_mean
from eef_jax.experts import gold
from eef_jax.methods import _forks
from eef_jax.rollout import loop
from eef_jax.types import Episode, Task, Trajectory

NUM_STATES = 5  # the paper's M
# Task types that the expert plays, and those of the soak.
EXPERT_TYPES = "find-*,lifespan-*,power-component*,chemistry-mix-paint-*,test-conductivity*"
SOAK_TYPES = "find-*,lifespan-*,power-component,chemistry-mix-paint-*"

GoldPath = tuple[Task, list[str]]


def make(**fields: Any) -> ScienceWorld:
    """Create the environment with the package's simplifications `easy` and one JVM."""
    return scienceworld.make(
        scienceworld.Config(**{"simplifications": "easy", "jvms": 1, "timeout_s": 300.0, **fields})
    )


def gold_paths(count: int, *, short: bool = False) -> list[GoldPath]:
    """Return the gold paths of the first training tasks, whose types alternate."""
    with contextlib.closing(make()) as env:
        return [(task, env.gold_path(task, short=short)) for task in env.tasks("train")[:count]]


def measure_gold_paths(count: int) -> list[Measurement]:
    """Replay gold paths in two JVMs."""
    same = won = 0
    with contextlib.closing(make()) as one, contextlib.closing(make()) as two:
        for task, path in gold_paths(count):
            games = [env.game() for env in (one, two)]
            for game in games:
                game.reset(task)
            first, second = (game.replay(path) for game in games)
            same += first == second and games[0].fingerprints == games[1].fingerprints
            won += one.is_win(sum(result.reward for result in first))
    return [
        _share(f"of {count} gold paths replay identically in two JVMs", same, count),
        _share(f"of {count} gold paths reach 100", won, count),
    ]


def measure_steps(count: int) -> list[Measurement]:
    """Time our step and the simulator calls without it on the same paths, alternately."""
    ours = bare = 0.0
    package, _ = find_package("scienceworld", extra="scienceworld")
    chosen = gold_paths(count)
    jvm = Jvm(package / JAR, entry_point=ENTRY_POINT, timeout_s=300)
    with contextlib.closing(make()) as env, contextlib.closing(jvm):
        server = jvm.entry_point
        for turn, (task, path) in enumerate([chosen[0], *chosen]):
            game = env.game()
            game.reset(task)
            _start_bare(server, task)
            begun = time.perf_counter()
            for action in path:
                game.step(action)
            between = time.perf_counter()
            for action in path:
                server.step(action)
                listing = server.getValidActionObjectCombinations()
                server.getScore(), server.getCompleted(), server.getNumMoves()
            del listing
            if turn:  # the first one is a warm-up
                ours += between - begun
                bare += time.perf_counter() - between
    return [Measurement(name="env.step over bare calls", value=ours / bare, unit="x", bound=1.05)]


def _start_bare(server: Any, task: Task) -> None:
    server.load(*parse_payload(task), False)
    server.step("look around")
    server.getValidActionObjectCombinations()


def measure_workers(count: int) -> list[Measurement]:
    """Time two of our JVMs and two processes of the wrapper, each with half of the paths."""
    chosen = gold_paths(count)
    halves = [chosen[::2], chosen[1::2]]
    with contextlib.closing(make(jvms=2)) as env:

        def play(half: Sequence[GoldPath]) -> int:
            steps, game = 0, env.game()
            for task, path in half:
                game.reset(task)
                steps += sum(len(game.replay([action])) for action in path)
            return steps

        with concurrent.futures.ThreadPoolExecutor(2) as threads:
            list(threads.map(play, [half[:1] for half in halves]))
            begun = time.perf_counter()
            ours = sum(threads.map(play, halves)) / (time.perf_counter() - begun)
    found, seconds = _play_in_wrappers(halves)
    theirs = sum(process["steps"] for process in found) / seconds
    print(f"workers: {ours:.1f} steps/s, the wrapper {theirs:.1f} steps/s", file=sys.stderr)
    return [_ratio("two workers over two of the wrapper's, steps/s", ours / theirs, 1.7)]


def measure_forks(count: int) -> list[Measurement]:
    """Time reaching every explored state of `count` trajectories here and in the wrapper."""
    branches = [
        (task, path[:step])
        for task, path in gold_paths(count)
        for step in _forks.fork_steps(len(path), NUM_STATES)
    ]
    with contextlib.closing(make()) as env:
        game = env.game()
        game.reset(branches[0][0])
        game.replay(branches[0][1])
        before = official.cpu(env.pool.pids()[0])
        for task, prefix in branches:
            game.reset(task)
            game.replay(prefix)
        ours = official.cpu(env.pool.pids()[0]) - before
    theirs = _play_in_wrappers([branches])[0][0]["cpu_s"]
    print(f"branch: {ours:.1f} CPU s, the wrapper {theirs:.1f} CPU s", file=sys.stderr)
    return [_ratio(f"{len(branches)} forks: the wrapper's CPU s over ours", theirs / ours, 1.5)]


def measure_expert(count: int) -> list[Measurement]:
    """Let the expert play training tasks of short types under ETO's simplifications."""
    with contextlib.closing(make(tasks=EXPERT_TYPES, simplifications="eto", jvms=2)) as env:
        episodes = _episodes(env, count)
        policy = gold.make(gold.Config(), env=env)
        played = loop.play_episodes_sync(
            env, policy, episodes, concurrency=2, env_threads=2, env_timeout_s=600
        )
    won = sum(trajectory.win for trajectory in played)
    scored = sum(any(s.info["score"] > 0 for s in t.steps) for t in played if not t.win)
    print(f"expert: {won} of {count} won; {scored} of the others had scored", file=sys.stderr)
    share = Measurement(name="wins of the gold expert", value=100 * won / count, unit="%", bound=30)
    return [
        dataclasses.replace(share, at_most=False),
        dataclasses.replace(share, name="the same", bound=45),
    ]


def _episodes(env: ScienceWorld, count: int, *, max_steps: int = 1000) -> list[Episode]:
    tasks = env.tasks("train")
    return [
        Episode(id=f"{n}", task=tasks[n % len(tasks)], round=0, attempt=n, max_steps=max_steps)
        for n in range(count)
    ]


def measure_soak(episodes: int, kills: int) -> list[Measurement]:
    """Play the fallible expert while JVMs are killed at random."""
    rng = random.Random(0)
    with contextlib.closing(make(tasks=SOAK_TYPES, jvms=2, max_steps=30)) as env:
        memory: list[float] = []
        ended: list[Trajectory] = []

        def on_done(trajectory: Trajectory) -> None:
            ended.append(trajectory)
            pids = env.pool.pids()
            memory.append(_resident([os.getpid(), *pids]))
            if pids and len(ended) < episodes and len(ended) % (episodes // (kills + 1)) == 0:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rng.choice(pids), 9)

        loop.run_episodes_sync(
            env,
            gold.make(gold.Config(), env=env),
            _episodes(env, episodes, max_steps=30),
            concurrency=2,
            env_threads=2,
            env_timeout_s=3600,
            on_done=on_done,
        )
        stats = env.pool.stats
    outcomes = collections.Counter(str(trajectory.outcome) for trajectory in ended)
    print(f"soak: {dict(outcomes)}, {stats}", file=sys.stderr)
    quarter = max(1, len(memory) // 4)
    growth = statistics.median(memory[-quarter:]) / statistics.median(memory[quarter : 2 * quarter])
    broken = sum(not trajectory.outcome.completed for trajectory in ended)
    return [
        _share(f"of {episodes} episodes are accounted for", len(ended), episodes),
        Measurement(name="of them ended by infrastructure", value=broken, unit="", bound=kills),
        _share("JVMs were killed meanwhile", stats.lost, kills),
        Measurement(
            name="memory at the end over the second quarter's", value=growth, unit="x", bound=1.1
        ),
    ]


def _play_in_wrappers(lists: Sequence[Sequence[GoldPath]]) -> tuple[list[dict[str, Any]], float]:
    """Play each list of paths in a process of the wrapper, all at once.

    Returns:
        What each process reports, and the wall time in seconds.
    """
    command = [sys.executable, "-m", official.__name__]
    processes = []
    for chosen in lists:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        rows = [[*parse_payload(task), path] for task, path in chosen]
        _write_line(process, json.dumps(rows))
        processes.append(process)
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    begun = time.perf_counter()
    for process in processes:
        _write_line(process, "go")
    found = [json.loads(p.stdout.readline()) for p in processes if p.stdout is not None]
    seconds = time.perf_counter() - begun
    for process in processes:
        process.communicate()
    return found, seconds


def _write_line(process: subprocess.Popen, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _resident(pids: Sequence[int]) -> float:
    """Return the resident memory of processes, in MB."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def _share(name: str, value: int, count: int) -> Measurement:
    return Measurement(name=name, value=value, unit="", bound=count, at_most=False)


def _ratio(name: str, value: float, bound: float) -> Measurement:
    return Measurement(name=name, value=value, unit="x", bound=bound, at_most=False)


FLAGS = flags.FLAGS
PARTS: dict[str, Callable[[], list[Measurement]]] = {
    "gold": lambda: measure_gold_paths(FLAGS.paths),
    "step": lambda: measure_steps(FLAGS.trajectories),
    "workers": lambda: measure_workers(2 * FLAGS.trajectories),
    "branch": lambda: measure_forks(FLAGS.trajectories),
    "expert": lambda: measure_expert(FLAGS.expert_tasks),
    "soak": lambda: measure_soak(FLAGS.episodes, FLAGS.kills),
}


def main() -> None:
    """Measure the parts and print the table row by row."""
    for part in FLAGS.parts:
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r} in --parts: {did_you_mean(part, PARTS)}")
    print("\n".join(tables.head(HEADER, texts=len(HEADER))), flush=True)
    for part in FLAGS.parts:
        for measurement in PARTS[part]():
            print(measurement.row(), flush=True)


def run() -> None:
    """Run the command."""
    flags.DEFINE_list("parts", list(PARTS), "Parts to measure.")
    flags.DEFINE_integer("paths", 100, "Number of gold paths to replay.", lower_bound=1)
    flags.DEFINE_integer("trajectories", 20, "Number of paths to time and to fork.", lower_bound=1)
    flags.DEFINE_integer("expert_tasks", 78, "Number of tasks the expert plays.", lower_bound=1)
    flags.DEFINE_integer("episodes", 500, "Number of episodes of the soak.", lower_bound=4)
    flags.DEFINE_integer("kills", 20, "Number of JVMs killed during the soak.", lower_bound=0)
    cli.run(main)
