"""ScienceWorld's reading exercises: what its nano base has read, made without end from a generator.

Rooms and goals are made up (`rooms`), never taken from the simulator. Kinds of exercises, after
what a reader must be able to do before anyone teaches it to act:

- `copy`: repeat a random sequence;
- `room`: questions about rooms that were shown: what lives here, what stands in which pot, what is
  there, where something was;
- `goal`: questions about what a task says: what is sought, in which box it goes, and where;
- `walk`: random legal actions, to know the form of actions and what they lead to.

Each line of a room carries a mark: what kind of thing it shows, or, where a goal was read before,
whether that is what the goal asks for. It knows texts, no tokens, no model.
"""

import dataclasses
import random

from eef_jax.nano import rooms
from eef_jax.nano.pieces import Mark, Piece, Pieces, assistant, copy, user
from eef_jax.nano.rooms import Room, Thing
from eef_jax.nano.vocabulary import BOS, END, USER

_MIX = {"room": 0.5, "goal": 0.12, "walk": 0.38}
_ACTION, _MARK = 0.3, 0.1
# What a random walker does in a room that it has looked at, and in one that it has not.
_SEEN, _UNSEEN = ("focus", "take", "put", "carry", "connect", "go"), ("look", "put", "go")
NONE = "none"
# What a goal asks for, and which kinds of things that are.
SOUGHT = {
    "living thing": ("animal", "plant"),
    "non-living thing": ("thing",),
    "plant": ("plant",),
    "animal": ("animal",),
}
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


def words() -> list[str]:
    """Every name: what the copy exercise repeats."""
    return [
        *(*rooms.ROOMS, *rooms.ANIMALS, *rooms.PLANTS, *rooms.SUBSTANCES, *rooms.VESSELS),
        *(*rooms.OBJECTS, *rooms.FURNITURE, *rooms.DEVICES, *rooms.COLOURS),
        *(*(str(n) for n in range(1, 11)), "light bulb", "wire", "box", "flower pot"),
    ]


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


class _Walk:
    """Random legal actions in a few made-up rooms."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.goal = rng, goal(rng)
        names = rng.sample(rooms.ROOMS, 4)
        self.rooms = {n: rooms.room(rng, name=n, boxes=0.6, size=12) for n in names}
        self.here = self.rooms[names[0]]
        self.held: list[Thing] = []
        before = f"{self.goal.text}\n"
        self.pieces: Pieces = [shown(self.here, before=before, asked=self.goal)]
        self.seen = True

    def say(self, action: str, answer: str) -> None:
        """Act, and be answered."""
        self.pieces += [*assistant(action, _ACTION), user(answer)]

    def turn(self) -> None:
        """One action, of those whose things are known."""
        known = [t for t in self.here.things if t.kind != "box"] if self.seen else []
        boxes = [t for t in self.here.things if t.kind == "box"]
        acts = (
            ("focus", "take", "put", "carry", "connect", "go")
            if self.seen
            else ("look", "put", "go")
        )
        match self.rng.choice(acts):
            case "look":
                self.pieces += [
                    *assistant("look around", _ACTION),
                    shown(self.here, asked=self.goal),
                ]
                self.seen = True
            case "focus" if known:
                target = self.rng.choice(known)
                self.say(f"focus on {self.called(target)}", f"You focus on the {target.name}.")
            case "take" if known:
                target = self.rng.choice(known)
                name = target.pot or target.name
                self.held.append(target)
                self.remove(target)
                self.say(f"pick up {name}", f"You move the {name} to the inventory.")
            case "put" if self.held:
                target = self.held.pop()
                box = self.rng.choice(boxes or [rooms.box(self.rng)]).name
                name = target.pot or target.name
                self.say(
                    f"move {self.carried(target)} to {box}", f"You move the {name} to the {box}."
                )
            case "carry" if known and boxes:
                target, box = self.rng.choice(known), self.rng.choice(boxes).name
                self.remove(target)
                self.say(
                    f"move {target.name} to {box}", f"You move the {target.name} to the {box}."
                )
            case "connect":
                self.connect()
            case _:
                self.go()

    def go(self) -> None:
        """Teleport."""
        self.here = self.rooms[self.rng.choice([n for n in self.rooms if n != self.here.name])]
        self.seen = False
        name = self.here.name
        self.say(f"teleport to {name}", f"You teleport to the {name}.")

    def remove(self, target: Thing) -> None:
        """Take a thing out of the room at hand."""
        things = tuple(t for t in self.here.things if t is not target)
        self.here = self.rooms[self.here.name] = dataclasses.replace(self.here, things=things)

    def connect(self) -> None:
        """Two ends of wires, or of a battery and a wire."""
        first, second = self.rng.sample(rooms.COLOURS, 2)
        pole, end = self.rng.choice(("anode", "cathode")), self.rng.choice((1, 2))
        wire = f"{second} wire terminal {end}"
        if self.rng.random() < 0.5:
            answer = f"{pole} on battery is now connected to terminal {end} on {second} wire"
            self.say(f"connect battery {pole} to {wire}", answer)
        else:
            bulb = f"{first} light bulb"
            answer = f"terminal {end} on {second} wire is now connected to {pole} on {bulb}"
            self.say(f"connect {wire} to {pole} in {bulb}", answer)

    def called(self, target: Thing) -> str:
        """One of the names a thing goes by."""
        return self.rng.choice((target.name, f"{target.stage} {target.name}".strip()))

    def carried(self, target: Thing) -> str:
        """The same of something in the inventory."""
        if target.pot:
            return f"{target.pot} containing {target.name} and soil in inventory"
        whole = f"{target.stage} {target.name} {target.stage if target.stage == 'egg' else ''}"
        return f"{whole.strip()} in inventory" if target.stage else f"{target.name} in inventory"


def walk(rng: random.Random, turns: int) -> Pieces:
    """Random legal actions from a task's first room on."""
    walker = _Walk(rng)
    for _ in range(turns):
        walker.turn()
    return walker.pieces


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
