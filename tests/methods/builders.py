"""Hand-made attempts for the tests of methods: experts, and rollouts that win or fail as told."""

import dataclasses

from eef_jax.types import (
    KEPT_BENEFICIAL,
    KEPT_EXPERT_WIN,
    KEPT_OWN_WIN,
    MASKED_CONTEXT,
    MASKED_HARMFUL,
    Outcome,
    Selection,
    Step,
    Task,
    Trajectory,
)

LETTERS = {
    KEPT_OWN_WIN: "o",
    KEPT_BENEFICIAL: "b",
    KEPT_EXPERT_WIN: "e",
    MASKED_CONTEXT: "c",
    MASKED_HARMFUL: "h",
}


def task(name="t"):
    return Task(id=name, env="toy", split="train", goal=f"solve {name}")


def said(text, source):
    return Step(observation="page", message=text, action=text, source=source)


def expert(actions, *, win=False, name="gpt", of=None, first=()):
    """An expert's attempt of `actions` steps; `first` are the messages it begins with."""
    of = of or task()
    messages = [*first, *(f"{name} does {n}" for n in range(len(first), actions))]
    return Trajectory(
        id=f"expert/{name}/{of.id}",
        task=of,
        steps=tuple(said(message, "expert") for message in messages),
        final_observation="end",
        reward=float(win),
        win=win,
        outcome=Outcome.WON if win else Outcome.FAILED,
        source="expert",
        agent=name,
    )


def played(episode, win, own=2):
    """What an episode came to: True a win, False a failure, None an infrastructure failure."""
    before = episode.parent.load().steps[: episode.fork_step] if episode.parent else ()
    new = tuple(said(f"{episode.id} does {n}", "policy") for n in range(own))
    outcome = {True: Outcome.WON, False: Outcome.FAILED, None: Outcome.DIVERGED}[win]
    return Trajectory(
        id=episode.id,
        task=episode.task,
        # what diverges breaks off somewhere in the replayed prefix
        steps=before[:1] if win is None else before + new,
        final_observation="end",
        reward=float(bool(win)),
        win=bool(win),
        outcome=outcome,
        source="policy",
        agent="policy",
        round=episode.round,
        attempt=episode.attempt,
        parent=episode.parent.id if episode.parent else None,
        fork_step=episode.fork_step,
    )


def play(method, attempts, tasks, round, wins, own=2, max_steps=100):
    """The attempts after a round in which each episode ends as `wins(episode)` says.

    `own` is the number of the policy's own actions.
    """
    rollouts = [played(e, wins(e), own) for e in method.episodes(attempts, tasks, round, max_steps)]
    return dataclasses.replace(attempts, rollouts=attempts.rollouts + tuple(rollouts))


def letters(selection: Selection) -> str:
    """Reasons of a selection's steps, one letter each, after a check against its weights."""
    text = "".join(LETTERS[reason] for reason in selection.reasons)
    assert selection.weights == tuple(float(letter in "obe") for letter in text)
    assert len(text) == selection.trajectory.length
    return text


def learned(selections):
    """Selections in short: (role, step of the state, letters)."""
    return [(s.role, s.state, letters(s)) for s in selections]
