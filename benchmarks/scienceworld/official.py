"""One process of ScienceWorld's own Python wrapper, the baseline of `benchmarks.scienceworld`.

Reads paths from standard input (JSON: a list of [task, variation, simplifications, actions]), plays
the first one as a warm-up, prints `ready`, waits for a line, plays all of them, and prints the
number of steps and the CPU seconds, its JVM's included. Imports nothing from eef_jax.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any

# Without a constant identity hash the wrapper's episodes differ from run to run.
os.environ["JAVA_TOOL_OPTIONS"] = "-XX:+UnlockExperimentalVMOptions -XX:hashCode=2"
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Play the paths from standard input."""
    from scienceworld import ScienceWorldEnv

    paths = json.loads(sys.stdin.readline())
    env = ScienceWorldEnv(envStepLimit=10_000)
    play(env, paths[:1])
    print("ready", flush=True)
    sys.stdin.readline()
    before = cpu(env._gateway.java_process.pid)
    steps = play(env, paths)
    spent = cpu(env._gateway.java_process.pid) - before
    print(json.dumps({"steps": steps, "cpu_s": spent}), flush=True)
    env.close()


def play(env: Any, paths: list[Any]) -> int:
    """Play paths from their tasks' starts; return the number of steps without resets."""
    steps = 0
    for name, variation, simplifications, actions in paths:
        env.load(name, variation, simplifications)
        env.reset()
        for action in actions:
            env.step(action)
            steps += 1
    return steps


def cpu(jvm: int) -> float:
    """Return the CPU seconds of this process and of the JVM with this process id."""
    fields = pathlib.Path(f"/proc/{jvm}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
