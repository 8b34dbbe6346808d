"""Walks: legal actions in made-up rooms, some of them ordered, answered as ScienceWorld does.

They teach the form of actions, what these lead to, and to do what is said: an order such as `put:
red box` has one right action, and without orders there is none. No task is solved. Knows texts, no
tokens, no simulator.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping

from pretrain import rooms
from pretrain.goals import goal, shown
from pretrain.pieces import Piece, Pieces, assistant, user
from pretrain.rooms import Thing
from pretrain.vocabulary import END

_WEIGHT, _ORDERED = 0.3, 1.0  # loss weights of an action of one's own, and of an ordered one
# What a random walker does in a room that it has looked at, and in one that it has not.
_SEEN, _UNSEEN = ("focus", "take", "put", "carry", "connect", "go"), ("look", "look", "put", "go")


def walk(rng: random.Random, turns: int, *, ordered: float = 0.6) -> Pieces:
    """Legal actions from a task's first room on; the last piece is the last one's answer.

    Args:
        rng: decides everything.
        turns: number of actions.
        ordered: chance that all of them are ordered (0-1); else they are random.
    """
    walker = _Walker(rng, obeys=rng.random() < ordered)
    for _ in range(turns):
        walker.turn()
    return walker.pieces


class _Walker:
    """One who goes through a few rooms, takes things and puts them down.

    Args:
        rng: decides everything.
        obeys: whether each action is ordered.
    """

    def __init__(self, rng: random.Random, *, obeys: bool):
        self._rng, self._goal = rng, goal(rng)
        names = rng.sample(rooms.ROOMS, 4)
        self._rooms = {n: rooms.room(rng, name=n, boxes=0.6, size=12) for n in names}
        self._here = self._rooms[names[0]]
        self._held: list[Thing] = []
        self._seen, self._obeys = True, obeys
        before = f"{self._goal.text}\n"
        self.pieces: Pieces = [shown(self._here, before=before, asked=self._goal)]
        self._acts: Mapping[str, Callable[[], bool]] = {
            "look": self._look,
            "focus": self._focus,
            "take": self._take,
            "put": self._put,
            "carry": self._carry,
            "connect": self._connect,
            "go": self._go,
        }

    def turn(self) -> None:
        """One action on what is known here; a walk to another room where it cannot be done."""
        if not self._acts[self._rng.choice(_SEEN if self._seen else _UNSEEN)]():
            self._go()

    def _do(self, order: str, action: str, answer: Piece) -> bool:
        """Act, perhaps because the last answer's end says so."""
        if self._obeys:
            last = self.pieces[-1]
            text = f"{last.text.removesuffix(END)}\n{order}{END}"
            self.pieces[-1] = dataclasses.replace(last, text=text)
        self.pieces += [*assistant(action, _ORDERED if self._obeys else _WEIGHT), answer]
        return True

    def _look(self) -> bool:
        self._seen = True
        return self._do("look", "look around", shown(self._here, asked=self._goal))

    def _focus(self) -> bool:
        if not (known := self._known()):
            return False
        target = self._rng.choice(known)
        kind = [t for t in known if t.kind == target.kind]
        first = target.living and target is kind[0] and self._rng.random() < 0.5
        order = f"focus: first {target.kind}" if first else f"focus: {target.name}"
        answer = user(f"You focus on the {target.name}.")
        return self._do(order, f"focus on {target.name}", answer)

    def _take(self) -> bool:
        if not (known := self._known()):
            return False
        target = self._rng.choice(known)
        name = target.pot or target.name
        self._held.append(target)
        self._remove(target)
        answer = user(f"You move the {name} to the inventory.")
        return self._do(f"take: {target.name}", f"pick up {name}", answer)

    def _put(self) -> bool:
        if not self._held:
            return False
        target = self._held.pop()
        box = self._rng.choice(self._boxes() or [rooms.box(self._rng)]).name
        answer = user(f"You move the {target.pot or target.name} to the {box}.")
        return self._do(f"put: {box}", f"move {_carried(target)} to {box}", answer)

    def _carry(self) -> bool:
        known, boxes = self._known(), self._boxes()
        if not known or not boxes:
            return False
        target, box = self._rng.choice(known), self._rng.choice(boxes).name
        self._remove(target)
        answer = user(f"You move the {target.name} to the {box}.")
        return self._do(f"move: {target.name}, {box}", f"move {target.name} to {box}", answer)

    def _connect(self) -> bool:
        """Two ends of wires, or of a battery and a wire."""
        first, second = self._rng.sample(rooms.COLOURS, 2)
        pole, end = self._rng.choice(("anode", "cathode")), self._rng.choice((1, 2))
        wire, terminal = f"{second} wire terminal {end}", f"terminal {end} on {second} wire"
        if self._rng.random() < 0.5:
            answer = user(f"{pole} on battery is now connected to {terminal}")
            order = f"connect: battery {pole}, {wire}"
            return self._do(order, f"connect battery {pole} to {wire}", answer)
        bulb = f"{first} light bulb"
        answer = user(f"{terminal} is now connected to {pole} on {bulb}")
        order = f"connect: {wire}, {bulb} {pole}"
        return self._do(order, f"connect {wire} to {pole} in {bulb}", answer)

    def _go(self) -> bool:
        name = self._rng.choice([n for n in self._rooms if n != self._here.name])
        self._here, self._seen = self._rooms[name], False
        return self._do(f"go: {name}", f"teleport to {name}", user(f"You teleport to the {name}."))

    def _known(self) -> list[Thing]:
        return [t for t in self._here.things if t.kind != "box"] if self._seen else []

    def _boxes(self) -> list[Thing]:
        return [t for t in self._here.things if t.kind == "box"]

    def _remove(self, target: Thing) -> None:
        """Take a thing out of the room at hand."""
        things = tuple(t for t in self._here.things if t is not target)
        self._here = self._rooms[self._here.name] = dataclasses.replace(self._here, things=things)


def _carried(target: Thing) -> str:
    """What an action calls a thing in the inventory."""
    if target.pot:
        return f"{target.pot} containing {target.name} and soil in inventory"
    whole = f"{target.stage} {target.name} {target.stage if target.stage == 'egg' else ''}"
    return f"{whole.strip()} in inventory" if target.stage else f"{target.name} in inventory"
