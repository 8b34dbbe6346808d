import gzip

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop import embedded
from eef_jax.envs.webshop.generate import generate_catalogue


@pytest.fixture(scope="module")
def shop():
    return embedded.load()


def test_pinned_file_is_what_the_generator_makes():
    # Not the compressed bytes: their header tells versions of Python apart.
    made, pinned = embedded.generate_file(), embedded.FILE.read_bytes()
    assert gzip.decompress(made) == gzip.decompress(pinned)


def test_sizes_and_splits_by_product(shop):
    assert 1800 <= len(shop.products) <= 2200
    assert {split: len(numbers) for split, numbers in shop.splits.items()} == embedded.SPLIT_SIZES
    described = [
        {shop.goals[number].asin for number in numbers} for numbers in shop.splits.values()
    ]
    assert (
        sum(map(len, described)) == len(set.union(*described)) == sum(embedded.SPLIT_SIZES.values())
    )


def test_every_goal_can_be_won_and_is_unique(shop):
    asins = {product.asin: product for product in shop.products}
    assert all(embedded.is_winning(shop, goal, asins[goal.asin]) for goal in shop.goals)
    assert len({embedded._wanted(goal) for goal in shop.goals}) == len(shop.goals)


@pytest.mark.parametrize("split", embedded.SPLIT_SIZES)
def test_tasks_need_paging_and_options(shop, split):
    goals = [shop.goals[number] for number in shop.splits[split]]
    pages = [embedded.winning_page(shop, goal, goal.instruction.lower()) for goal in goals]
    assert all(pages), "a search for a goal's words finds its product within the 50 hits"
    assert sum(page != 1 for page in pages) >= 0.3 * len(goals)
    assert sum(len(goal.options) > 1 for goal in goals) >= 0.3 * len(goals)
    assert [page == 1 for page in pages] == [goal.tags[0] == "easy" for goal in goals]


def test_most_products_have_a_near_duplicate_that_differs_in_one_attribute(shop):
    def are_near(left, right):
        shared = set(left.attributes) & set(right.attributes)
        return left.query == right.query and len(shared) == 1

    sample = shop.products[:100]
    near = [p for p in sample if any(are_near(p, other) for other in shop.products)]
    assert len(near) >= 0.75 * len(sample)


def test_generator_depends_on_its_seed_alone():
    assert generate_catalogue(3) == generate_catalogue(3)
    assert generate_catalogue(3) != generate_catalogue(4)


def test_table_of_shares_has_a_row_for_each_split(shop):
    assert [line.split()[0] for line in embedded.split_table(shop).splitlines()[2:]] == list(
        embedded.SPLIT_SIZES
    )


def test_environment_uses_it_by_default():
    env = webshop.make(webshop.Config(train_tasks=7))
    assert len(env.tasks("train")) == 7
    assert "hard" in {tag for task in env.tasks("test") for tag in task.tags}
