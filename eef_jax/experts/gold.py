"""An expert that knows the simulator's own solution and does not always keep to it.

Works with every environment that has `gold(task)`. For each task it is drawn once, from a pinned
seed, whether the expert keeps to the path or fails in one of the ways in which agents fail at long
tasks: it leaves out steps, it focuses on the wrong thing (which ScienceWorld punishes for good), or
it thinks it is done and stops. It reads what an agent reads. Nothing in here labels a task.
"""

import asyncio
import dataclasses
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from eef_jax.errors import ConfigError, PolicyError
from eef_jax.policies.base import Policy
from eef_jax.types import Completion, Request, Task

LOOK = "look around"
NOT = "not: "
_ARRIVE = ("teleport to ", "go to ")
# What a room's description lists, one thing a line, up to where its state begins.
_THING = re.compile(r"^\s+an? ([a-z0-9 ]+?)(?=\.| \(|,|$)", re.MULTILINE)
_FOCUS = re.compile(r"focus on (.+)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Habits:
    """How often the expert fails in each way (0-1, together at most 1); else it keeps to the path.

    Attributes:
        skip: that it leaves out one to three steps.
        wrong: that it focuses on another thing that it sees.
        stop: that it stops after a quarter to nine tenths of the path.
    """

    skip: float = 0.35
    wrong: float = 0.18
    stop: float = 0.15

    def __post_init__(self) -> None:
        shares = (self.skip, self.wrong, self.stop)
        if min(shares) < 0 or sum(shares) > 1:
            raise ConfigError(
                f"expert.skip, wrong and stop are {shares}, expected shares of at most 1 together"
            )


def make(
    *,
    env: Any,
    seed: int = 0,
    name: str = "gold",
    skip: float = Habits.skip,
    wrong: float = Habits.wrong,
    stop: float = Habits.stop,
    look: bool = False,
) -> Policy:
    """Make the expert.

    Args:
        env: the environment it plays; has `gold(task)` beside the protocol's.
        seed: decides where it fails; a task is always played the same way.
        name: the expert's name in trajectories.
        skip: see `Habits`; 0, 0 and 0 make an expert that never fails.
        wrong: likewise.
        stop: likewise.
        look: it looks around in a room before it focuses on anything there. A solution names what
            its maker knows; who learns from it can only name what was shown.

    Raises:
        ConfigError: the environment has no gold paths, or the shares are none.
    """
    if not hasattr(env, "gold"):
        raise ConfigError(
            f"expert 'gold' needs an environment with gold paths; {env.name} has none: choose "
            "another expert.name, or give a file (expert.trajectories)"
        )
    habits = Habits(skip=skip, wrong=wrong, stop=stop)
    tasks = {task.id: task for split in ("train", "dev", "test") for task in env.tasks(split)}
    gold = (lambda task: look_first(env.gold(task))) if look else env.gold
    return GoldExpert(gold, env.render, tasks, habits, seed=seed, name=name)


class GoldExpert:
    """The policy (see `eef_jax.policies.base.Policy`).

    Args:
        gold: the solution of a task.
        render: says an action as a message.
        tasks: the environment's tasks by id.
        habits: how it fails.
        seed: see `make`.
        name: see `make`.
    """

    tokenizer = ""
    concurrency = 64

    def __init__(
        self,
        gold: Callable[[Task], Sequence[str]],
        render: Callable[[str], str],
        tasks: dict[str, Task],
        habits: Habits,
        *,
        seed: int,
        name: str,
    ):
        self.name = name
        self._gold = gold
        self._render = render
        self._tasks = tasks
        self._habits = habits
        self._seed = seed
        self._plans: dict[str, list[str]] = {}

    async def act(self, request: Request) -> Completion:
        """Answer a conversation, from its turn's place in the plan; at its end, quit."""

        def rng_of(task: str) -> random.Random:
            return random.Random(f"{self._seed} {self.name} {task}")

        if request.episode not in self._plans:
            if request.task not in self._tasks:
                raise PolicyError(f"expert {self.name!r} does not know task {request.task!r}")
            path = await asyncio.to_thread(self._gold, self._tasks[request.task])
            self._plans[request.episode] = plan(path, self._habits, rng_of(request.task))
        steps = self._plans[request.episode]
        if request.turn >= len(steps):
            return Completion(text="", finish="quit")
        action = steps[request.turn]
        if action.startswith(NOT):
            seen = request.messages[-1].content
            action = misfocus(action.removeprefix(NOT), seen, rng_of(request.task))
        return Completion(text=self._render(action))

    def finish(self, episode: str) -> None:
        """Forget a conversation's plan."""
        self._plans.pop(episode, None)

    def spent(self) -> dict[str, float]:
        """Gold paths are free."""
        return {}

    async def close(self) -> None:
        """Nothing to free: the JVM of gold paths is the environment's."""


def plan(path: Sequence[str], habits: Habits, rng: random.Random) -> list[str]:
    """What the expert will do, drawn once for a task.

    A focus on the wrong thing is the right one with `NOT` before it: what it becomes depends on
    what the expert then sees (see `misfocus`), so it looks around first.
    """
    steps = list(path)
    draw = rng.random()
    if draw < habits.skip:
        for _ in range(rng.randint(1, 3)):
            if len(steps) > 1:
                del steps[rng.randrange(len(steps))]
    elif draw < habits.skip + habits.wrong:
        focuses = [place for place, step in enumerate(steps) if _FOCUS.fullmatch(step)]
        if focuses:
            place = rng.choice(focuses)
            looked = place > 0 and steps[place - 1] == LOOK
            steps[place : place + 1] = [*([] if looked else [LOOK]), NOT + steps[place]]
        else:
            del steps[rng.randrange(len(steps)) :]
    elif draw < habits.skip + habits.wrong + habits.stop:
        del steps[max(1, int(len(steps) * rng.uniform(0.25, 0.9))) :]
    return steps


def look_first(path: Sequence[str]) -> list[str]:
    """The path with a look around before the first focus in each room that it comes to."""
    steps: list[str] = []
    seen = False
    for step in path:
        if _FOCUS.fullmatch(step) and not seen:
            steps.append(LOOK)
            seen = True
        seen = (seen or step == LOOK) and not step.startswith(_ARRIVE)
        steps.append(step)
    return steps


def misfocus(action: str, seen: str, rng: random.Random) -> str:
    """A focus on another thing of the room than `action` names; `action` where there is none."""
    named = action.removeprefix("focus on ")
    things = [
        thing
        for thing in _THING.findall(seen)
        if thing not in named and named not in thing and "substance" not in thing
    ]
    return f"focus on {rng.choice(things)}" if things else action
