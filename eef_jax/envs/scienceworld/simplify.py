"""Simplifications of the game, by preset or as a list of the simulator's labels.

Presets:
    eto: doors and containers are open, pots water themselves, and the agent may teleport, as ETO's
        prompt tells its agents. An explicit list, because `easy` leaves the containers shut.
    easy: the package's own preset.
    none: the full game, as AgentGym plays it.

`eto` and `easy` also disable the action `connect A to B`, except in tasks about circuits.
"""

from eef_jax.envs.scienceworld.task_types import TaskType
from eef_jax.errors import ConfigError, did_you_mean

NO_ELECTRICITY = "noElectricalAction"
LABELS = (
    "teleportAction",
    "openDoors",
    "selfWateringFlowerPots",
    "openContainers",
    NO_ELECTRICITY,
)
PRESETS = {"eto": LABELS, "easy": ("easy",), "none": ()}


def parse_labels(text: str) -> tuple[str, ...]:
    """Return the labels of a preset's name or of a list with commas.

    Raises:
        ConfigError: a label is unknown, or is `easy`, which the simulator accepts only alone.
    """
    if text in PRESETS:
        return PRESETS[text]
    labels = tuple(label.strip() for label in text.split(",") if label.strip())
    for label in labels:
        if label not in LABELS:
            raise ConfigError(
                f"env.simplifications={text!r}: {label!r} is unknown; "
                f"{did_you_mean(label, (*LABELS, *PRESETS))}; `easy` cannot be combined"
            )
    return labels


def simulator_string(labels: tuple[str, ...], task_type: TaskType) -> str:
    """Return the labels as the simulator expects them for a task of this type."""
    allowed = [lab for lab in labels if not (lab == NO_ELECTRICITY and task_type.electrical)]
    return ",".join(allowed)


def can_teleport(labels: tuple[str, ...]) -> bool:
    """Whether the agent may teleport."""
    return bool({"teleportAction", "easy"} & set(labels))
