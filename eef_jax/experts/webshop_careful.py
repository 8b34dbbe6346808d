"""A scripted WebShop expert for real products, whose titles seldom say all that is asked for.

It searches with the first words of the instruction, opens the best match, checks price, options and
features on the product's pages, and buys what says enough of the instruction. Else it goes back,
opens others, turns the page, searches with more words, and settles for the best that it has seen
when its actions run out. It chooses options by name.

Its slips come late, as those of agents do. Where its first product is not the one, it hurries on to
other words, and from then on it walks away from products that fit, and forgets options the more it
has opened. So a failed trajectory has often found better words and seen the right product, and a
shopper without slips, which gives each results page its time, does better from there than from the
start. What it reads is what an agent reads: the pages.
"""

import dataclasses
import random

from eef_jax.config.fields import check, field
from eef_jax.envs.base import Env
from eef_jax.envs.webshop.pages import BACK, BUY, NEXT, PREVIOUS, PageKind, SubPage
from eef_jax.experts._browsing import Browsing, Product
from eef_jax.experts._shopper import Listing, Move, Shopper, Visit
from eef_jax.experts._wish import parse, stems
from eef_jax.policies.base import Policy

NAME = "careful_shopper"  # in trajectories

# What a line further down costs a match, as a share of the wanted words: titles say little, and the
# search has read more than them.
_PLACE = 0.05


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The section `expert` of the careful shopper: its slips (probabilities) and its patience."""

    seed: int = field(0, "decides when it slips; a task is always played the same way")
    hurry: float = field(
        0.9,
        "that it leaves its first results after one product, for other words or the next page",
        at_least=0,
        at_most=1,
    )
    doubt: float = field(
        0.8,
        "that it takes a fitting product for one that does not fit, unless it is its first",
        at_least=0,
        at_most=1,
    )
    forget: float = field(
        0.35,
        "that it forgets an option, once more for each product that it has opened",
        at_least=0,
        at_most=1,
    )
    looks: int = field(3, "products that it opens on a results page", at_least=1)
    pages: int = field(2, "results pages that it reads of a search", at_least=1)
    fits: float = field(
        0.6,
        "share of the instruction's words that the pages of a fitting product say",
        above=0,
        at_most=1,
    )
    reserve: int = field(
        3,
        "actions, besides those for options, that it keeps to buy the best it has seen",
        at_least=1,
    )

    def __post_init__(self) -> None:
        check(self, "expert")


def make(config: Config, *, env: Env) -> Policy:
    """Make the expert.

    Args:
        config: its slips and its patience.
        env: the shop that it plays; its cap on actions decides when the shopper settles.

    Raises:
        ConfigError: the environment is not WebShop.
    """
    return Shopper(lambda visit: _Decision(visit, config, env.max_steps).move(), env, name=NAME)


def without_slips(config: Config) -> Config:
    """The same shopper, but that it never slips."""
    return dataclasses.replace(config, hurry=0.0, doubt=0.0, forget=0.0)


class _Decision:
    """What follows from an episode so far.

    Args:
        visit: the episode.
        profile: the shopper's slips and patience.
        max_steps: cap on the episode's actions.
    """

    def __init__(self, visit: Visit, profile: Config, max_steps: int):
        self.profile = profile
        self.task = visit.task
        self.page = visit.pages[-1]
        self.wish = parse(visit.pages[0].instruction)
        self.seen = Browsing(visit)
        self.opened = self.seen.opened.values()
        self.left = max_steps - len(visit.actions)

    def move(self) -> Move:
        """The next move."""
        match self.page.kind:
            case PageKind.INDEX:
                return self._on_index()
            case PageKind.RESULTS:
                return self._on_results()
            case PageKind.SUB:
                return _click(PREVIOUS, "I have read this; back to the product.")
            case _:
                return self._on_item()

    def _on_index(self) -> Move:
        if wanted := self._wanted():
            return _search(wanted.title, "I look again for the best that I have seen.")
        if not self.seen.searches:
            return _search(self.wish.queries()[0], "I search for what is asked for.")
        query = next(iter(self._new_queries()), self.wish.text)
        return _search(query, "I search again, with other words.")

    def _on_results(self) -> Move:
        if wanted := self._wanted():
            if any(listing.asin == wanted.asin for listing in self.page.results):
                return _click(wanted.asin, "I go back to the best that I have seen.")
            return _search(wanted.title, "I look again for the best that I have seen.")
        if self._hurries() and self.opened and self.seen.turned == 1:
            return self._leave()
        if best := self._best_match():
            return _click(best.asin, "This looks closest to what is asked for; I open it.")
        if self.seen.turned < self.profile.pages:
            return _click(NEXT, "Nothing more here; I turn the page.")
        return self._leave()

    def _on_item(self) -> Move:
        product, wanted = self.seen.current, self._wanted()
        if product is None:
            return _click(BACK, "I do not know this product; I search for what is asked for.")
        if wanted is product:
            return self._buy(product)
        if wanted:
            return _click(PREVIOUS, "I have seen a better one.")
        if self._fits(product) is None:
            return _click(SubPage.FEATURES, "Its title does not say enough; I read its features.")
        if self._hurries():
            return self._leave()
        return _click(PREVIOUS, "It is not quite what is asked for.")

    def _buy(self, product: Product) -> Move:
        for group, value in self.wish.options:
            if (
                value in product.names
                and value not in self.seen.chosen
                and not self._forgets(value)
            ):
                return _click(value, f"The {group} should be {value}.")
        return _click(BUY, "It is what is asked for, as far as I can see.")

    def _leave(self) -> Move:
        """Leave the results for a new search or, without other words, for the next page."""
        if self._new_queries():
            return _click(BACK, "It is not quite what is asked for; other words may find it.")
        if self.page.kind is PageKind.RESULTS:
            return _click(NEXT, "Nothing here; I turn the page.")
        return _click(PREVIOUS, "It is not quite what is asked for.")

    def _new_queries(self) -> list[str]:
        return [query for query in self.wish.queries() if query.lower() not in self.seen.searches]

    def _best_match(self) -> Listing | None:
        """The line of the results that is most worth opening; None: no line is."""
        known = self.seen.opened
        tired = sum(line.asin in known for line in self.page.results) >= self.profile.looks
        worth = {
            line: self.wish.said_by(stems(line.title)) - _PLACE * place
            for place, line in enumerate(self.page.results)
            if line.price <= self.wish.upper
            and (self._fits(known[line.asin]) is None if line.asin in known else not tired)
        }
        return max(worth, key=worth.__getitem__, default=None)

    def _wanted(self) -> Product | None:
        """The product to buy: the best that fits or, when actions run out, one to settle for."""
        fitting = [one for one in self.opened if self._fits(one) and not self._doubts(one)]
        if fitting:
            return max(fitting, key=self._merit)
        if self.left > self.profile.reserve + len(self.wish.options) or not self.opened:
            return None
        return max(self.opened, key=self._merit)

    def _fits(self, product: Product) -> bool | None:
        """Whether a product is what is wanted; None where its features may tell."""
        if product.price > self.wish.upper or not self._has_options(product):
            return False
        if self.wish.said_by(product.stems) >= self.profile.fits:
            return True
        return False if SubPage.FEATURES in product.read else None

    def _merit(self, product: Product) -> tuple[bool, float, int]:
        # Of equals the first one opened, so that going back to it changes nothing.
        said = self.wish.said_by(product.stems)
        return self._has_options(product), said, -product.number

    def _has_options(self, product: Product) -> bool:
        return all(value in product.names for _, value in self.wish.options)

    def _hurries(self) -> bool:
        return len(self.seen.searches) == 1 and self._luck("hurry") < self.profile.hurry

    def _doubts(self, product: Product) -> bool:
        return product.number > 0 and self._luck("doubt", product.asin) < self.profile.doubt

    def _forgets(self, value: str) -> bool:
        remembered = (1 - self.profile.forget) ** len(self.opened)
        return self._luck("forget", value) < 1 - remembered

    def _luck(self, *what: str) -> float:
        """A number in [0, 1), drawn once for the task and `what`."""
        return random.Random(f"{self.profile.seed} {NAME} {self.task} {what}").random()


def _click(name: str, thought: str) -> Move:
    return Move(f"click[{name}]", thought)


def _search(words: str, thought: str) -> Move:
    return Move(f"search[{words}]", thought)
