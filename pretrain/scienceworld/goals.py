"""Made-up tasks in ScienceWorld's wording, and rooms as a reader of a task sees them."""

import dataclasses
import random

from pretrain.scienceworld import rooms
from pretrain.scienceworld.rooms import Room, RoomObject
from pretrain.segments import AuxiliaryLabel, Segment
from pretrain.tokenizer import END, USER

_LABEL_WEIGHT = 0.1  # loss weight of an auxiliary label
# What a task asks for, and the kinds of objects that this includes.
_TARGETS = {
    "living thing": ("animal", "plant"),
    "non-living thing": ("thing",),
    "plant": ("plant",),
    "animal": ("animal",),
}
_LONGEST = "the animal with the longest life span"
_SHORTEST = "the animal with the shortest life span"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScienceGoal:
    """What a task asks for.

    Attributes:
        text: the task description.
        target_kinds: kinds of objects that fit; () if a room's description does not show that.
        facts: pairs of a question about the description and its answer.
    """

    text: str
    target_kinds: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def make_goal(rng: random.Random) -> ScienceGoal:
    """Draw a task in the wording of the simulator's."""
    room = rng.choice(rooms.ROOMS)
    match rng.choice(("find", "find", "find", "life", "both", "power")):
        case "find":
            return _find_goal(rng, room)
        case "power":
            return _power_goal(rng)
        case "life":
            animal = rng.choice((_LONGEST, _SHORTEST))
            text = (
                f"Your task is to find {animal}.  The animals are in the '{room}' location.  "
                f"Focus on {animal}."
            )
        case _:
            first, second = rng.sample((_LONGEST, _SHORTEST), 2)
            text = (
                f"Your task is to find {first}, then {second.removeprefix('the animal with ')}. "
                f"First, focus on {first}.  Then, focus on {second}. The animals are in the "
                f"'{room}' location."
            )
    facts = (("what is sought?", "animal"), ("which room?", room))
    return ScienceGoal(text=text, target_kinds=("animal",), facts=facts)


def _find_goal(rng: random.Random, room: str) -> ScienceGoal:
    target, box = rng.choice(tuple(_TARGETS)), f"{rng.choice(rooms.COLORS)} box"
    text = (
        f"Your task is to find a(n) {target}. First, focus on the thing. Then, move it to "
        f"the {box} in the {room}."
    )
    facts = (("what is sought?", target), ("which box?", box), ("which room?", room))
    return ScienceGoal(text=text, target_kinds=_TARGETS[target], facts=facts)


def _power_goal(rng: random.Random) -> ScienceGoal:
    part = f"{rng.choice(rooms.COLORS)} light bulb"
    text = (
        f"Your task is to turn on the {part}. First, focus on the {part}. Then, create an "
        "electrical circuit that powers it on."
    )
    return ScienceGoal(text=text, target_kinds=(), facts=(("what is sought?", part),))


def room_message(
    room: Room, *, before: str = "", question: str = "", goal: ScienceGoal | None = None
) -> Segment:
    """Return a room's description as a user message with an auxiliary label on each object's line.

    Args:
        room: the room.
        before: text in front of the description.
        question: text on a line after the description; "": none.
        goal: goal that was read before. The labels then say whether an object fits it, otherwise
            what kind of object it is.
    """
    head, lines, tail = room.description()
    text, labels = USER + before + head, []
    for line, obj in zip(lines, room.objects, strict=True):
        text += f"{line}\n"
        answer = _label_text(obj, goal)
        labels.append(AuxiliaryLabel(index=len(text) - 2, text=answer, loss_weight=_LABEL_WEIGHT))
    text = text.rstrip("\n") + tail
    return Segment(text + (f"\n{question}" if question else "") + END, 0.0, tuple(labels))


def _label_text(obj: RoomObject, goal: ScienceGoal | None) -> str:
    if goal is None or not goal.target_kinds:
        return obj.kind
    return "yes" if obj.kind in goal.target_kinds else "no"
