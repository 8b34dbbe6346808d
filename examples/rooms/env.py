"""Rooms in a row: walk on while they are empty, then take the wanted thing."""

import dataclasses
import json

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
        self.at, (self.thing, self.place) = 0, json.loads(task.payload)
        return f"{task.goal}. {self.look()}"

    def step(self, action: str) -> StepResult:
        took = action == "take"
        won = float(took and self.at == self.place)
        self.at += not took
        return StepResult(observation=self.look(), reward=won, terminated=took)

    def look(self) -> str:
        return self.thing if self.at == self.place else "empty"

    def save(self) -> tuple:
        return self.at, self.thing, self.place

    def restore(self, state: tuple) -> None:
        self.at, self.thing, self.place = state

    def close(self) -> None: ...


def make_task(split: str, n: int) -> Task:
    """Every other task is easy: the wanted thing is in one of the first three rooms."""
    thing = ("lamp", "chair", "clock", "vase", "mirror", "desk", "rug", "shelf")[n % 8]
    place, tags = n // 2 % 3 + 3 * (n % 2), ("hard" if n % 2 else "easy",)
    goal, payload = f"{split} floor {n}: find the {thing}", json.dumps([thing, place])
    return Task(id=f"{split}/{n}", env="rooms", split=split, goal=goal, payload=payload, tags=tags)


Config = Rooms


def make(config: Rooms) -> Rooms:
    """The environment of a run."""
    return config
