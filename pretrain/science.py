"""ScienceWorld's reading exercises: what its nano base has read, made without end from a generator.

Rooms and goals are made up (`rooms`, `goals`), never taken from the simulator. Kinds of exercises,
after what a reader must be able to do before anyone teaches it to act:

- `copy`: repeat a random sequence;
- `room`: questions about rooms that were shown: what lives here, what stands in which pot, what is
  there, where something was;
- `goal`: questions about what a task says: what is sought, in which box it goes, and where;
- `walk`: legal actions, to know their form and what they lead to, and to do what is said (`walks`).

Each line of a room carries a mark: what kind of thing it shows, or, where a goal was read before,
whether that is what the goal asks for. It knows texts, no tokens, no model.
"""

import random

from pretrain import rooms
from pretrain.goals import goal, shown
from pretrain.pieces import Piece, Pieces, assistant, copy, user
from pretrain.rooms import Room
from pretrain.vocabulary import BOS
from pretrain.walks import walk

_MIX = {"room": 0.5, "goal": 0.12, "walk": 0.38}
NONE = "none"
# Texts that always stand together.
FIXED = (
    "This room is called the",
    f". In it, {rooms.ALWAYS}",
    f"This outside location is called the outside. Here {rooms.ALWAYS}",
    *("You also see:", "A door to the", "(that is open)", "(containing nothing)", "is: nothing."),
    *("(containing a substance called water)", "(containing a substance called", ", which is off"),
    *(", which is turned off. In the", "door is open. In the", "a substance called", ", soil)"),
    *("in the reproducing stage", "with a tall height", "with a short height"),
    *("You focus on the", "You move the", "to the inventory.", "You teleport to the"),
    *("Your task is to find a(n)", ". First, focus on the thing. Then, move it to the"),
    *("Your task is to find", ". First, focus on", ".  Then, focus on", ".  Focus on"),
    *("the animal with the longest life span", "the animal with the shortest life span"),
    *("the longest life span", "the shortest life span", "is now connected to"),
    *("The animals are in the", "' location."),
    *("Your task is to turn on the", ". First, focus on the"),
    ". Then, create an electrical circuit that powers it on.",
)


def words() -> list[str]:
    """Every name: what the copy exercise repeats."""
    return [
        *(*rooms.ROOMS, *rooms.ANIMALS, *rooms.PLANTS, *rooms.SUBSTANCES, *rooms.VESSELS),
        *(*rooms.OBJECTS, *rooms.FURNITURE, *rooms.DEVICES, *rooms.COLOURS),
        *(*(str(n) for n in range(1, 11)), "light bulb", "wire", "box", "flower pot"),
    ]


def question(rng: random.Random, room: Room) -> tuple[str, str]:
    """A question about a room that is before one's eyes, and its answer."""
    kinds = {
        kind: [t for t in room.things if t.kind == kind] for kind in ("animal", "plant", "box")
    }
    potted = {t.pot: t.name for t in kinds["plant"]}
    match rng.choice(("here", "first", "first", "all", "pot", "in", "there", "box", "stage")):
        case "first":
            kind = rng.choice(("animal", "plant"))
            return f"which {kind}?", next((t.name for t in kinds[kind]), NONE)
        case "all":
            kind = rng.choice(("animal", "plant"))
            return f"all {kind}s?", ", ".join(t.name for t in kinds[kind]) or NONE
        case "pot" if potted:
            pot, name = rng.choice(tuple(potted.items()))
            return f"pot of the {name}?", pot
        case "in" if potted:
            pot, name = rng.choice(tuple(potted.items()))
            return f"what is in {pot}?", name
        case "box":
            return "which box?", next((t.name for t in kinds["box"]), NONE)
        case "stage" if kinds["animal"]:
            seen = rng.choice(kinds["animal"])
            return f"what is the {seen.name}?", f"{seen.stage} {seen.name}"
        case "there":
            made = rng.choice((rooms.animal, rooms.plant, rooms.thing, rooms.box))(rng)
            name = rng.choice((made.name, rng.choice(room.things).name if room.things else ""))
            there = any(t.name == name for t in room.things)
            return f"is there a {name}?", "yes" if there else "no"
        case _:
            return "which room is this?", room.name


def ask(rng: random.Random, count: int) -> Pieces:
    """Rooms one after the other, with questions; at the end perhaps where something was."""
    names = rng.sample(rooms.ROOMS, count)
    seen = [rooms.room(rng, name=name, size=rng.choice((6, 12, 18))) for name in names]
    asked = goal(rng) if rng.random() < 0.3 else None
    pieces: Pieces = []
    for place, room in enumerate(seen):
        before = f"{asked.text}\n" if asked and not place else ""
        said, answer = question(rng, room)
        pieces += [shown(room, before=before, after=said, asked=asked), *assistant(answer)]
    where = {t.name: room.name for room in seen for t in room.things}
    if count > 1 and where:
        name = rng.choice(tuple(where))
        pieces += [user(f"where is a {name}?"), *assistant(where[name])]
    return pieces


def understand(rng: random.Random) -> Pieces:
    """A task's words with the first room, and all that the words say."""
    asked = goal(rng)
    facts = rng.sample(asked.facts, len(asked.facts))
    room = rooms.room(rng, size=6)
    first, answer = facts[0]
    pieces = [shown(room, before=f"{asked.text}\n", after=first, asked=asked), *assistant(answer)]
    for said, answer in facts[1:]:
        pieces += [user(said), *assistant(answer)]
    return pieces


def draw(rng: random.Random, known: list[str], long: bool, copies: float) -> Pieces:
    """One exercise; `long` ones fill a context as an episode does (several rooms, many turns).

    Args:
        rng: decides everything.
        known: what the copy exercise repeats.
        long: whether to draw long ones.
        copies: share of copy exercises.
    """
    kind = "copy" if rng.random() < copies else rng.choices(tuple(_MIX), tuple(_MIX.values()))[0]
    match kind:
        case "copy":
            body = copy(rng, known)
        case "room":
            body = ask(rng, rng.randint(2, 4) if long else rng.choice((1, 1, 2)))
        case "goal":
            body = understand(rng)
        case _:
            body = walk(rng, rng.randint(8, 14) if long else rng.randint(2, 6))
    return [Piece(BOS), *body]
