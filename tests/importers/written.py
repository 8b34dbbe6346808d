"""Our own trajectories, written in each format that an importer reads."""

import json

from eef_jax.storage.records import to_json


def _turns(trajectory, prompt):
    """(role, text) of all messages; the prompt's first."""
    turns = [(message.role, message.content) for message in prompt]
    for step in trajectory.steps:
        turns += [("user", step.observation), ("assistant", step.message)]
    return [*turns, ("user", trajectory.final_observation)]


def sharegpt(trajectory, prompt):
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    return [{"from": names[role], "value": text} for role, text in _turns(trajectory, prompt)]


def chat(trajectory, prompt):
    return [{"role": role, "content": text} for role, text in _turns(trajectory, prompt)]


def eto(trajectory, prompt):
    return {
        "id": trajectory.id,
        "conversations": sharegpt(trajectory, prompt),
        "reward": trajectory.reward,
        "source": trajectory.agent,
    }


def agentgym(trajectory, prompt):
    return {
        "item_id": trajectory.id,
        "conversations": sharegpt(trajectory, prompt),
        "reward": trajectory.reward,
        "model": trajectory.agent,
    }


def agentinstruct(trajectory, prompt):
    return {
        "id": trajectory.id,
        "conversations": chat(trajectory, prompt),
        "model": trajectory.agent,
    }


def openai(trajectory, prompt):
    return {
        "id": trajectory.id,
        "messages": chat(trajectory, prompt),
        "model": trajectory.agent,
        "reward": trajectory.reward,
    }


def atif(trajectory, prompt):
    steps = [{"source": "user", "message": m.content} for m in prompt if m.role == "user"]
    steps.append({"source": "user", "message": trajectory.steps[0].observation})
    after = [step.observation for step in trajectory.steps[1:]] + [trajectory.final_observation]
    for step, observation in zip(trajectory.steps, after, strict=True):
        results = {"results": [{"content": observation}]}
        steps.append({"source": "agent", "message": step.message, "observation": results})
    return {
        "schema_version": "ATIF-v1.4",
        "session_id": trajectory.id,
        "agent": {"name": trajectory.agent},
        "steps": steps,
        "extra": {"reward": trajectory.reward},
    }


def eef(trajectory, prompt):
    return to_json(trajectory)


FORMATS = {
    "eto": eto,
    "agentgym": agentgym,
    "agentinstruct": agentinstruct,
    "openai": openai,
    "atif": atif,
    "eef": eef,
}


def write(path, format, trajectories, prompt=()):
    """Write a file of a format, as a JSON list; returns its path."""
    path.write_text(json.dumps([FORMATS[format](t, prompt) for t in trajectories]), "utf-8")
    return str(path)
