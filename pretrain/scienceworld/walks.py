"""Walks: legal actions in made-up rooms, answered as ScienceWorld answers.

They teach the form of actions, what actions lead to, and to follow orders: an order such as
`put: red box` has one right action. No walk solves a task.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping

from pretrain.scienceworld import rooms
from pretrain.scienceworld.goals import make_goal, room_message
from pretrain.scienceworld.rooms import RoomObject
from pretrain.segments import Exercise, Segment, assistant, user
from pretrain.tokenizer import END

# Loss weights of an action's tokens. A random action cannot be predicted, only its form.
_RANDOM_WEIGHT, _ORDERED_WEIGHT = 0.3, 1.0
# What a walker does in a room whose description it has read, and in one where it has not looked.
_ACTIONS_SEEN = ("focus", "take", "put", "carry", "connect", "go")
_ACTIONS_UNSEEN = ("look", "look", "put", "go")


def walk(rng: random.Random, turns: int, *, ordered: float = 0.6) -> Exercise:
    """Return legal actions from a task's first room on; it ends with the answer to the last one.

    Args:
        rng: source of all random choices.
        turns: number of actions.
        ordered: probability that every action follows an order (0-1); otherwise all are random.
    """
    walker = _Walker(rng, follows_orders=rng.random() < ordered)
    for _ in range(turns):
        walker.take_turn()
    return walker.exercise


class _Walker:
    """Goes through four rooms, takes objects and puts them down.

    Args:
        rng: source of all random choices.
        follows_orders: whether an order precedes each action.
    """

    def __init__(self, rng: random.Random, *, follows_orders: bool):
        self._rng, self._goal = rng, make_goal(rng)
        names = rng.sample(rooms.ROOMS, 4)
        self._rooms = {
            n: rooms.make_room(rng, name=n, box_chance=0.6, max_objects=12) for n in names
        }
        self._here = self._rooms[names[0]]
        self._inventory: list[RoomObject] = []
        self._seen, self._follows_orders = True, follows_orders
        before = f"{self._goal.text}\n"
        self.exercise: Exercise = [room_message(self._here, before=before, goal=self._goal)]
        self._actions: Mapping[str, Callable[[], bool]] = {
            "look": self._look,
            "focus": self._focus,
            "take": self._take,
            "put": self._put,
            "carry": self._carry,
            "connect": self._connect,
            "go": self._go,
        }

    def take_turn(self) -> None:
        """Perform a random action; go to another room if it is not possible here."""
        name = self._rng.choice(_ACTIONS_SEEN if self._seen else _ACTIONS_UNSEEN)
        if not self._actions[name]():
            self._go()

    def _act(self, order: str, action: str, answer: Segment) -> bool:
        """Append an action and its answer, and the order at the end of the previous answer."""
        if self._follows_orders:
            last = self.exercise[-1]
            text = f"{last.text.removesuffix(END)}\n{order}{END}"
            self.exercise[-1] = dataclasses.replace(last, text=text)
        weight = _ORDERED_WEIGHT if self._follows_orders else _RANDOM_WEIGHT
        self.exercise += [*assistant(action, weight), answer]
        return True

    def _look(self) -> bool:
        self._seen = True
        return self._act("look", "look around", room_message(self._here, goal=self._goal))

    def _focus(self) -> bool:
        if not (visible := self._visible()):
            return False
        target = self._rng.choice(visible)
        same_kind = [o for o in visible if o.kind == target.kind]
        by_kind = target.living and target is same_kind[0] and self._rng.random() < 0.5
        order = f"focus: first {target.kind}" if by_kind else f"focus: {target.name}"
        answer = user(f"You focus on the {target.name}.")
        return self._act(order, f"focus on {target.name}", answer)

    def _take(self) -> bool:
        if not (visible := self._visible()):
            return False
        target = self._rng.choice(visible)
        name = target.pot or target.name
        self._inventory.append(target)
        self._remove(target)
        answer = user(f"You move the {name} to the inventory.")
        return self._act(f"take: {target.name}", f"pick up {name}", answer)

    def _put(self) -> bool:
        if not self._inventory:
            return False
        target = self._inventory.pop()
        box = self._rng.choice(self._boxes() or [rooms.make_box(self._rng)]).name
        answer = user(f"You move the {target.pot or target.name} to the {box}.")
        return self._act(f"put: {box}", f"move {_inventory_name(target)} to {box}", answer)

    def _carry(self) -> bool:
        visible, boxes = self._visible(), self._boxes()
        if not visible or not boxes:
            return False
        target, box = self._rng.choice(visible), self._rng.choice(boxes).name
        self._remove(target)
        answer = user(f"You move the {target.name} to the {box}.")
        return self._act(f"move: {target.name}, {box}", f"move {target.name} to {box}", answer)

    def _connect(self) -> bool:
        """Connect a wire to the battery or to a light bulb."""
        first, second = self._rng.sample(rooms.COLORS, 2)
        pole, end = self._rng.choice(("anode", "cathode")), self._rng.choice((1, 2))
        wire, terminal = f"{second} wire terminal {end}", f"terminal {end} on {second} wire"
        if self._rng.random() < 0.5:
            answer = user(f"{pole} on battery is now connected to {terminal}")
            order = f"connect: battery {pole}, {wire}"
            return self._act(order, f"connect battery {pole} to {wire}", answer)
        bulb = f"{first} light bulb"
        answer = user(f"{terminal} is now connected to {pole} on {bulb}")
        order = f"connect: {wire}, {bulb} {pole}"
        return self._act(order, f"connect {wire} to {pole} in {bulb}", answer)

    def _go(self) -> bool:
        name = self._rng.choice([n for n in self._rooms if n != self._here.name])
        self._here, self._seen = self._rooms[name], False
        answer = user(f"You teleport to the {name}.")
        return self._act(f"go: {name}", f"teleport to {name}", answer)

    def _visible(self) -> list[RoomObject]:
        return [o for o in self._here.objects if o.kind != "box"] if self._seen else []

    def _boxes(self) -> list[RoomObject]:
        return [o for o in self._here.objects if o.kind == "box"]

    def _remove(self, target: RoomObject) -> None:
        """Remove an object from the current room."""
        objects = tuple(o for o in self._here.objects if o is not target)
        self._here = dataclasses.replace(self._here, objects=objects)
        self._rooms[self._here.name] = self._here


def _inventory_name(target: RoomObject) -> str:
    """Return what an action calls an object in the inventory."""
    if target.pot:
        return f"{target.pot} containing {target.name} and soil in inventory"
    if not target.stage:
        return f"{target.name} in inventory"
    name = f"{target.stage} {target.name} {target.stage if target.stage == 'egg' else ''}"
    return f"{name.strip()} in inventory"
