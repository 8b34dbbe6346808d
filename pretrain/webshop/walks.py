"""Random walks through made-up WebShop pages: the form of actions and what they lead to."""

import random
from collections.abc import Callable
from typing import Any

from eef_jax.envs.webshop import generate
from pretrain.segments import Exercise, assistant, user
from pretrain.webshop import pages
from pretrain.webshop.pages import Item

_ACTION_WEIGHT = 0.3  # loss weight of an action's tokens; a random action cannot be predicted
# Buttons of an item page, and the pages behind them.
_SUB_PAGES = {
    "description": " [SEP] Made for daily use.",
    "features": " [SEP] Easy to order.",
    "reviews": "",
}

_Next = Callable[[], Any] | None  # the method that takes the next action; None after a purchase


class _Walker:
    """Takes random legal actions; each method takes one and returns the method to call next."""

    def __init__(self, rng: random.Random) -> None:
        self.exercise: Exercise = []
        self._rng, self._goal = rng, pages.make_goal(rng)
        self._page = 1
        self._items: list[Item] = []
        self._item_page = ""
        self._groups: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def search(self) -> _Next:
        """Search for some words of the instruction."""
        self.exercise.append(user(pages.start_page(self._goal)))
        text = self._goal.text.replace(",", " ").replace(":", " ").split()
        self._page = 1
        words = self._rng.sample(text, self._rng.randint(1, min(4, len(text))))
        self._act(f"search[{' '.join(words)}]")
        return self._open_results

    def _act(self, action: str) -> None:
        self.exercise += assistant(action, _ACTION_WEIGHT)

    def _open_results(self) -> _Next:
        """Draw a new page of results."""
        self._items = pages.make_items(self._rng, self._goal, 0.5)
        return self._browse_results()

    def _browse_results(self) -> _Next:
        """On a results page: go to another page, go back to the search, or open an item."""
        self.exercise.append(pages.results_message(self._goal, self._page, self._items))
        buttons = ["back to search", "next >", "", ""] + ["< prev"] * (self._page > 1)
        button = self._rng.choice(buttons)
        self._act(f"click[{button or (item := self._rng.choice(self._items)).asin.lower()}]")
        if button == "back to search":
            return self.search
        if button:
            self._page += 1 if button == "next >" else -1
            return self._open_results
        names = sorted(self._rng.sample(tuple(generate.VALUES), self._rng.randint(0, 2)))
        self._groups = tuple(
            (name, tuple(self._rng.sample(generate.VALUES[name], 3))) for name in names
        )
        self._item_page = pages.item_page(self._goal, item, self._groups)
        return self._browse_item

    def _browse_item(self) -> _Next:
        """On an item's page: choose an option, visit a sub-page, go back, or buy."""
        self.exercise.append(user(self._item_page))
        options = [value for _, values in self._groups for value in values]
        legal = ["back to search", "< prev", *_SUB_PAGES, "buy now"]
        target = self._rng.choice(options if options and self._rng.random() < 0.5 else legal)
        self._act(f"click[{target}]")
        if target in _SUB_PAGES:
            head = f"Instruction: [SEP] {self._goal.text} [SEP] Back to Search [SEP] < Prev"
            self.exercise.append(user(head + _SUB_PAGES[target]))
            self._act("click[< prev]")
        if target == "buy now":
            return None
        moves = {"back to search": self.search, "< prev": self._browse_results}
        return moves.get(target, self._browse_item)


def walk(rng: random.Random, turns: int) -> Exercise:
    """Return random legal actions from the start page on; pages are drawn, not simulated."""
    walker = _Walker(rng)
    take_action: _Next = walker.search
    for _ in range(turns):
        if take_action is not None:
            take_action = take_action()
    return walker.exercise
