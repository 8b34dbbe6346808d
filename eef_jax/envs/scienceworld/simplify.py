"""Simplifications: which of the simulator's reliefs hold, by preset or as a list.

    eto     doors and containers are open, pots water themselves, the agent may teleport: what ETO's
            prompt tells its agents, as an explicit list, because `easy` leaves the containers shut
    easy    the package's own preset
    none    the full game, as AgentGym plays it

`eto` and `easy` also take away `connect A to B`, but for tasks that are about circuits. Knows task
types, no simulator.
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


def parse(text: str) -> tuple[str, ...]:
    """The labels that a preset's name or a comma list means.

    Raises:
        ConfigError: an unknown label, or `easy` beside others, which stops the simulator.
    """
    if text in PRESETS:
        return PRESETS[text]
    labels = tuple(label.strip() for label in text.split(",") if label.strip())
    for label in labels:
        if label not in LABELS:
            raise ConfigError(
                f"env.simplifications={text!r}: {label!r} is unknown; "
                f"{did_you_mean(label, (*LABELS, *PRESETS))}; `easy` stands alone"
            )
    return labels


def simulator_string(labels: tuple[str, ...], kind: TaskType) -> str:
    """The labels as the simulator takes them for a task of this type."""
    return ",".join(label for label in labels if not (label == NO_ELECTRICITY and kind.electrical))


def can_teleport(labels: tuple[str, ...]) -> bool:
    """Whether the agent may teleport."""
    return bool({"teleportAction", "easy"} & set(labels))
