"""Made-up rooms, written as ScienceWorld writes them.

Words are the simulator's; what stands where, which doors a room has and what a goal asks for is
drawn at random, so no room here is one of a task. Knows words and the form of descriptions, no
exercises, no tokens, no simulator.
"""

import dataclasses
import random

ROOMS = (
    *("art studio", "bathroom", "bedroom", "foundry", "greenhouse", "hallway", "kitchen"),
    *("living room", "outside", "workshop"),
)
COLOURS = ("black", "blue", "brown", "green", "orange", "pink", "purple", "red", "violet", "yellow")
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
ALWAYS = "you see: \n\tthe agent\n\ta substance called air"
INSIDE = f"This room is called the {{}}. In it, {ALWAYS}\n"
OUTSIDE = f"This outside location is called the {{}}. Here {ALWAYS}\n"
MADE = ("object", "object", "substance", "vessel", "pot", "on", "in", "device", "part")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """Something in a room.

    Attributes:
        name: what an action calls it.
        line: how a room's description shows it.
        kind: `animal`, `plant`, `box` or `thing`.
        stage: of an animal or plant, "" otherwise.
        pot: the flower pot a plant stands in, "" otherwise.
    """

    name: str
    line: str
    kind: str
    stage: str = ""
    pot: str = ""

    @property
    def living(self) -> bool:
        return self.kind in ("animal", "plant")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room, what is in it in the order of its description, and where its doors lead."""

    name: str
    things: tuple[Thing, ...]
    doors: tuple[str, ...]

    def lines(self) -> tuple[str, tuple[str, ...], str]:
        """Its description: what comes before the things, a line for each thing, what follows."""
        head = (OUTSIDE if self.name == "outside" else INSIDE).format(self.name)
        doors = "".join(f"\n\tA door to the {door} (that is open)" for door in self.doors)
        return head, tuple(f"\t{thing.line}" for thing in self.things), f"\nYou also see:{doors}"


def animal(rng: random.Random) -> Thing:
    """An animal at some stage of its life."""
    name, stage = rng.choice(ANIMALS), rng.choice(STAGES)
    line = f"a {name} egg" if stage == "egg" else f"a {stage} {name}"
    return Thing(name=name, line=line, kind="animal", stage=stage)


def plant(rng: random.Random) -> Thing:
    """A plant in a numbered pot."""
    name, pot = rng.choice(PLANTS), f"flower pot {rng.randint(1, 9)}"
    height = rng.choice(("", "", " with a tall height", " with a short height"))
    stage = rng.choice(("reproducing", "reproducing", "seedling", "adult"))
    line = f"a {pot} (containing a {name} in the {stage} stage{height}, soil)"
    return Thing(name=name, line=line, kind="plant", stage="adult", pot=pot)


def box(rng: random.Random) -> Thing:
    """A box that answers go into."""
    name = f"{rng.choice(COLOURS)} box"
    return Thing(name=name, line=f"a {name} (containing nothing)", kind="box")


def thing(rng: random.Random) -> Thing:
    """Something that does not live."""

    def made(name: str, rest: str = "", *, article: str = "a ") -> Thing:
        return Thing(name=name, line=f"{article}{name}{rest}", kind="thing")

    vessel = rng.choice(VESSELS)
    match rng.choice(MADE):
        case "object":
            return made(rng.choice(OBJECTS))
        case "substance":
            return made(rng.choice(SUBSTANCES), article="a substance called ")
        case "vessel":
            content = rng.choice(("nothing", f"a substance called {rng.choice(SUBSTANCES)}"))
            return made(vessel, f" (containing {content})")
        case "pot":
            water = " (containing a substance called water)"
            return made(f"flower pot {rng.randint(1, 9)}", water)
        case "on":
            name = rng.choice(FURNITURE)
            content = rng.choice(("nothing", f"a {vessel} (containing nothing)"))
            return made(name, f". On the {name} is: {content}.")
        case "in":
            name = rng.choice(FURNITURE)
            content = rng.choice(("nothing", f"a {vessel} (containing nothing), a drawer"))
            return made(name, f". The {name} door is open. In the {name} is: {content}.")
        case "device":
            name = rng.choice(DEVICES)
            return made(name, f", which is turned off. In the {name} is: nothing.")
        case _:
            name = f"{rng.choice(COLOURS)} {rng.choice(('wire', 'light bulb'))}"
            return made(name, ", which is off" if "bulb" in name else "")


def room(rng: random.Random, *, name: str = "", boxes: float = 0.3, size: int = 12) -> Room:
    """A room with up to `size` things, in the alphabet's order; names and pots occur once.

    Args:
        rng: decides everything.
        name: of the room; "": any.
        boxes: chance of a box.
        size: bound on the number of things.
    """
    found: dict[str, Thing] = {}
    makers = (animal, plant, thing)
    weights = rng.choice(((3, 0, 4), (0, 3, 4), (1, 1, 6), (0, 0, 1), (1, 1, 1)))
    for _ in range(rng.randint(2, size)):
        made = rng.choices(makers, weights)[0](rng)
        taken = {t.name for t in found.values()} | {t.pot for t in found.values()}
        if made.name not in taken and made.pot not in taken - {""}:
            found[made.name] = made
    if rng.random() < boxes:
        made = box(rng)
        found[made.name] = made
    name = name or rng.choice(ROOMS)
    doors = rng.sample([r for r in ROOMS if r != name], rng.randint(1, 5))
    things = sorted(found.values(), key=lambda thing: thing.pot or thing.name)
    return Room(name=name, things=tuple(things), doors=tuple(sorted(doors)))
