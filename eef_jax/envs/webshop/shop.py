"""What all games of a process share: products, goals, prices, the search index and view options.

Immutable except for caches of past queries. Transitions between pages are in `game`.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from eef_jax.envs.webshop import pages
from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.goals import Goal
from eef_jax.envs.webshop.pages import Node, Page, PageKind
from eef_jax.envs.webshop.reward import Reward, compute_reward
from eef_jax.envs.webshop.search import SearchIndex
from eef_jax.envs.webshop.views import ViewOptions

DEFAULT_VIEW = ViewOptions()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shop:
    """What all games share; immutable but for the index's memory of past queries.

    Attributes:
        dataset: products, goals, prices and nouns.
        index: search over the products.
        view: how its pages look.
        prefix: text put before every observation.
        listing: text put after every page and before what can be done there; "": it is not told.
    """

    dataset: Dataset
    index: SearchIndex
    view: ViewOptions = DEFAULT_VIEW
    prefix: str = ""
    listing: str = ""

    @property
    def products(self) -> Sequence[Product]:
        """The catalogue; pages name products by their number in it."""
        return self.dataset.products

    def hits(self, page: Page) -> Sequence[int]:
        """Products found by the query of a results page, best first.

        Queries `<q> words` and `<c> word` list all products of a query or of a category, in
        catalogue order, as the original's do.
        """
        if page.kind is not PageKind.RESULTS:
            return ()
        tag, space, rest = page.query.partition(" ")
        if tag == "<q>":
            return _labelled(self.dataset)["query"].get(rest.strip(), ())
        if tag == "<c>" and space:
            return _labelled(self.dataset)["category"].get(rest.partition(" ")[0].strip(), ())
        return self.index.search(page.query)

    def nodes(self, page: Page, goal: Goal) -> list[Node]:
        """What stands on a page."""
        return pages.page_nodes(
            page,
            goal.instruction,
            self.products,
            self.hits(page),
            show_attributes=self.view.show_attrs,
        )

    def reward(self, page: Page, goal: Goal) -> Reward:
        """Reward of buying what an item page shows, with the options chosen there."""
        product = self.products[page.product]
        return compute_reward(
            product,
            goal,
            price=self.dataset.prices[product.asin],
            chosen=[value for _, value in page.options],
            nouns=self.dataset.nouns,
        )


@functools.lru_cache(maxsize=4)
def search_index(dataset: Dataset) -> SearchIndex:
    """The search index of a dataset: the stored one, or one built once in a process.

    Building takes about 1 s for 2,000 products.
    """
    if dataset.index is not None:
        return dataset.index
    return SearchIndex.build(
        [product.asin for product in dataset.products],
        [product.document for product in dataset.products],
    )


@functools.lru_cache(maxsize=4)
def _labelled(dataset: Dataset) -> Mapping[str, Mapping[str, Sequence[int]]]:
    """Numbers of the products of each query and each category; made when first asked for."""
    found: dict[str, dict[str, list[int]]] = {"query": {}, "category": {}}
    for number, product in enumerate(dataset.products):
        found["query"].setdefault(product.query, []).append(number)
        found["category"].setdefault(product.category, []).append(number)
    return found
