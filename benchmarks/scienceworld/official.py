"""One process of ScienceWorld's own Python wrapper, for `benchmarks.scienceworld` to compare with.

Reads paths from standard input (JSON: a list of [task, variation, simplifications, actions]), plays
the first one to warm up, says `ready`, waits for a line, plays all of them, and tells the steps and
the CPU seconds, its JVM's included. Nothing of this package is imported.
"""

import json
import os
import pathlib
import sys
import time

# Without a constant identity hash the wrapper's games differ from run to run.
os.environ["JAVA_TOOL_OPTIONS"] = "-XX:+UnlockExperimentalVMOptions -XX:hashCode=2"
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Play."""
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


def play(env, paths) -> int:
    """Play paths from their tasks' starts; returns the number of steps, resets left out."""
    steps = 0
    for name, variation, simplifications, actions in paths:
        env.load(name, variation, simplifications)
        env.reset()
        for action in actions:
            env.step(action)
            steps += 1
    return steps


def cpu(jvm: int) -> float:
    """CPU seconds of this process and of a JVM."""
    fields = pathlib.Path(f"/proc/{jvm}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    main()
