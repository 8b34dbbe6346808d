"""A `Dataset` in a folder that `import_data` made: everything is read where it is asked for.

Products and nouns are rows of JSON, prices, goals and the index are arrays, all memory-mapped:
all processes share one copy, and loading does not wait for the catalogue. The folder's layout:

    manifest.json   seed, sources, counts, and a SHA-256 for each file; written last
    products        rows: the fields of a product, see `PRODUCT_FIELDS`
    asins, prices   arrays [products]: bytes; dollars at the till
    requests        .product, .bound: arrays [requests]; what is asked for, of which product
    written         rows [requests]: instruction, attributes, options; human goals only
    goals           .request, .choice: arrays [goals]; a request and a combination of options
    nouns           rows: title, its nouns; found by the title's digest
    index           .terms .starts .documents .codes .saturation .order: see `postings.Postings`
"""

import dataclasses
import functools
import hashlib
import logging
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eef_jax.envs.webshop.catalogue import Product, price_text
from eef_jax.envs.webshop.columns import KeyIndex, RowReader, open_array
from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.goals import Goal, HumanInstruction, human_goal, synthetic_goal
from eef_jax.envs.webshop.lazy import LazySequence
from eef_jax.envs.webshop.postings import Postings
from eef_jax.envs.webshop.search import SearchIndex
from eef_jax.envs.webshop.splits import SplitPlan
from eef_jax.errors import DataError
from eef_jax.storage import files

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
PRODUCT_FIELDS = tuple(f.name for f in dataclasses.fields(Product) if f.name != "price_text")
INDEX_ARRAYS = tuple(f.name for f in dataclasses.fields(Postings) if f.name != "num_nonempty")
CACHE_SIZE = 1024  # products, goals and nouns of titles that a process keeps parsed

_log = logging.getLogger(__name__)


def load(folder: str | pathlib.Path, plan: SplitPlan) -> Dataset:
    """Open a stored dataset.

    Args:
        folder: what `import_data --out` named, or a copy of it on gs://.
        plan: how its goals are split.

    Raises:
        DataError: the folder holds no whole dataset of this format.
    """
    folder = files.local_copy(folder)  # its files are mapped into memory
    manifest = read_manifest(folder)
    products, nouns = StoredProducts(folder), StoredNouns(folder)
    if not len(nouns):
        _log.warning(
            "WebShop without title nouns (--title_nouns of import_data, env.title_nouns): the "
            "reward's r_type compares all words of titles but the stop words, which changes it for "
            "9 in 100 pairs of products of one query. To compare with published numbers, make "
            "the file: python -m eef_jax.envs.webshop.nouns --products=... --out=..."
        )
    goals = StoredGoals(folder, products)
    order = open_array(folder, "index.order")
    splits = plan.make_splits(lambda: goals.owners(order), len(goals))
    content = manifest["dataset_id"] + splits.recipe
    return Dataset(
        products=products,
        goals=goals,
        splits=splits,
        prices=StoredPrices(folder, order),
        nouns=nouns,
        dataset_id=hashlib.sha256(content.encode()).hexdigest(),
        index=SearchIndex(
            Postings(
                **{name: open_array(folder, f"index.{name}") for name in INDEX_ARRAYS},
                num_nonempty=manifest["counts"]["documents with terms"],
            )
        ),
    )


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest, after a look at the files' sizes (`import_data --verify` reads them whole).

    Raises:
        DataError: the folder holds no whole dataset of this format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{folder} holds no WebShop dataset ({MANIFEST} is missing): make one with "
            "python -m eef_jax.envs.webshop.import_data --out, and let it finish"
        )
    manifest = files.read_json(path, remedy="import anew")
    if manifest.get("format") != FORMAT_VERSION:
        raise DataError(
            f"{path}: format {manifest.get('format')!r}, this version reads "
            f"{FORMAT_VERSION}; import anew"
        )
    for name, facts in manifest["files"].items():
        size = (folder / name).stat().st_size if (folder / name).is_file() else None
        if size != facts["bytes"]:
            raise DataError(
                f"{folder / name}: {'missing' if size is None else f'{size} bytes'}, expected "
                f"{facts['bytes']} bytes; import anew"
            )
    return manifest


def product_to_row(product: Product) -> list[Any]:
    """A product as a row."""
    return [getattr(product, name) for name in PRODUCT_FIELDS]


def product_from_row(row: Sequence[Any]) -> Product:
    """The product of a row."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in zip(PRODUCT_FIELDS, row, strict=True)
    }
    values["options"] = tuple((group, tuple(choices)) for group, choices in values["options"])
    return Product(**values, price_text=price_text(values["pricing"]))


class StoredProducts(LazySequence[Product]):
    """The catalogue; the products used last stay parsed."""

    def __init__(self, folder: pathlib.Path):
        rows = RowReader(folder, "products")
        super().__init__(
            len(rows), functools.lru_cache(CACHE_SIZE)(lambda n: product_from_row(rows[n]))
        )


class StoredGoals(LazySequence[Goal]):
    """All goals, in the original's order; each is put together from its product's row."""

    def __init__(self, folder: pathlib.Path, products: StoredProducts):
        self._products = products
        self._request = open_array(folder, "goals.request")
        self._choice = open_array(folder, "goals.choice")
        self._product = open_array(folder, "requests.product")
        self._bound = open_array(folder, "requests.bound")
        self._written = RowReader(folder, "written")
        super().__init__(len(self._request), functools.lru_cache(CACHE_SIZE)(self._goal))

    def owners(self, order: np.ndarray) -> np.ndarray:
        """int[goals]; the described product of each, numbered in the order of asins."""
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        return ranks[self._product[self._request]]

    def _goal(self, number: int) -> Goal:
        request = int(self._request[number])
        product, bound = self._products[int(self._product[request])], float(self._bound[request])
        if not len(self._written):
            return synthetic_goal(product, bound, int(self._choice[number]))
        text, attributes, options = self._written[request]
        return human_goal(product, bound, HumanInstruction(text, tuple(attributes), tuple(options)))


class StoredPrices(Mapping[str, float]):
    """What each asin costs at the till, in dollars."""

    def __init__(self, folder: pathlib.Path, order: np.ndarray):
        self._asins, self._order = open_array(folder, "asins"), order
        self._prices = open_array(folder, "prices")

    def __getitem__(self, asin: str) -> float:
        key = np.array(asin.encode())
        rank = int(np.searchsorted(self._asins, key, sorter=self._order))
        number = self._order[rank] if rank < len(self._order) else -1
        if number < 0 or self._asins[number] != key:
            raise KeyError(asin)
        return float(self._prices[number])

    def __iter__(self) -> Iterator[str]:
        return (asin.decode() for asin in self._asins.tolist())

    def __len__(self) -> int:
        return len(self._asins)


class StoredNouns(Mapping[str, Sequence[str]]):
    """Title -> its nouns."""

    def __init__(self, folder: pathlib.Path):
        self._rows, self._keys = RowReader(folder, "nouns"), KeyIndex(folder, "nouns")
        self._find = functools.lru_cache(CACHE_SIZE)(self._find_uncached)

    def __getitem__(self, title: str) -> Sequence[str]:
        if (words := self._find(title)) is None:
            raise KeyError(title)
        return words

    def _find_uncached(self, title: str) -> tuple[str, ...] | None:
        for place in self._keys.find(title):
            named, words = self._rows[place]
            if named == title:
                return tuple(words)
        return None

    def __iter__(self) -> Iterator[str]:
        return (row[0] for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)
