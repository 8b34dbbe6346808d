"""A small finished run made by hand: EEF on four train tasks, two rounds, four held-out tasks."""

import dataclasses

from eef_jax import config as config_lib
from eef_jax import scores as scores_lib
from eef_jax.methods.base import Attempts
from eef_jax.methods.eef import Eef
from eef_jax.storage.files import write_json
from eef_jax.storage.selections import write_selections
from eef_jax.storage.trajectories import write_trajectories
from eef_jax.storage.workdir import open_workdir
from eef_jax.types import Outcome, Step, Task, Trajectory

CONFIG = config_lib.plain(
    config_lib.read(
        {
            "seed": 7,
            "env": {"name": "webshop"},
            "expert": {"name": "webshop"},
            "method": {"name": "eef", "rounds": 2, "states": 3, "rollouts": 1},
        }
    )
)
PROVENANCE = {"commit": "abc", "config_hash": "0123", "seed": 7, "versions": {"python": "3.11"}}


def tasks(split, count=4):
    """Every other task is hard."""
    return [
        Task(
            id=f"toy/{split}/{n}",
            env="toy",
            split=split,
            goal=f"goal {n}",
            tags=("hard" if n % 2 else "easy",),
        )
        for n in range(count)
    ]


def attempt(task, actions, win, *, source="policy", id="", **fields):
    return Trajectory(
        id=id or f"{source}/{task.id}",
        task=task,
        steps=tuple(Step(observation="page", message=a, action=a, source=source) for a in actions),
        final_observation="end",
        reward=1.0 if win else 0.25,
        win=win,
        outcome=Outcome.WON if win else Outcome.FAILED,
        source=source,
        agent=source,
        **fields,
    )


def experts():
    """Wins easy tasks in two actions, fails hard ones in four."""
    return tuple(
        attempt(
            task,
            ["search[thing]", "click[next >]", f"click[id{n}]", "click[buy now]"][
                : 4 if n % 2 else 2
            ],
            win=not n % 2,
            source="expert",
        )
        for n, task in enumerate(tasks("train"))
    )


def rollouts(method, attempts, number):
    """From s_0 easy tasks are won; on hard ones s_0 fails, s_1 and s_3 win, s_2 fails."""
    played = []
    for order in method.episodes(attempts, tasks("train"), number, 10):
        hard = "hard" in order.task.tags
        before = order.parent.steps[: order.fork_step] if order.parent else ()
        win = order.fork_step in (1, 3) if hard else True
        own = attempt(
            order.task,
            [f"click[own{number}]"],
            win,
            id=order.id,
            round=number,
            attempt=order.attempt,
            parent=order.parent.id if order.parent else None,
            fork_step=order.fork_step,
        )
        played.append(dataclasses.replace(own, steps=(*before, *own.steps)))
    return played


def evaluated(number, rounds=2):
    """The clone wins tasks 0 and 2; the last round wins 0, 1 and 3 and so loses 2."""
    wins = {0, 1, 3} if number == rounds else {0, 2}
    return [
        attempt(task, ["search[thing]", f"click[id{n}]", "click[buy now]"], n in wins, id=f"e/{n}")
        for n, task in enumerate(tasks("test"))
    ]


def counts(trajectories):
    outcomes = {o: sum(t.outcome == o for t in trajectories) for o in ("failed", "won")}
    return {"episodes": len(trajectories), "outcomes": outcomes, "turns": 9, "seconds": 1.5}


def make(path, *, config=CONFIG, method=None, until=None, evaluated=evaluated):
    """Fill a work folder like the pipeline does, up to the stage `until`; returns the folder."""
    method = method or Eef(rounds=2, states=3)
    with open_workdir(path, config) as work:
        for name, fill in stages_of(method, evaluated):
            if name == until:
                break
            stage = work.stage(name)
            stage.start()
            stage.commit(fill(stage.folder), PROVENANCE)
    return work


def stages_of(method, evaluated=evaluated):
    """Name of each stage of a run, and a function that fills its folder and counts."""
    attempts = Attempts(experts=experts())
    yield "expert", lambda folder: _played(folder, attempts.experts, scores=evaluated(0))
    for number in range(method.rounds + 1):
        if number:
            played = rollouts(method, attempts, number)
            attempts = dataclasses.replace(attempts, rollouts=(*attempts.rollouts, *played))
            yield f"round_{number}/explore", lambda folder, played=played: _played(folder, played)
        yield (
            f"round_{number}/select",
            lambda folder, attempts=attempts, number=number: _selected(
                folder, method, attempts, number
            ),
        )
        selected = len(method.select(attempts, tasks("train"), number))
        yield f"round_{number}/tune", lambda folder, selected=selected: _tuned(selected)
        held_out = evaluated(number)
        yield (
            f"round_{number}/evaluate",
            lambda folder, held_out=held_out: _played(folder, held_out, scores=held_out),
        )


def _played(folder, trajectories, scores=None):
    write_trajectories(folder, trajectories)
    if scores:
        write_json(folder / "scores.json", scores_lib.score_summary(scores))
    if trajectories[0].source == "expert":
        return counts(trajectories)
    return counts(trajectories) | {"tokens": {"prefilled": 50, "reused": 5, "generated": 30}}


def _selected(folder, method, attempts, number):
    selections = method.select(attempts, tasks("train"), number)
    write_selections(folder, selections)
    return {
        "selections": len(selections),
        "examples": len(selections),
        "unweighted": 0,
        "too_long": 0,
        "tokens": 1000,
        "weighted_tokens": 100,
        "steps": sum(len(s.weights) for s in selections),
        "weighted_steps": sum(sum(w > 0 for w in s.weights) for s in selections),
        "facts": dict(method.facts(attempts, tasks("train"), number)) if number else {},
        "seconds": 0.5,
    }


def _tuned(examples):
    return {
        "examples": examples,
        "tokens": 3000,
        "weighted_tokens": 300,
        "steps": 12,
        "loss": 0.25,
        "padding": 0.1,
        "seconds": 60.0,
    }
