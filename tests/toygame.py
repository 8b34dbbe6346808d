"""A small deterministic text game that implements the environment contract, for tests.

A corridor of rooms with a key in one of them: walk with `left` / `right`, `take` the key, `open`
the door in the last room. Opening with the key wins (1.0), without it ends the game (0.25).
"""

import json
import re
import time

from eef_jax.envs.base import StepResult
from eef_jax.types import Message, Task

ROOMS = 5


class Corridor:
    """The environment; `trouble` maps an action to what goes wrong when it is done."""

    name = "corridor"
    max_steps = 20
    dataset_id = "corridor-1"

    def __init__(self, trouble=None):
        self.trouble = trouble or {}
        self.games = []

    def tasks(self, split):
        return tuple(
            Task(
                id=f"corridor/{split}/{i}",
                env=self.name,
                split=split,
                goal="open the door with the key",
                payload=json.dumps({"key": i % ROOMS}),
            )
            for i in range(8)
        )

    def prompt(self, task):
        return (
            Message(role="user", content=f"Play a game. {task.goal}."),
            Message(role="assistant", content="ok"),
        )

    def parse(self, message):
        found = re.search(r"do (left|right|take|open)\b", message)
        return found and found[1]

    def render(self, action, thought=""):
        return f"{thought} do {action}" if thought else f"do {action}"

    def invalid(self, message):
        return "say do left, do right, do take or do open"

    def is_win(self, reward):
        return reward >= 1.0

    def game(self):
        self.games.append(Game(self))
        return self.games[-1]

    def close(self):
        pass


class Game:
    """One walk through the corridor."""

    def __init__(self, env):
        self.env = env
        self.closed = False

    def reset(self, task):
        self.key, self.at, self.held = json.loads(task.payload)["key"], 0, False
        return self._look()

    def step(self, action):
        self._trouble(self.env.trouble.get(action))
        if action == "open" and self.at == ROOMS - 1:
            return StepResult(
                observation="open", reward=1.0 if self.held else 0.25, terminated=True
            )
        if action == "take" and self.at == self.key:
            self.held = True
        self.at += {"left": -1, "right": 1}.get(action, 0)
        self.at = min(max(self.at, 0), ROOMS - 1)
        return StepResult(observation=self._look(), reward=0.0, info={"room": self.at})

    def save(self):
        return (self.key, self.at, self.held)

    def restore(self, state):
        self.key, self.at, self.held = state

    def close(self):
        self.closed = True

    def _look(self):
        here = " a key lies here," * (self.at == self.key and not self.held)
        return f"room {self.at} of {ROOMS},{here} you hold {'a key' if self.held else 'nothing'}"

    def _trouble(self, trouble):
        if isinstance(trouble, Exception):
            raise trouble
        if trouble:
            time.sleep(trouble)


def solve(request):
    """The corridor's winning policy."""
    seen = request.messages[-1].content
    if "a key lies here" in seen:
        return "do take"
    if "hold nothing" in seen or f"room {ROOMS - 1}" not in seen:
        return "do right"
    return "do open"
