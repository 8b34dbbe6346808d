"""An expert that follows the simulator's own solution, with a fallible memory.

Works with every environment that has `gold_path(task)`. For each task a pinned seed decides once
whether the expert follows the path or fails in one of the ways in which agents fail at long tasks:
it skips steps, it focuses on the wrong object (which ScienceWorld punishes for good), or it stops
too early. It reads the same observations as an agent.
"""

import asyncio
import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from eef_jax.config.fields import check, field
from eef_jax.errors import ConfigError, PolicyError
from eef_jax.policies.base import Policy
from eef_jax.types import ChatRequest, Completion, Task

NAME = "gold"  # in trajectories
LOOK_AROUND = "look around"
# Marks a focus in the planned actions that is replaced by one on another object when it is played.
WRONG_FOCUS = "not: "
_ARRIVALS = ("teleport to ", "go to ")
# An object in a room's description, one per line, up to where its state begins.
_OBJECT = re.compile(r"^\s+an? ([a-z0-9 ]+?)(?=\.| \(|,|$)", re.MULTILINE)
_FOCUS = re.compile(r"focus on (.+)")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The section `expert` of gold paths: probabilities of failures, drawn once a task.

    They are at most 1 together; otherwise the path is followed to its end.
    """

    seed: int = field(0, "decides where it fails; attempts at a task are all played the same way")
    skip: float = field(0.35, "that it leaves out one to three steps", at_least=0, at_most=1)
    wrong: float = field(0.18, "that it focuses on another visible object", at_least=0, at_most=1)
    stop: float = field(
        0.15, "that it stops after a quarter to nine tenths of the path", at_least=0, at_most=1
    )
    look: bool = field(
        False,
        "look around in a room before focusing on anything there: a gold path names objects that "
        "were never observed, which a policy cannot learn from it",
    )

    def __post_init__(self) -> None:
        check(self, "expert")
        rates = (self.skip, self.wrong, self.stop)
        if sum(rates) > 1:
            raise ConfigError(
                f"expert.skip, wrong and stop are {rates}, expected probabilities of at most 1 "
                "together"
            )


def make(config: Config, *, env: Any) -> Policy:
    """Create the expert.

    Args:
        config: how it fails.
        env: the environment to play; needs `gold_path(task)` in addition to the protocol.

    Raises:
        ConfigError: the environment has no gold paths.
    """
    if not hasattr(env, "gold_path"):
        raise ConfigError(
            f"expert 'gold' needs an environment with gold paths; {env.name} has none: choose "
            "another expert.name, or give a file (expert.trajectories)"
        )
    tasks = {task.id: task for split in ("train", "dev", "test") for task in env.tasks(split)}
    look = config.look
    gold_path = (lambda task: insert_looks(env.gold_path(task))) if look else env.gold_path
    return GoldExpert(gold_path, env.render, tasks, config, name=NAME)


class GoldExpert:
    """The policy; implements `eef_jax.policies.base.Policy`.

    Args:
        gold_path: returns the solution of a task.
        render: words an action as a message.
        tasks: the environment's tasks by id.
        rates: probabilities of the failures, and the seed that decides where.
        name: the expert's name in trajectories.
    """

    tokenizer = ""
    concurrency = 64

    def __init__(
        self,
        gold_path: Callable[[Task], Sequence[str]],
        render: Callable[[str], str],
        tasks: dict[str, Task],
        rates: Config,
        *,
        name: str,
    ):
        self.name = name
        self._gold_path = gold_path
        self._render = render
        self._tasks = tasks
        self._rates = rates
        self._seed = rates.seed
        self._planned: dict[str, list[str]] = {}  # by episode

    async def act(self, request: ChatRequest) -> Completion:
        """Answer with the planned action of this turn; quit after the last one."""
        if request.episode not in self._planned:
            self._planned[request.episode] = await self._plan(request.task)
        actions = self._planned[request.episode]
        if request.turn >= len(actions):
            return Completion(text="", finish="quit")
        action = actions[request.turn]
        if action.startswith(WRONG_FOCUS):
            observation = request.messages[-1].content
            right_focus = action.removeprefix(WRONG_FOCUS)
            action = wrong_focus(right_focus, observation, self._rng(request.task))
        return Completion(text=self._render(action))

    async def _plan(self, task: str) -> list[str]:
        if task not in self._tasks:
            raise PolicyError(f"expert {self.name!r} does not know task {task!r}")
        # Generating a gold path may take seconds, so it runs outside the event loop.
        path = await asyncio.to_thread(self._gold_path, self._tasks[task])
        return plan_actions(path, self._rates, self._rng(task))

    def _rng(self, task: str) -> random.Random:
        # Depends on the task only, so that attempts and forks of a task agree.
        return random.Random(f"{self._seed} {self.name} {task}")

    def finish(self, episode: str) -> None:
        """Drop the planned actions of an episode."""
        self._planned.pop(episode, None)

    def spent(self) -> dict[str, float]:
        """Return no costs: gold paths are free."""
        return {}

    async def close(self) -> None:
        """Do nothing: the JVM of the gold paths belongs to the environment."""


def plan_actions(path: Sequence[str], rates: Config, rng: random.Random) -> list[str]:
    """Draw the actions that the expert will perform.

    A wrong focus depends on what the expert will see, so it is planned as the right one prefixed by
    `WRONG_FOCUS`, after a look around; `wrong_focus` replaces it when it is played.

    Args:
        path: the gold path.
        rates: probabilities of the failures.
        rng: source of all random choices.

    Returns:
        Actions, possibly prefixed by `WRONG_FOCUS`.
    """
    steps = list(path)
    draw = rng.random()
    if draw < rates.skip:
        for _ in range(rng.randint(1, 3)):
            if len(steps) > 1:
                del steps[rng.randrange(len(steps))]
    elif draw < rates.skip + rates.wrong:
        focuses = [index for index, step in enumerate(steps) if _FOCUS.fullmatch(step)]
        if focuses:
            index = rng.choice(focuses)
            looked = index > 0 and steps[index - 1] == LOOK_AROUND
            look = [] if looked else [LOOK_AROUND]
            steps[index : index + 1] = [*look, WRONG_FOCUS + steps[index]]
        else:
            del steps[rng.randrange(len(steps)) :]
    elif draw < rates.skip + rates.wrong + rates.stop:
        del steps[max(1, int(len(steps) * rng.uniform(0.25, 0.9))) :]
    return steps


def insert_looks(path: Sequence[str]) -> list[str]:
    """Insert a look around before the first focus in each room of the path."""
    steps: list[str] = []
    seen = False
    for step in path:
        if _FOCUS.fullmatch(step) and not seen:
            steps.append(LOOK_AROUND)
            seen = True
        seen = (seen or step == LOOK_AROUND) and not step.startswith(_ARRIVALS)
        steps.append(step)
    return steps


def wrong_focus(action: str, observation: str, rng: random.Random) -> str:
    """Return a focus on another object of the room, or `action` if there is no other object.

    Args:
        action: the right focus, `focus on NAME`.
        observation: description of the room.
        rng: chooses among the objects.
    """
    target = action.removeprefix("focus on ")
    others = [
        name
        for name in _OBJECT.findall(observation)
        if name not in target and target not in name and "substance" not in name
    ]
    return f"focus on {rng.choice(others)}" if others else action
