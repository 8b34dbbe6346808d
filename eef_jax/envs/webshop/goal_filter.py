"""Which goals are played, and which one comes next when nobody says: the original's rules.

A filter keeps goals, a limit draws some of them, and a session without a number draws one; draws
favour goals with rare attributes.
"""

import bisect
import collections
import dataclasses
import hashlib
import itertools
import random
from collections.abc import Callable, Sequence

from eef_jax.envs.webshop.dataset import Dataset
from eef_jax.envs.webshop.goals import SHUFFLE_SEED, Goal
from eef_jax.errors import ConfigError, DataError, did_you_mean

GoalFilter = Callable[[int, Goal], bool]  # of a goal's number and the goal: whether it is kept
NO_LIMIT = -1  # no limit
FILTER_FIELDS = (
    "asin",
    "category",
    "product_category",
    "query",
    "tags",
)  # that a condition may name


def select_goals(
    goals: Sequence[Goal], *, keep: GoalFilter | None = None, limit: int = NO_LIMIT
) -> Sequence[int]:
    """Numbers of the goals that a filter keeps, and of them as many as a limit allows.

    Args:
        goals: all goals, in the original's order.
        keep: which of them are played; None: all.
        limit: how many are drawn of those; `NO_LIMIT`, or more than there are: all, in their order.

    Returns:
        Numbers of the goals to play; drawn ones in the order of their draws, without repeats.

    Raises:
        ConfigError: the limit is neither positive nor `NO_LIMIT`.
        DataError: no goal is kept.
    """
    if limit < 1 and limit != NO_LIMIT:
        raise ConfigError(f"limit_goals={limit}: expected a positive number, or {NO_LIMIT} for all")
    kept: Sequence[int] = range(len(goals))
    if keep is not None:
        kept = [number for number, goal in enumerate(goals) if keep(number, goal)]
    if not kept:
        raise DataError(
            f"no goals left: filter_goals keeps none of {len(goals)}; give a filter that keeps some"
        )
    if limit == NO_LIMIT or limit >= len(kept):
        return kept
    rng = random.Random(SHUFFLE_SEED)
    rng.shuffle(list(range(len(goals))))  # the draws come after the original's shuffle of all goals
    weight = goal_weights(goals)
    bounds = list(itertools.accumulate(weight[number] for number in kept))
    drawn: dict[int, None] = {}
    while len(drawn) < limit:
        drawn[kept[sample_index(bounds, rng)]] = None
    return list(drawn)


def goal_weights(goals: Sequence[Goal]) -> list[float]:
    """How likely each goal is to be drawn, up to a factor.

    A synthetic goal weighs the mean of 1 / (number of goals with an attribute) over its attributes;
    goals that people wrote, which are known by their plain options, all weigh the same.
    """
    if any(isinstance(option, str) for goal in goals for option in goal.options):
        return [1.0] * len(goals)
    counts = collections.Counter(label for goal in goals for label in goal.attributes)
    return [
        sum(1.0 / counts[label] for label in goal.attributes) / max(1, len(goal.attributes))
        for goal in goals
    ]


def sample_index(bounds: Sequence[float], rng: random.Random) -> int:
    """A place in `bounds`, which are cumulative weights of goals.

    The first place is only drawn where there is no other, and its share falls to the next, each
    share to the one after it, and the last place has the last two: the original counts from one
    too far, and which goal a seed names depends on it.
    """
    position = rng.uniform(0, bounds[-1])
    return min(bisect.bisect(bounds, position) + 1, len(bounds) - 1)


def parse_filter(text: str) -> GoalFilter:
    """The filter that a text names: `"category=fashion;query=women's shoes"` asks for both.

    Fields are those of `Goal`: asin, category, product_category, query, and tags, which asks for
    one tag.

    Raises:
        ConfigError: the text is not of that form.
    """
    wanted: list[tuple[str, str]] = []
    for part in text.split(";"):
        field, sign, value = part.partition("=")
        if not sign or field.strip() not in FILTER_FIELDS:
            raise ConfigError(
                f"goal_filter {text!r}: {part!r} is not FIELD=VALUE; "
                f"{did_you_mean(field.strip(), FILTER_FIELDS)}"
            )
        wanted.append((field.strip(), value.strip()))

    def keep(_: int, goal: Goal) -> bool:
        return all(
            value in goal.tags if field == "tags" else getattr(goal, field) == value
            for field, value in wanted
        )

    return keep


def filter_splits(dataset: Dataset, text: str) -> Dataset:
    """A dataset whose splits have only the goals that a condition keeps, in their order.

    Raises:
        ConfigError: the text is not a condition.
        DataError: no goal of any split is kept.
    """
    keep = parse_filter(text)
    splits = {
        split: [int(number) for number in numbers if keep(int(number), dataset.goals[int(number)])]
        for split, numbers in dataset.splits.items()
    }
    if not any(splits.values()):
        raise DataError(
            f"no goals left: goal_filter {text!r} keeps none of the "
            f"{sum(map(len, dataset.splits.values()))} goals of all splits; give a wider one"
        )
    name = hashlib.sha256(f"{dataset.dataset_id} {text}".encode()).hexdigest()
    return dataclasses.replace(dataset, splits=splits, dataset_id=name)
