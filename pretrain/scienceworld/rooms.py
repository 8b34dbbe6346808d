"""Made-up rooms, in the exact form of ScienceWorld's descriptions.

The words are the simulator's. The contents of a room and its doors are drawn at random, so no room
of a task is among them.
"""

import dataclasses
import random

ROOMS = (
    *("art studio", "bathroom", "bedroom", "foundry", "greenhouse", "hallway", "kitchen"),
    *("living room", "outside", "workshop"),
)
COLORS = ("black", "blue", "brown", "green", "orange", "pink", "purple", "red", "violet", "yellow")
ANIMALS = (
    *("ant", "beaver", "bee", "blue jay", "brown bear", "butterfly", "chameleon", "chipmunk"),
    *("crocodile", "dove", "dragonfly", "elephant", "frog", "giant tortoise", "hedgehog", "moth"),
    *("mouse", "parrot", "rabbit", "toad", "turtle", "wolf"),
)
PLANTS = (
    *("apple tree", "apricot tree", "avocado tree", "banana tree", "cherry tree", "lemon tree"),
    *("grapefruit tree", "orange tree", "pea plant", "peach tree", "pear tree"),
)
SUBSTANCES = (
    *("aluminum", "ash", "brick", "caesium", "gallium", "ice", "iron", "lead", "mercury", "rubber"),
    *("soap", "sodium", "sodium chloride", "steel", "sugar", "tin", "wood", "chocolate"),
    "marshmallow",
)
VESSELS = (
    *("bowl", "ceramic cup", "glass cup", "glass jar", "jug", "metal pot", "paper cup"),
    *("plastic cup", "tin cup", "wood bowl", "wood cup"),
)
OBJECTS = (
    *("axe", "drawing", "finger painting", "lighter", "metal fork", "painting", "paper clip"),
    *("picture", "plastic fork", "shovel", "recipe", "white pillow", "orange", "banana", "potato"),
    *("red apple", "drawer", "book"),
)
FURNITURE = (
    *("bed", "chair", "closet", "couch", "counter", "cupboard", "desk", "large cupboard", "table"),
    *("freezer", "fridge", "bee hive", "book shelf", "hot plate"),
)
DEVICES = (
    *("bathtub", "blast furnace", "oven", "sink", "stove", "stopwatch", "thermometer"),
    *("electric buzzer", "electric motor", "gas generator", "nuclear generator", "solar panel"),
    *("wind generator", "switch", "battery"),
)
STAGES = ("adult", "baby", "juvenile", "egg")
ALWAYS_PRESENT = "you see: \n\tthe agent\n\ta substance called air"
_INSIDE = f"This room is called the {{}}. In it, {ALWAYS_PRESENT}\n"
_OUTSIDE = f"This outside location is called the {{}}. Here {ALWAYS_PRESENT}\n"
# Forms of a non-living thing; "object" is twice as likely as the others.
_THING_FORMS = (*("object", "object", "substance", "vessel", "pot", "on", "in", "device", "part"),)
# Weights of animals, plants and non-living things in a room.
_CONTENT_WEIGHTS = ((3, 0, 4), (0, 3, 4), (1, 1, 6), (0, 0, 1), (1, 1, 1))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RoomObject:
    """An object in a room.

    Attributes:
        name: what an action calls it.
        description: how a room's description shows it.
        kind: `animal`, `plant`, `box` or `thing`; also the text of its auxiliary label.
        stage: stage of an animal's or plant's life; "" otherwise.
        pot: the flower pot that a plant is in; "" otherwise.
    """

    name: str
    description: str
    kind: str
    stage: str = ""
    pot: str = ""

    @property
    def living(self) -> bool:
        """Whether it is an animal or a plant."""
        return self.kind in ("animal", "plant")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room.

    Attributes:
        name: one of `ROOMS`.
        objects: its contents, in the order of the description.
        doors: rooms that its doors lead to.
    """

    name: str
    objects: tuple[RoomObject, ...]
    doors: tuple[str, ...]

    def description(self) -> tuple[str, tuple[str, ...], str]:
        """Return the text before the objects, one line for each object, and the text after them."""
        head = (_OUTSIDE if self.name == "outside" else _INSIDE).format(self.name)
        lines = tuple(f"\t{obj.description}" for obj in self.objects)
        doors = "".join(f"\n\tA door to the {door} (that is open)" for door in self.doors)
        return head, lines, f"\nYou also see:{doors}"


def make_animal(rng: random.Random) -> RoomObject:
    """Draw an animal at some stage of its life."""
    name, stage = rng.choice(ANIMALS), rng.choice(STAGES)
    description = f"a {name} egg" if stage == "egg" else f"a {stage} {name}"
    return RoomObject(name=name, description=description, kind="animal", stage=stage)


def make_plant(rng: random.Random) -> RoomObject:
    """Draw a plant in a numbered pot."""
    name, pot = rng.choice(PLANTS), f"flower pot {rng.randint(1, 9)}"
    height = rng.choice(("", "", " with a tall height", " with a short height"))
    stage = rng.choice(("reproducing", "reproducing", "seedling", "adult"))
    description = f"a {pot} (containing a {name} in the {stage} stage{height}, soil)"
    return RoomObject(name=name, description=description, kind="plant", stage="adult", pot=pot)


def make_box(rng: random.Random) -> RoomObject:
    """Draw an answer box."""
    name = f"{rng.choice(COLORS)} box"
    return RoomObject(name=name, description=f"a {name} (containing nothing)", kind="box")


def make_thing(rng: random.Random) -> RoomObject:
    """Draw a non-living thing."""
    vessel = rng.choice(VESSELS)
    article, details = "a ", ""
    match rng.choice(_THING_FORMS):
        case "object":
            name = rng.choice(OBJECTS)
        case "substance":
            name, article = rng.choice(SUBSTANCES), "a substance called "
        case "vessel":
            content = rng.choice(("nothing", f"a substance called {rng.choice(SUBSTANCES)}"))
            name, details = vessel, f" (containing {content})"
        case "pot":
            name = f"flower pot {rng.randint(1, 9)}"
            details = " (containing a substance called water)"
        case "on":
            name = rng.choice(FURNITURE)
            content = rng.choice(("nothing", f"a {vessel} (containing nothing)"))
            details = f". On the {name} is: {content}."
        case "in":
            name = rng.choice(FURNITURE)
            content = rng.choice(("nothing", f"a {vessel} (containing nothing), a drawer"))
            details = f". The {name} door is open. In the {name} is: {content}."
        case "device":
            name = rng.choice(DEVICES)
            details = f", which is turned off. In the {name} is: nothing."
        case _:
            name = f"{rng.choice(COLORS)} {rng.choice(('wire', 'light bulb'))}"
            details = ", which is off" if "bulb" in name else ""
    return RoomObject(name=name, description=f"{article}{name}{details}", kind="thing")


def make_room(
    rng: random.Random, *, name: str = "", box_chance: float = 0.3, max_objects: int = 12
) -> Room:
    """Draw a room whose objects are in alphabetical order; names and pots occur once.

    Args:
        rng: source of all random choices.
        name: name of the room; "": any.
        box_chance: probability of an answer box (0-1).
        max_objects: maximum number of objects, an answer box not counted.
    """
    found: dict[str, RoomObject] = {}
    makers = (make_animal, make_plant, make_thing)
    weights = rng.choice(_CONTENT_WEIGHTS)
    for _ in range(rng.randint(2, max_objects)):
        new = rng.choices(makers, weights)[0](rng)
        taken = {o.name for o in found.values()} | {o.pot for o in found.values()}
        if new.name not in taken and new.pot not in taken - {""}:
            found[new.name] = new
    if rng.random() < box_chance:
        box = make_box(rng)
        found[box.name] = box
    name = name or rng.choice(ROOMS)
    doors = rng.sample([r for r in ROOMS if r != name], rng.randint(1, 5))
    objects = sorted(found.values(), key=lambda obj: obj.pot or obj.name)
    return Room(name=name, objects=tuple(objects), doors=tuple(sorted(doors)))
