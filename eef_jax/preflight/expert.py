"""Whether the expert can answer, or its file fits the environment."""

import asyncio
from collections.abc import Mapping, Sequence

from eef_jax import config as config_lib
from eef_jax import plugins
from eef_jax.errors import ConfigError, DataError, PolicyError
from eef_jax.policies.base import Policy
from eef_jax.preflight.start import OPENINGS, Start, read_openings, spread
from eef_jax.rollout import failures, loop, play
from eef_jax.types import Attempt, Step, Task, Trajectory

TRIAL_TASKS = 2
TRIAL_TURNS = 3
_TEXT_CHARS = 300  # of a text that an error quotes


def check_plays(start: Start) -> None:
    """Ask the expert: a served one for one short message, others for the first turns of two tasks.

    An expert's module may have a function `check_server(config)`, which makes one cheap request.
    Experts without it are taken to cost nothing.

    Raises:
        ConfigError: the expert cannot be made, or says messages that the environment cannot read.
        PolicyError: it does not answer; with the reason.
    """
    section = start.config.expert
    if not section.name:
        raise ConfigError(
            "the config names neither an expert (config.expert.name) nor a file of trajectories "
            "(config.expert.trajectories): set one of them"
        )
    module = plugins.load("experts", section.name)
    if hasattr(module, "check_server"):
        module.check_server(section.options)
        return
    if start.openings.failed:
        return  # no expert could play what cannot be started, which `check_openings` tells
    expert = config_lib.make("expert", section, env=start.env)
    try:
        played = _try(start, expert)
    finally:
        asyncio.run(expert.close())
    failed = [t for t in played if not t.outcome.completed]
    if failed:
        lines = "\n".join(f"  {line}" for line in failures.reasons(failed))
        raise PolicyError(
            f"the expert {section.name!r} cannot play {start.env.name}: {len(failed)} of "
            f"{len(played)} episodes that were tried failed:\n{lines}\nchoose another "
            "config.expert.name, or another config.env.prompt"
        )
    _check_messages(start, [step for trajectory in played for step in trajectory.steps])


def check_file(start: Start) -> None:
    """Check the expert's trajectories against the environment: tasks, goals, first observations.

    Raises:
        DataError: the file is damaged, or was made with another catalogue, seed or split; with
            both texts.
    """
    tasks = {task.id: task for task in start.env.tasks("train")}
    known = [t for t in start.expert_file if t.task.id in tasks]
    path = start.config.expert.trajectories
    if not known:
        seen = ", ".join(dict.fromkeys(t.task.id for t in start.expert_file[:3])) or "none"
        raise DataError(
            f"none of the {len(start.expert_file)} trajectories of {path} is of a train task of "
            f"{start.env.name}: its tasks are {seen}, expected ids such as "
            f"{', '.join(list(tasks)[:3])}; set config.env as it was when they were played"
        )
    _check_goals(path, known, tasks)
    _check_observations(start, path, known, tasks)
    _check_messages(start, [step for t in known[:OPENINGS] for step in t.load().steps])


def _try(start: Start, expert: Policy) -> list[Trajectory]:
    rollout = start.config.rollout
    tasks = spread(start.env.tasks("train"), TRIAL_TASKS)
    return loop.play_episodes_sync(
        start.env,
        expert,
        play.from_start(tasks, TRIAL_TURNS, prefix="trial"),
        **play.calls(rollout),
        max_consecutive_invalid=TRIAL_TURNS,
        source="expert",
        label="",
    )


def _check_messages(start: Start, steps: Sequence[Step]) -> None:
    """Check that messages hold actions, and that an action survives being worded and read."""
    env = start.env
    if steps and not any(step.action for step in steps):
        raise ConfigError(
            f"none of the expert's first {len(steps)} messages holds an action that {env.name} "
            f"reads, such as {_quoted(steps[0].message)}: choose another config.env.prompt"
        )
    for step in steps:
        if step.action is not None and (back := env.parse(env.render(step.action))) != step.action:
            raise ConfigError(
                f"{env.name} words the expert's action {step.action!r} as "
                f"{_quoted(env.render(step.action))} but reads that as {back!r}: choose another "
                "config.env.prompt, or mend the environment's render and parse"
            )


def _check_goals(path: str, trajectories: Sequence[Attempt], tasks: Mapping[str, Task]) -> None:
    other = [t for t in trajectories if t.task.goal != tasks[t.task.id].goal]
    if other:
        first = other[0]
        raise DataError(
            f"{path} was made for other tasks: {len(other)} of {len(trajectories)} trajectories "
            f"have another goal than the environment's task of that id. {first.task.id} there: "
            f"{_quoted(first.task.goal)}; here: {_quoted(tasks[first.task.id].goal)}. Set "
            "config.env (data, seed, splits) as it was when they were played"
        )


def _check_observations(
    start: Start, path: str, trajectories: Sequence[Attempt], tasks: Mapping[str, Task]
) -> None:
    first = {t.task.id: t for t in reversed(trajectories) if t.length}
    sampled = spread([tasks[name] for name in first], OPENINGS)
    for task, messages in read_openings(start, sampled).messages.items():
        there = first[task].load().steps[0].observation
        if messages[-1].content != there:
            raise DataError(
                f"{path} was made in another environment: the first observation of {task} there is "
                f"{_quoted(there)}; here it is {_quoted(messages[-1].content)}. Set "
                "config.env (data, prompt, observation mode) as it was when they were played"
            )


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _TEXT_CHARS else f"{text[:_TEXT_CHARS]}...")
