"""All that decides a shop's tasks, observations and rewards, in one value with one hash.

A `Dataset` is built of values in memory (the embedded catalogue), or reads a stored one as it is
asked (`stored.py`).
"""

import dataclasses
import hashlib
import json
import types
from collections.abc import Mapping, Sequence

from eef_jax.envs.webshop.catalogue import Product
from eef_jax.envs.webshop.goals import Goal
from eef_jax.envs.webshop.search import SearchIndex
from eef_jax.envs.webshop.splits import SPLITS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """A pinned shop; equal only to itself, so that caches can key on it.

    Attributes:
        products: the catalogue.
        goals: all goals; tasks refer to them by index.
        splits: indices of the goals of `train`, `dev` and `test`, in task order.
        prices: what each asin costs at the till, in dollars.
        nouns: title -> its lower-case nouns, for the reward; titles that are absent fall back to
            all their words less stop words.
        dataset_id: SHA-256 of all of the above.
        index: stored search index over the products; None: built on first use, see
            `shop.search_index`.
    """

    products: Sequence[Product]
    goals: Sequence[Goal]
    splits: Mapping[str, Sequence[int]]
    prices: Mapping[str, float]
    nouns: Mapping[str, Sequence[str]]
    dataset_id: str
    index: SearchIndex | None = None


def build_dataset(
    *,
    products: Sequence[Product],
    goals: Sequence[Goal],
    splits: Mapping[str, Sequence[int]],
    prices: Mapping[str, float],
    nouns: Mapping[str, Sequence[str]],
) -> Dataset:
    """Make a `Dataset` of values in memory, and its hash; arguments are its attributes."""
    tasks = {split: tuple(splits.get(split, ())) for split in SPLITS}
    words = {title: tuple(found) for title, found in nouns.items()}
    digest = hashlib.sha256()
    for rows in (
        map(_values, products),
        map(_values, goals),
        tasks.items(),
        sorted(prices.items()),
        sorted(words.items()),
    ):
        digest.update(b"[")
        for row in rows:
            digest.update(json.dumps(row).encode())
    return Dataset(
        products=tuple(products),
        goals=tuple(goals),
        splits=types.MappingProxyType(tasks),
        prices=types.MappingProxyType(dict(prices)),
        nouns=types.MappingProxyType(words),
        dataset_id=digest.hexdigest(),
    )


def _values(row: Product | Goal) -> list[object]:
    return [getattr(row, field.name) for field in dataclasses.fields(row)]
