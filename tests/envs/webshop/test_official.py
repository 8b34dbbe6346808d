"""Official files: goals and prices as the original draws them, splits by product, damage named."""

import json
import logging
import pathlib
import random
import re

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop import official
from eef_jax.envs.webshop.catalogue import parse_pricing, price_text, sample_prices
from eef_jax.envs.webshop.goals import human_goals, synthetic_goals
from eef_jax.envs.webshop.importer import Sources
from eef_jax.envs.webshop.splits import SplitPlan
from eef_jax.errors import ConfigError, DataError
from tests.envs.webshop import golden

FILES = {"products": str(golden.PRODUCTS), "attributes": str(golden.ATTRIBUTES)}


def _sources(seed: int = 0) -> Sources:
    return Sources(**FILES, title_nouns=str(golden.NOUNS), seed=seed)


REAL = pathlib.Path(__file__).parents[4] / "shared" / "data" / "webshop_1k"


@pytest.mark.parametrize(("name", "limit"), [("syn1k", 0), ("syn100", 100), ("human1k", 0)])
def test_prices_and_goals_equal_the_originals(name, limit):
    wanted = golden.config(name)
    products = golden.products(limit)
    rng = random.Random(wanted["load_seed"])
    prices = sample_prices(products, rng)
    assert prices == wanted["product_prices"]
    if name == "human1k":
        goals = human_goals(products, prices, json.loads(golden.HUMAN.read_text("utf-8")), rng)
    else:
        goals = synthetic_goals(products, prices, rng)
    assert goals == tuple(map(golden.goal, wanted["goals"]))


def test_global_random_state_is_left_alone():
    random.seed(1)
    before = random.getstate()
    official.load(_sources())
    assert random.getstate() == before


def test_bad_rows_are_dropped():
    asins = [product.asin for product in golden.products()]
    assert len(asins) == len(set(asins)) == 200
    assert all(asin != "nan" and len(asin) <= 10 for asin in asins)


def test_prices_are_read_and_shown():
    assert parse_pricing("$1,234.56") == (1234.56,)
    assert price_text(parse_pricing("$16.99 - $26.99")) == "$16.99 to $26.99"
    assert price_text(parse_pricing("")) == "$100.0"


def test_splits_are_by_product_and_pinned():
    plan = SplitPlan(seed=3, goals_per_product=4)
    data = official.load(_sources(seed=3), plan)
    asins = {
        split: {data.goals[number].asin for number in numbers}
        for split, numbers in data.splits.items()
    }
    assert not asins["train"] & asins["test"]
    assert not asins["train"] & asins["dev"]
    assert not asins["dev"] & asins["test"]
    assert sum(map(len, asins.values())) == len({goal.asin for goal in data.goals})
    again = official.load(_sources(seed=3), plan)
    assert dict(again.splits) == dict(data.splits)
    assert again.dataset_id == data.dataset_id
    assert official.load(_sources(seed=4)).dataset_id != data.dataset_id


def test_limits_take_the_first_tasks():
    env = webshop.make(webshop.Config(**FILES, title_nouns=str(golden.NOUNS), train_tasks=5))
    everything = webshop.make(webshop.Config(**FILES, title_nouns=str(golden.NOUNS)))
    assert list(env.tasks("train")) == list(everything.tasks("train"))[:5]
    assert env.tasks("test") == everything.tasks("test")
    assert env.dataset_id == everything.dataset_id


def test_missing_nouns_are_warned_about(caplog):
    with caplog.at_level(logging.WARNING):
        webshop.make(webshop.Config(**FILES))
    assert "without title nouns" in caplog.text


@pytest.mark.parametrize("damaged", ["products", "attributes", "human_instructions", "title_nouns"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "cannot read|is missing"), ("tru", "not valid JSON"), ("3", "holds a JSON int")],
)
def test_damaged_files_are_named(tmp_path, damaged, content, complaint):
    path = tmp_path / "damaged.json"
    if content is not None:
        path.write_text(content)
    files = (
        FILES
        | {"human_instructions": str(golden.HUMAN), "title_nouns": str(golden.NOUNS)}
        | {damaged: str(path)}
    )
    with pytest.raises(DataError, match=complaint) as error:
        webshop.make(webshop.Config(**files))
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("damaged", "content", "complaint"),
    [
        ("products", [{"asin": "B1"}], "record 0 (line 1) is not a WebShop product"),
        ("products", ["B1"], "record 0 (line 1) is not a WebShop product"),
        ("products", [], "no goals"),
        ("attributes", {"B0SYN00000": 3}, "record 0 (line 1), asin B0SYN00000: 3, expected an obj"),
        ("human_instructions", {"B0SYN00002": [{"instruction": "x"}]}, "B0SYN00002"),
        ("title_nouns", {"a title": "shoe"}, "expected a list of strings"),
    ],
)
def test_wrong_contents_are_named(tmp_path, damaged, content, complaint):
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=re.escape(complaint)):
        webshop.make(
            webshop.Config(**FILES | {"title_nouns": str(golden.NOUNS)} | {damaged: str(path)})
        )


def test_the_official_catalogue_is_refused_without_its_files():
    with pytest.raises(ConfigError, match=r"without files: give --config.env.data_dir=FOLDER"):
        webshop.make(webshop.Config(catalogue="official"))


def test_files_that_need_each_other_are_asked_for():
    with pytest.raises(ConfigError, match=r"env\.attributes"):
        webshop.make(webshop.Config(products="products.json"))
    with pytest.raises(ConfigError, match=r"env\.products"):
        webshop.make(webshop.Config(title_nouns="nouns.json"))
    with pytest.raises(ConfigError, match="did you mean react"):
        webshop.make(webshop.Config(**FILES, prompt="reacct"))


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real 1,000 products are not at {REAL}")
def test_real_products_give_the_originals_goals():
    env = webshop.make(
        webshop.Config(
            products=str(REAL / "items_shuffle_1000.json"),
            attributes=str(REAL / "items_ins_v2_1000.json"),
            title_nouns=str(REAL / "title_nouns.json"),
        )
    )
    assert len(env.dataset.products) == 1000
    assert len(env.dataset.goals) == 6910
    assert len({goal.asin for goal in env.dataset.goals}) == 415
    assert [len(env.tasks(split)) for split in ("train", "dev", "test")] == [249, 41, 125]
    game = env.game()
    assert game.reset(env.tasks("test")[0]).startswith("WebShop [SEP] Instruction: [SEP] ")
    assert "Page 1 (Total results: 50)" in game.step("search[shoes for men]").observation
