"""Reads folders of outputs of the original WebShop (see the golden folder's README)."""

import functools
import gzip
import json
import pathlib
from typing import Any

from eef_jax.envs.webshop.catalogue import Product, load_products
from eef_jax.envs.webshop.goals import Goal


class Folder:
    """A folder in the format of `tests/golden/webshop_parity`; any file in it may be gzipped."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def text(self, name: str) -> str:
        """The one file that fits a pattern, e.g. `data/items_shuffle*.json`."""
        found = [*self.path.glob(name), *self.path.glob(f"{name}.gz")]
        if len(found) != 1:
            raise SystemExit(f"{self.path / name}: expected one such file, found {len(found)}")
        content = found[0].read_bytes()
        return (gzip.decompress(content) if found[0].suffix == ".gz" else content).decode()

    def rows(self, name: str) -> list[dict[str, Any]]:
        # Not `splitlines`, which also splits at signs that JSON leaves as they are.
        return [json.loads(line) for line in self.text(name).split("\n") if line]

    @functools.cached_property
    def configs(self) -> dict[str, dict[str, Any]]:
        names = [path.name.partition(".")[0] for path in (self.path / "configs").iterdir()]
        rows = {name: json.loads(self.text(f"configs/{name}.json")) for name in sorted(names)}
        return {
            name: rows.get(row.get("same_goals_and_prices_as"), {}) | row
            for name, row in rows.items()
        }

    @functools.cache  # noqa: B019 - folders live as long as the process
    def products(self, limit: int = 0) -> tuple[Product, ...]:
        return load_products(
            json.loads(self.text("data/items_shuffle*.json")),
            json.loads(self.text("data/items_ins_v2*.json")),
            limit=limit,
        )


FOLDER = Folder(pathlib.Path(__file__).parents[2] / "golden" / "webshop_parity")
PRODUCTS = FOLDER.path / "data" / "items_shuffle_1000.json"
ATTRIBUTES = FOLDER.path / "data" / "items_ins_v2_1000.json"
HUMAN = FOLDER.path / "data" / "items_human_ins.json"
NOUNS = FOLDER.path / "nouns_ref.json"
products = FOLDER.products


def rows(name: str) -> list[dict[str, Any]]:
    return FOLDER.rows(name.removesuffix(".gz"))


def config(name: str) -> dict[str, Any]:
    return FOLDER.configs[name]


def goal(row: dict[str, Any]) -> Goal:
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
