"""Made-up tasks in ScienceWorld's wording, and rooms as one who has read a task sees them.

Knows what a task's words say and which things fit it; no exercises, no tokens, no simulator.
"""

import dataclasses
import random

from pretrain import rooms
from pretrain.pieces import Mark, Piece
from pretrain.rooms import Room, Thing
from pretrain.vocabulary import END, USER

_MARK = 0.1  # loss weight of a mark
# What a goal asks for, and which kinds of things that are.
SOUGHT = {
    "living thing": ("animal", "plant"),
    "non-living thing": ("thing",),
    "plant": ("plant",),
    "animal": ("animal",),
}
LONGEST = "the animal with the longest life span"
SHORTEST = "the animal with the shortest life span"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a task asks for.

    Attributes:
        text: its words.
        sought: kinds of things that fit; () where that cannot be seen.
        facts: questions about it, and their answers.
    """

    text: str
    sought: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def goal(rng: random.Random) -> Goal:
    """A made-up task in the wording of the simulator's."""
    place = rng.choice(rooms.ROOMS)
    where = ("which room?", place)
    match rng.choice(("find", "find", "find", "life", "both", "power")):
        case "find":
            sought, box = rng.choice(tuple(SOUGHT)), f"{rng.choice(rooms.COLOURS)} box"
            text = (
                f"Your task is to find a(n) {sought}. First, focus on the thing. Then, move it to "
                f"the {box} in the {place}."
            )
            facts = [("what is sought?", sought), ("which box?", box), where]
            return Goal(text=text, sought=SOUGHT[sought], facts=tuple(facts))
        case "power":
            part = f"{rng.choice(rooms.COLOURS)} light bulb"
            text = (
                f"Your task is to turn on the {part}. First, focus on the {part}. Then, create an "
                "electrical circuit that powers it on."
            )
            return Goal(text=text, sought=(), facts=(("what is sought?", part),))
        case "life":
            which = rng.choice((LONGEST, SHORTEST))
            text = (
                f"Your task is to find {which}.  The animals are in the '{place}' location.  "
                f"Focus on {which}."
            )
        case _:
            first, second = rng.sample((LONGEST, SHORTEST), 2)
            text = (
                f"Your task is to find {first}, then {second.removeprefix('the animal with ')}. "
                f"First, focus on {first}.  Then, focus on {second}. The animals are in the "
                f"'{place}' location."
            )
    return Goal(text=text, sought=("animal",), facts=(("what is sought?", "animal"), where))


def shown(room: Room, *, before: str = "", after: str = "", asked: Goal | None = None) -> Piece:
    """A room's description as a user message, with its marks.

    Args:
        room: what is shown.
        before: text in front of it.
        after: a question behind it.
        asked: a goal that was read; its marks say what it asks for.
    """
    head, lines, tail = room.lines()
    text, marks = USER + before + head, []
    for line, thing in zip(lines, room.things, strict=True):
        text += f"{line}\n"
        marks.append(Mark(len(text) - 2, _says(thing, asked), _MARK))
    text = text.rstrip("\n") + tail
    return Piece(text + (f"\n{after}" if after else "") + END, 0.0, tuple(marks))


def _says(thing: Thing, asked: Goal | None) -> str:
    if asked is None or not asked.sought:
        return thing.kind
    return "yes" if thing.kind in asked.sought else "no"
