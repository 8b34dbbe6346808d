"""What a shopper remembers of an episode: the searches made and the products opened.

It is read off the pages seen and the actions done, whoever did them, so a shopper that goes on from
a state of another agent knows what that agent has seen.
"""

import dataclasses

from eef_jax.envs.webshop.pages import NEXT, PageKind
from eef_jax.experts._shopper import PageView, Visit
from eef_jax.experts._wish import stems


@dataclasses.dataclass(kw_only=True)
class Product:
    """What was read of a product.

    Attributes:
        asin: its id, in lower case.
        title: its title.
        number: how many products were opened before it.
        price: the lowest price of its tag, in dollars.
        stems: stems of all its texts that were read.
        names: what can be clicked on its page.
        read: names of the pages about it that were read.
    """

    asin: str
    title: str
    number: int
    price: float
    stems: frozenset[str]
    names: frozenset[str] = frozenset()
    read: set[str] = dataclasses.field(default_factory=set)


class Browsing:
    """An episode as far as it went.

    Attributes:
        opened: products by id, in the order in which they were last opened.
        current: the product whose page, or page about it, was shown last.
        chosen: options chosen on its page since it was opened.
        searches: what was searched for.
        turned: results pages read since the last search, the first one included.
    """

    def __init__(self, visit: Visit):
        self.opened: dict[str, Product] = {}
        self.current: Product | None = None
        self.chosen: set[str] = set()
        self.searches: list[str] = []
        self.turned = 0
        for action, before, after in zip(visit.actions, visit.pages, visit.pages[1:], strict=False):
            self._follow(action, before, after)

    def _follow(self, action: tuple[str, str], before: PageView, after: PageView) -> None:
        verb, name = action[0], action[1].lower()
        if verb == "search":
            self.searches.append(name)
            self.turned = 1
        elif name == NEXT and before.kind is PageKind.RESULTS:
            self.turned += 1
        if before.kind is PageKind.RESULTS and after.kind is PageKind.ITEM:
            self._open(name, before)
        if self.current and after.kind is PageKind.ITEM:
            self.current.names = after.names
            values = {value for _, values in after.options for value in values}
            self.chosen |= values & {action[1]}
        if self.current and after.kind is PageKind.SUB:
            self.current.stems |= stems(" ".join(after.texts))
            self.current.read.add(name)

    def _open(self, asin: str, results: PageView) -> None:
        listing = next(listing for listing in results.results if listing.asin == asin)
        new = Product(
            asin=asin,
            title=listing.title,
            number=len(self.opened),
            price=listing.price,
            stems=stems(listing.title),
        )
        self.current = self.opened.pop(asin, new)
        self.opened[asin] = self.current
        self.chosen = set()
