"""The ways of splitting: who is tested on what, pinned by seeds and files."""

import json
import random

import numpy as np
import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop import splits
from eef_jax.envs.webshop.goals import SHUFFLE_SEED
from eef_jax.envs.webshop.splits import SplitPlan
from eef_jax.errors import ConfigError, DataError
from tests.envs.webshop import golden

FILES = {
    "products": str(golden.PRODUCTS),
    "attributes": str(golden.ATTRIBUTES),
    "title_nouns": str(golden.NOUNS),
}
OWNERS = np.array([3, 1, 3, 0, 9, 9, 9, 1, 4, 5, 6, 7, 8, 2] * 3)


@pytest.mark.parametrize("each", [0, 1, 2])
def test_by_product_no_two_splits_share_one(each):
    drawn = splits.product_splits(OWNERS, seed=1, goals_per_product=each)
    owners = {name: set(OWNERS[list(numbers)]) for name, numbers in drawn.items()}
    assert set.union(*owners.values()) == set(OWNERS.tolist())
    assert sum(map(len, owners.values())) == 10
    assert [len(owners[name]) for name in splits.SPLITS] == [6, 1, 3]
    assert sum(map(len, drawn.values())) == (len(OWNERS) if each == 0 else 10 * each)
    assert drawn == splits.product_splits(OWNERS, seed=1, goals_per_product=each)
    assert drawn != splits.product_splits(OWNERS, seed=2, goals_per_product=each)


def test_original_ranges():
    drawn = splits.original_splits(12_087)
    assert {name: (n[0], n[-1] + 1) for name, n in drawn.items()} == {
        "train": (1500, 12_087),
        "dev": (500, 1500),
        "test": (0, 500),
    }
    assert [len(splits.original_splits(13)[name]) for name in splits.SPLITS] == [0, 0, 13]


def test_shuffled_is_the_list_before_the_originals_shuffle_under_another_seed():
    goals = [f"goal {n}" for n in range(700)]
    original = list(goals)
    random.Random(SHUFFLE_SEED).shuffle(original)
    theirs = list(goals)
    random.Random(42).shuffle(theirs)
    drawn = splits.shuffled_splits(len(goals), 42)
    assert [original[n] for n in drawn["test"]] == theirs[:500]
    assert [original[n] for n in drawn["train"]] == theirs[500:]
    assert splits.shuffled_splits(len(goals), SHUFFLE_SEED)["test"] == list(range(500))


def test_files_give_the_goals_they_name_in_their_order(tmp_path):
    paths = {"train": [5, 3, 5], "test": [0]}
    for name, numbers in paths.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(numbers))
    env = webshop.make(
        webshop.Config(
            **FILES,
            train_indices=str(tmp_path / "train.json"),
            test_indices=str(tmp_path / "test.json"),
        )
    )
    goals = [json.loads(task.payload)["goal"] for task in env.tasks("train")]
    assert goals == [5, 3, 5]
    assert len({task.id for task in env.tasks("train")}) == 3
    assert len(env.tasks("dev")) == 0 and len(env.tasks("test")) == 1


@pytest.mark.parametrize("content", ["[1, 451]", "[-1]", '["1"]', "[true]", "[1.0]"])
def test_files_that_name_no_goal_are_refused(tmp_path, content):
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"entry \d is .*, expected the number of a goal, 0 to 450"):
        webshop.make(webshop.Config(**FILES, train_indices=str(path)))


def test_kinds_change_the_dataset_and_unknown_ones_are_refused():
    made = [webshop.make(webshop.Config(**FILES, splits=kind)) for kind in splits.SPLIT_KINDS]
    assert len({env.dataset_id for env in made}) == len(splits.SPLIT_KINDS)
    with pytest.raises(ConfigError, match="did you mean original"):
        webshop.make(webshop.Config(**FILES, splits="orginal"))
    with pytest.raises(ConfigError, match="fixed splits"):
        webshop.make(webshop.Config(splits="original"))


def test_splits_are_drawn_when_they_are_asked_for():
    def owners():
        raise AssertionError

    lazy = SplitPlan().make_splits(owners, 3)
    assert list(lazy) == list(splits.SPLITS) and lazy.recipe == "products 0 1"
    with pytest.raises(KeyError):
        lazy["validation"]
