"""A simulator without Java that counts; enough to test pools, replays and lost JVMs."""

from typing import ClassVar

from eef_jax.envs._jvm.process import JvmLost
from eef_jax.envs._jvm.simulator import SimulatorStatus
from eef_jax.types import Task

TASK = Task(id="counter/0", env="counter", split="train", goal="count to ten")


class Counter:
    """Shows the sum of its actions; `die` breaks it, `bad` fails the task.

    `made` lists all of them; `drift` is added to what worlds show that are made from then on.
    """

    made: ClassVar[list["Counter"]] = []
    drift = 0

    def __init__(self):
        self.alive, self.calls, self.drift = True, 0, Counter.drift
        self.pid = len(Counter.made)
        Counter.made.append(self)

    def start(self, task):
        self._check()
        self.total, self.failed = 0, False
        return "0"

    def act(self, action):
        self._check()
        self.calls += 1
        if action == "die":
            self.alive = False
            raise JvmLost("killed by an action")
        if action == "hiccup" and self.pid == 0:
            self.alive = False
            raise JvmLost("the first world does not survive this")
        self.failed |= action == "bad"
        self.total += int(action) if action.isdigit() else 0
        return str(self.total + self.drift)

    def status(self):
        score = -1.0 if self.failed else self.total / 10
        return SimulatorStatus(score=score, terminated=self.failed or self.total >= 10)

    def admissible(self):
        return ["1", "2"]

    def close(self):
        self.alive = False

    def _check(self):
        if not self.alive:
            raise JvmLost("dead")
