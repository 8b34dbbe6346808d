"""Reads the golden files: the original WebShop's outputs on a synthetic catalogue (see README)."""

import functools
import gzip
import json
import pathlib

from eef_jax.envs.webshop.catalogue import Product, load_products
from eef_jax.envs.webshop.goals import Goal

FOLDER = pathlib.Path(__file__).parents[2] / "golden" / "webshop_parity"
PRODUCTS = FOLDER / "data" / "items_shuffle_1000.json"
ATTRIBUTES = FOLDER / "data" / "items_ins_v2_1000.json"
HUMAN = FOLDER / "data" / "items_human_ins.json"
NOUNS = FOLDER / "nouns_ref.json"


def rows(name: str) -> list[dict]:
    with gzip.open(FOLDER / name, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@functools.cache
def products(limit: int = 0) -> tuple[Product, ...]:
    return load_products(
        json.loads(PRODUCTS.read_text("utf-8")),
        json.loads(ATTRIBUTES.read_text("utf-8")),
        limit=limit,
    )


def config(name: str) -> dict:
    (row,) = rows(f"configs/{name}.json.gz")
    return row


def goal(row: dict) -> Goal:
    options = row["goal_options"]
    return Goal(
        asin=row["asin"],
        instruction=row["instruction_text"],
        attributes=tuple(row["attributes"]),
        options=tuple(options.items() if isinstance(options, dict) else options),
        price_upper=row["price_upper"],
        title=row["name"],
        category=row["category"],
        query=row["query"],
        product_category=row["product_category"],
    )
