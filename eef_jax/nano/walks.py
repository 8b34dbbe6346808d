"""Walks: random legal actions in made-up rooms, answered as ScienceWorld answers them.

They teach the form of actions and what these lead to, nothing about which action is good. Knows
texts, no tokens, no simulator.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping

from eef_jax.nano import rooms
from eef_jax.nano.goals import goal, shown
from eef_jax.nano.pieces import Pieces, assistant, user
from eef_jax.nano.rooms import Thing

_WEIGHT = 0.3  # loss weight of an action
# What a random walker does in a room that it has looked at, and in one that it has not.
_SEEN, _UNSEEN = ("focus", "take", "put", "carry", "connect", "go"), ("look", "put", "go")


def walk(rng: random.Random, turns: int) -> Pieces:
    """Random legal actions from a task's first room on."""
    walker = _Walker(rng)
    for _ in range(turns):
        walker.turn()
    return walker.pieces


class _Walker:
    """One who goes through a few rooms, takes things and puts them down.

    Args:
        rng: decides everything.
    """

    def __init__(self, rng: random.Random):
        self._rng, self._goal = rng, goal(rng)
        names = rng.sample(rooms.ROOMS, 4)
        self._rooms = {n: rooms.room(rng, name=n, boxes=0.6, size=12) for n in names}
        self._here = self._rooms[names[0]]
        self._held: list[Thing] = []
        self._seen = True
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

    def _say(self, action: str, answer: str) -> bool:
        self.pieces += [*assistant(action, _WEIGHT), user(answer)]
        return True

    def _look(self) -> bool:
        self.pieces += [*assistant("look around", _WEIGHT), shown(self._here, asked=self._goal)]
        self._seen = True
        return True

    def _focus(self) -> bool:
        if not (known := self._known()):
            return False
        target = self._rng.choice(known)
        return self._say(f"focus on {self._called(target)}", f"You focus on the {target.name}.")

    def _take(self) -> bool:
        if not (known := self._known()):
            return False
        target = self._rng.choice(known)
        name = target.pot or target.name
        self._held.append(target)
        self._remove(target)
        return self._say(f"pick up {name}", f"You move the {name} to the inventory.")

    def _put(self) -> bool:
        if not self._held:
            return False
        target = self._held.pop()
        box = self._rng.choice(self._boxes() or [rooms.box(self._rng)]).name
        answer = f"You move the {target.pot or target.name} to the {box}."
        return self._say(f"move {_carried(target)} to {box}", answer)

    def _carry(self) -> bool:
        known, boxes = self._known(), self._boxes()
        if not known or not boxes:
            return False
        target, box = self._rng.choice(known), self._rng.choice(boxes).name
        self._remove(target)
        return self._say(
            f"move {target.name} to {box}", f"You move the {target.name} to the {box}."
        )

    def _connect(self) -> bool:
        """Two ends of wires, or of a battery and a wire."""
        first, second = self._rng.sample(rooms.COLOURS, 2)
        pole, end = self._rng.choice(("anode", "cathode")), self._rng.choice((1, 2))
        wire, terminal = f"{second} wire terminal {end}", f"terminal {end} on {second} wire"
        if self._rng.random() < 0.5:
            answer = f"{pole} on battery is now connected to {terminal}"
            return self._say(f"connect battery {pole} to {wire}", answer)
        bulb = f"{first} light bulb"
        answer = f"{terminal} is now connected to {pole} on {bulb}"
        return self._say(f"connect {wire} to {pole} in {bulb}", answer)

    def _go(self) -> bool:
        name = self._rng.choice([n for n in self._rooms if n != self._here.name])
        self._here, self._seen = self._rooms[name], False
        return self._say(f"teleport to {name}", f"You teleport to the {name}.")

    def _known(self) -> list[Thing]:
        return [t for t in self._here.things if t.kind != "box"] if self._seen else []

    def _boxes(self) -> list[Thing]:
        return [t for t in self._here.things if t.kind == "box"]

    def _remove(self, target: Thing) -> None:
        """Take a thing out of the room at hand."""
        things = tuple(t for t in self._here.things if t is not target)
        self._here = self._rooms[self._here.name] = dataclasses.replace(self._here, things=things)

    def _called(self, target: Thing) -> str:
        """One of the names a thing goes by."""
        return self._rng.choice((target.name, f"{target.stage} {target.name}".strip()))


def _carried(target: Thing) -> str:
    """What an action calls a thing in the inventory."""
    if target.pot:
        return f"{target.pot} containing {target.name} and soil in inventory"
    whole = f"{target.stage} {target.name} {target.stage if target.stage == 'egg' else ''}"
    return f"{whole.strip()} in inventory" if target.stage else f"{target.name} in inventory"
