"""Selections as JSON lines: for each selected trajectory, which steps are learned and why.

One selection a line, in `<stage>/selections.jsonl`:

    {"trajectory": "...", "task": "...", "role": "recovery", "state": 4, "pair": null,
     "steps": [{"source": "expert", "action": "...", "weight": 1.0, "reason": "kept: ..."}, ...]}

With advantages a step has its `advantage`, with a mark the line its `mark`. The loss that they are
to be learned with is in `<stage>/loss.json`, where it is not SFT.
"""

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files
from eef_jax.types import Loss, Selection

FILE = "selections.jsonl"
LOSS = "loss.json"


def write_selections(folder: epath.PathLike, selections: Iterable[Selection]) -> None:
    """Write selections in their order to `<folder>/selections.jsonl`."""
    lines = [json.dumps(_to_json(selection)) for selection in selections]
    files.write_text(epath.Path(folder) / FILE, "".join(f"{line}\n" for line in lines))


def read_selections(folder: epath.PathLike) -> list[dict[str, Any]]:
    """Read the selections of a stage's folder as JSON values, in the order they were written in.

    They stay JSON values because a line names its trajectory by id only; the report needs no more.

    Raises:
        DataError: a line is damaged (file and line are named).
    """
    path = epath.Path(folder) / FILE
    selections = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            selections.append(json.loads(line))
        except ValueError as error:
            raise DataError(
                f"{path}, line {number} is damaged ({error}); {files.rerun(path.parent)}"
            ) from error
    return selections


def write_loss(folder: epath.PathLike, loss: Loss) -> None:
    """Write the loss of a stage's selections; of SFT nothing."""
    if loss != Loss():
        files.write_json(epath.Path(folder) / LOSS, dataclasses.asdict(loss))


def read_loss(folder: epath.PathLike) -> Loss:
    """Read the loss of a stage's selections.

    Raises:
        DataError: the file is damaged.
    """
    path = epath.Path(folder) / LOSS
    if not path.exists():
        return Loss()
    value = files.read_json(path, remedy=files.rerun(path.parent))
    return Loss(name=value["name"], options=value["options"])


def _to_json(selection: Selection) -> dict[str, Any]:
    trajectory = selection.trajectory.load()
    steps = zip(trajectory.steps, selection.weights, selection.reasons, strict=True)
    line: dict[str, Any] = {
        "trajectory": trajectory.id,
        "task": trajectory.task.id,
        "role": selection.role,
        "state": selection.state,
        "pair": selection.pair,
        "steps": [
            {"source": step.source, "action": step.action, "weight": weight, "reason": reason}
            for step, weight, reason in steps
        ],
    }
    for step, advantage in zip(line["steps"], selection.advantages, strict=False):
        step["advantage"] = advantage
    return line | ({"mark": selection.mark} if selection.mark else {})
