"""Rooms in a row: walk on until the wanted thing is in the room, then take it."""

import dataclasses
import json
import random

from eef_jax.envs.base import StepResult
from eef_jax.types import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rooms:
    """The environment; fields declared here would be flags, `--config.env.FIELD`."""

    name, dataset_id, max_steps = "rooms", "rooms-1", 8

    def tasks(self, split: str) -> list[Task]:
        return [make_task(split, n) for n in range(60)]

    def prompt(self, task: Task) -> tuple:
        return ()  # no messages before the first observation, which says the goal

    def parse(self, message: str) -> str | None:
        return message if message in ("next", "take") else None

    def render(self, action: str, thought: str = "") -> str:
        return action

    def invalid(self, message: str) -> str:
        return "say next or take"

    def is_win(self, reward: float) -> bool:
        return reward == 1.0

    def game(self) -> "Game":
        return Game()

    def close(self) -> None: ...


class Game:
    """One walk through the rooms of a task."""

    def reset(self, task: Task) -> str:
        self.at, (self.rooms, self.wanted) = 0, json.loads(task.payload)
        return f"{task.goal}. {self.rooms[0]}"

    def step(self, action: str) -> StepResult:
        took = action == "take"
        self.at = min(self.at + (not took), len(self.rooms) - 1)
        won = float(took and self.rooms[self.at] == self.wanted)
        return StepResult(observation=self.rooms[self.at], reward=won, terminated=took)

    def save(self) -> tuple:
        return self.at, self.rooms, self.wanted

    def restore(self, state: tuple) -> None:
        self.at, self.rooms, self.wanted = state

    def close(self) -> None: ...


def make_task(split: str, n: int) -> Task:
    """Every other task is easy: the wanted thing is in one of the first two rooms."""
    things = "lamp chair clock vase mirror desk rug shelf".split()
    rooms = random.Random(f"{split} {n}").sample(things, 7)
    at, tags = (2 + n // 2 % 4, ("hard",)) if n % 2 else (n // 2 % 2, ("easy",))
    goal, payload = f"{split} floor {n}: find the {rooms[at]}", json.dumps([rooms, rooms[at]])
    return Task(id=f"{split}/{n}", env="rooms", split=split, goal=goal, payload=payload, tags=tags)


Config = Rooms


def make(config: Rooms) -> Rooms:
    """The environment of a run."""
    return config
