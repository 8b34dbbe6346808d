"""Which goals are trained on, tuned on and tested with: the ways in which WebShop is split.

    products   by described product, drawn with a seed: no product of a test goal is described by a
               train goal (synthetic goals of one product differ in options alone, and one product
               of the small catalogue has 558 of them)
    original   test 0-499, dev 500-1499, train 1500-; meant for the human goals of all products
    shuffled   verl-agent's: the goals before the original's shuffle, shuffled with another seed
               instead; its first 500 are the test split, the rest is the train split
    files      index files by path, as ETO ships them: JSON lists of goal numbers

All are pure functions of who owns which goal.
"""

import dataclasses
import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eef_jax.envs._prompt import read_index_file
from eef_jax.envs.webshop.goals import shuffled_order
from eef_jax.errors import ConfigError, did_you_mean

SPLITS = ("train", "dev", "test")
SPLIT_KINDS = ("products", "original", "shuffled")
# `products`: shares of the products with goals; the rest is the test split.
TRAIN = 0.6
DEV = 0.1
# `original`: where the test and the dev split end.
TEST_END = 500
DEV_END = 1500


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """How to split; `make_splits` does it.

    Attributes:
        kind: one of `SPLIT_KINDS`; not read where there are files.
        seed: of the draws of `products` and `shuffled`.
        goals_per_product: goals drawn for each product (`products` only); 0: all.
        files: split -> path of a JSON list of goal numbers; splits that are absent are empty.
    """

    kind: str = "products"
    seed: int = 0
    goals_per_product: int = 1
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in SPLIT_KINDS:
            raise ConfigError(f"env.splits={self.kind!r}: {did_you_mean(self.kind, SPLIT_KINDS)}")

    def make_splits(self, owners: Callable[[], np.ndarray], count: int) -> "LazySplits":
        """Splits of `count` goals; what `owners` returns is described in `product_splits`.

        Raises:
            DataError: an index file is missing, damaged, or names goals that do not exist.
        """
        if self.files:
            chosen = {split: read_goal_indices(path, count) for split, path in self.files.items()}
            digest = hashlib.sha256(json.dumps(sorted(chosen.items())).encode()).hexdigest()
            return LazySplits(lambda: chosen, f"files {digest}")
        if self.kind == "original":
            return LazySplits(lambda: original_splits(count), "original")
        if self.kind == "shuffled":
            return LazySplits(lambda: shuffled_splits(count, self.seed), f"shuffled {self.seed}")
        return LazySplits(
            lambda: product_splits(
                owners(), seed=self.seed, goals_per_product=self.goals_per_product
            ),
            f"products {self.seed} {self.goals_per_product}",
        )


class LazySplits(Mapping[str, Sequence[int]]):
    """Goal numbers of `train`, `dev` and `test` in task order, drawn when first asked for.

    Args:
        draw: makes them; splits that it leaves out are empty.
        recipe: text that names what `make_splits` does, for the dataset's hash.
    """

    def __init__(self, draw: Callable[[], Mapping[str, Sequence[int]]], recipe: str):
        self.recipe = recipe
        self._draw = draw

    @functools.cached_property
    def _drawn(self) -> Mapping[str, Sequence[int]]:
        return self._draw()

    def __getitem__(self, split: str) -> Sequence[int]:
        if split not in SPLITS:
            raise KeyError(split)
        return self._drawn.get(split, ())

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


def original_splits(count: int) -> dict[str, Sequence[int]]:
    """The ranges of the original's baselines, in the order of the goals."""
    numbers = range(count)
    return {
        "train": numbers[DEV_END:],
        "dev": numbers[TEST_END:DEV_END],
        "test": numbers[:TEST_END],
    }


def shuffled_splits(count: int, seed: int) -> dict[str, Sequence[int]]:
    """verl-agent's splits; with seed 233 its order is the original's."""
    place_of = np.empty(count, np.int64)  # goal before the shuffle -> number now
    place_of[np.asarray(shuffled_order(count))] = np.arange(count)
    numbers = place_of[np.asarray(shuffled_order(count, seed))].tolist()
    return {"train": numbers[TEST_END:], "test": numbers[:TEST_END]}


def product_splits(
    owners: np.ndarray, *, seed: int, goals_per_product: int
) -> dict[str, Sequence[int]]:
    """Splits that share no product.

    Args:
        owners: int[goals]; the described product of each goal, numbered in the order of asins.
        seed: of the draw.
        goals_per_product: goals drawn for each product; 0: all.
    """
    rng = random.Random(f"splits {seed}")
    by_owner = np.argsort(owners, kind="stable")
    starts = np.flatnonzero(np.diff(owners[by_owner], prepend=-1))
    numbers = by_owner.tolist()
    bounds = [*starts.tolist(), len(numbers)]
    products = list(range(len(starts)))
    rng.shuffle(products)
    first, second = round(len(products) * TRAIN), round(len(products) * (TRAIN + DEV))
    splits: dict[str, Sequence[int]] = {}
    for name, part in zip(
        SPLITS, (products[:first], products[first:second], products[second:]), strict=True
    ):
        chosen = []
        for product in part:
            goals = numbers[bounds[product] : bounds[product + 1]]
            chosen += rng.sample(goals, min(len(goals), goals_per_product or len(goals)))
        rng.shuffle(chosen)  # so that a limit on the tasks does not favour whole products
        splits[name] = chosen
    return splits


def read_goal_indices(path: str, count: int) -> list[int]:
    """Read the goal numbers of an index file.

    Args:
        path: a JSON list of goal numbers.
        count: number of goals.

    Raises:
        DataError: the file is missing or damaged, or names a goal that does not exist.
    """

    def parse_entry(number: Any) -> int:
        if type(number) is not int or not 0 <= number < count:
            raise ValueError(
                f" is {number!r}, expected the number of a goal, 0 to {count - 1}; was the file "
                "made for another catalogue, or for the human goals?"
            )
        return number

    remedy = "give its path, or make it again"
    return list(read_index_file(path, parse_entry, what="goal numbers", remedy=remedy))
