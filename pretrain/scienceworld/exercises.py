"""ScienceWorld's reading exercises, generated without end.

Rooms and goals are made up (`rooms`, `goals`), never taken from the simulator. The kinds of
exercises teach what a reader must be able to do before it is taught to act:

- `copy`: repeat a random sequence;
- `room`: questions about rooms that were shown: which animals and plants are here, what is in which
  pot, whether an object is present, where an object was;
- `goal`: questions about a task description: what is sought, which box it goes into, and where;
- `walk`: legal actions, random or ordered (`walks`).

Each object's line carries an auxiliary label: its kind, or, once a goal was read, whether it fits
the goal. Operates on text only; tokens live in `pretrain/batches.py`.
"""

import random

from pretrain.scienceworld import rooms
from pretrain.scienceworld.goals import make_goal, room_message
from pretrain.scienceworld.rooms import Room
from pretrain.scienceworld.walks import walk
from pretrain.segments import Exercise, Segment, assistant, copy_exercise, user
from pretrain.tokenizer import BOS

_MIX = {"room": 0.5, "goal": 0.12, "walk": 0.38}
NONE = "none"
# Phrases that every description repeats; one token each.
FIXED_PHRASES = (
    "This room is called the",
    f". In it, {rooms.ALWAYS_PRESENT}",
    f"This outside location is called the outside. Here {rooms.ALWAYS_PRESENT}",
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


def copy_words() -> list[str]:
    """Return every name, the material of copy exercises."""
    return [
        *(*rooms.ROOMS, *rooms.ANIMALS, *rooms.PLANTS, *rooms.SUBSTANCES, *rooms.VESSELS),
        *(*rooms.OBJECTS, *rooms.FURNITURE, *rooms.DEVICES, *rooms.COLORS),
        *(*(str(n) for n in range(1, 11)), "light bulb", "wire", "box", "flower pot"),
    ]


def room_question(rng: random.Random, room: Room) -> tuple[str, str]:
    """Draw a question about a room that is shown, and return it with its answer."""
    by_kind = {
        kind: [o for o in room.objects if o.kind == kind] for kind in ("animal", "plant", "box")
    }
    plant_by_pot = {o.pot: o.name for o in by_kind["plant"]}
    match rng.choice(("here", "first", "first", "all", "pot", "in", "there", "box", "stage")):
        case "first":
            kind = rng.choice(("animal", "plant"))
            return f"which {kind}?", next((o.name for o in by_kind[kind]), NONE)
        case "all":
            kind = rng.choice(("animal", "plant"))
            return f"all {kind}s?", ", ".join(o.name for o in by_kind[kind]) or NONE
        case "pot" if plant_by_pot:
            pot, plant = rng.choice(tuple(plant_by_pot.items()))
            return f"pot of the {plant}?", pot
        case "in" if plant_by_pot:
            pot, plant = rng.choice(tuple(plant_by_pot.items()))
            return f"what is in {pot}?", plant
        case "box":
            return "which box?", next((o.name for o in by_kind["box"]), NONE)
        case "stage" if by_kind["animal"]:
            animal = rng.choice(by_kind["animal"])
            return f"what is the {animal.name}?", f"{animal.stage} {animal.name}"
        case "there":
            return _presence_question(rng, room)
        case _:
            return "which room is this?", room.name


def _presence_question(rng: random.Random, room: Room) -> tuple[str, str]:
    """Ask for a random object or for one of the room's."""
    makers = (rooms.make_animal, rooms.make_plant, rooms.make_thing, rooms.make_box)
    new = rng.choice(makers)(rng)
    name = rng.choice((new.name, rng.choice(room.objects).name if room.objects else ""))
    present = any(o.name == name for o in room.objects)
    return f"is there a {name}?", "yes" if present else "no"


def read_rooms(rng: random.Random, num_rooms: int) -> Exercise:
    """Return rooms with questions; with several rooms, finally where an object was."""
    names = rng.sample(rooms.ROOMS, num_rooms)
    shown = [rooms.make_room(rng, name=name, max_objects=rng.choice((6, 12, 18))) for name in names]
    goal = make_goal(rng) if rng.random() < 0.3 else None
    exercise: Exercise = []
    for index, room in enumerate(shown):
        before = f"{goal.text}\n" if goal and not index else ""
        question, answer = room_question(rng, room)
        message = room_message(room, before=before, question=question, goal=goal)
        exercise += [message, *assistant(answer)]
    room_by_object = {o.name: room.name for room in shown for o in room.objects}
    if num_rooms > 1 and room_by_object:
        name = rng.choice(tuple(room_by_object))
        exercise += [user(f"where is a {name}?"), *assistant(room_by_object[name])]
    return exercise


def read_goal(rng: random.Random) -> Exercise:
    """Return a task description with its first room, and questions about everything it says."""
    goal = make_goal(rng)
    facts = rng.sample(goal.facts, len(goal.facts))
    room = rooms.make_room(rng, max_objects=6)
    question, answer = facts[0]
    message = room_message(room, before=f"{goal.text}\n", question=question, goal=goal)
    exercise = [message, *assistant(answer)]
    for question, answer in facts[1:]:
        exercise += [user(question), *assistant(answer)]
    return exercise


def sample(rng: random.Random, words: list[str], long: bool, copy_share: float) -> Exercise:
    """Draw an exercise.

    Args:
        rng: source of all random choices.
        words: material of copy exercises.
        long: whether the exercise fills a context as an episode does (several rooms, many turns).
        copy_share: probability of a copy exercise (0-1).
    """
    copies = rng.random() < copy_share
    kind = "copy" if copies else rng.choices(tuple(_MIX), tuple(_MIX.values()))[0]
    match kind:
        case "copy":
            exercise = copy_exercise(rng, words)
        case "room":
            exercise = read_rooms(rng, rng.randint(2, 4) if long else rng.choice((1, 1, 2)))
        case "goal":
            exercise = read_goal(rng)
        case _:
            exercise = walk(rng, rng.randint(8, 14) if long else rng.randint(2, 6))
    return [Segment(BOS), *exercise]
