"""Products in WebShop's file format: parsing, price tags, hidden prices and the indexed text.

Knows the files' schema (`items_shuffle*.json` and `items_ins_v2*.json`) and nothing of goals, pages
or rewards. Nothing is drawn from global random state: prices take a generator of the caller's.
"""

import dataclasses
import json
import pathlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eef_jax.errors import DataError

UNPRICED = 100.0  # dollars asked for a product without a price, on its page and at the till
UNLABELLED = ("DUMMY_ATTR",)  # attributes of a product that the attributes file leaves out


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One product, as its pages show it and the reward judges it.

    Attributes:
        asin: id; links show it and clicks name it (in lower case).
        title: name of the product.
        description: text of the Description page.
        bullets: lines of the Features page.
        pricing: one price, or the two ends of a price range, in dollars; empty: not priced.
        price_text: price tag of the pages, e.g. `"$16.99 to $26.99"`.
        options: option groups in page order, each a lower-case name and its values.
        attributes: what the reward compares with a goal's attributes.
        category: one of a few departments, e.g. `"beauty"`.
        query: the search it was found by, lower case.
        product_category: path of names joined by ` › `.
        instruction: what a synthetic goal asks for, without options and price; "": no goal.
        instruction_attributes: attributes that this instruction names.
    """

    asin: str
    title: str
    description: str = ""
    bullets: tuple[str, ...] = ()
    pricing: tuple[float, ...] = ()
    price_text: str = f"${UNPRICED}"
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    attributes: tuple[str, ...] = UNLABELLED
    category: str = ""
    query: str = ""
    product_category: str = ""
    instruction: str = ""
    instruction_attributes: tuple[str, ...] = ()

    @property
    def document(self) -> str:
        """The text search looks at: title, description, first bullet, options, in lower case."""
        options = ", and ".join(f"{group}: {', '.join(values)}" for group, values in self.options)
        bullet = self.bullets[0] if self.bullets else ""
        return f"{self.title} {self.description} {bullet} {options}".lower()


def read_json(path: str | pathlib.Path, expected: type, what: str) -> Any:
    """Read a JSON file whose top level must be `expected`.

    Args:
        path: file to read.
        expected: `list` or `dict`.
        what: description of the file for error messages, e.g. `"WebShop products"`.

    Raises:
        DataError: the file is missing, is not JSON, or holds another type.
    """
    try:
        with open(path, encoding="utf-8") as file:
            value = json.load(file)
    except OSError as error:
        raise DataError(f"{what}: cannot read {path} ({error.strerror}); give its path") from error
    except ValueError as error:
        raise DataError(f"{what}: {path} is not valid JSON ({error}); fetch it again") from error
    if not isinstance(value, expected):
        raise DataError(
            f"{what}: {path} holds a JSON {type(value).__name__}, expected a {expected.__name__}"
        )
    return value


def load_products(
    rows: Sequence[Mapping[str, Any]],
    attributes: Mapping[str, Mapping[str, Any]],
    *,
    limit: int = 0,
    source: str = "products",
) -> tuple[Product, ...]:
    """Parse product rows in file order.

    Rows with the asin `nan`, an asin longer than 10 characters, or one seen before are dropped.

    Args:
        rows: the products file's list.
        attributes: the attributes file's mapping from asin to attributes and instruction.
        limit: only look at this many first rows (cut before rows are dropped); 0: all.
        source: name of the file for error messages.

    Raises:
        DataError: a row has not the expected fields.
    """
    products: dict[str, Product] = {}
    for number, row in enumerate(rows[: limit or None]):
        try:
            asin = row["asin"]
            if asin == "nan" or len(asin) > 10 or asin in products:
                continue
            products[asin] = parse_product(row, attributes.get(asin, {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{source}: row {number} is not a WebShop product ({error!r}); expected an object "
                "with name, asin, category, query, product_category, full_description, "
                "small_description, pricing and customization_options"
            ) from error
    return tuple(products.values())


def parse_product(row: Mapping[str, Any], labels: Mapping[str, Any]) -> Product:
    """Turn one product row and its entry in the attributes file into a `Product`."""
    pricing = parse_pricing(row.get("pricing") or "")
    bullets = row["small_description"]
    return Product(
        asin=row["asin"],
        title=row["name"],
        description=row["full_description"],
        bullets=tuple(bullets) if isinstance(bullets, list) else (bullets,),
        pricing=pricing,
        price_text=price_text(pricing),
        options=parse_options(row.get("customization_options") or {}),
        attributes=tuple(labels.get("attributes", UNLABELLED)),
        category=row["category"],
        query=row["query"].lower().strip(),
        product_category=row["product_category"],
        instruction=labels.get("instruction") or "",
        instruction_attributes=tuple(labels.get("instruction_attributes") or ()),
    )


def parse_pricing(text: str) -> tuple[float, ...]:
    """Dollars in a price field: `"$1,234.50"` one, `"$9.99 - $19.99"` both ends, `""` none."""
    amounts = (re.sub(r"[^\d.]", "", part) for part in text.split("$")[1:])
    return tuple(float(amount) for amount in amounts)[:2]


def price_text(pricing: tuple[float, ...]) -> str:
    """Price tag of a product's pages."""
    return " to ".join(f"${price}" for price in pricing or (UNPRICED,))


def parse_options(
    groups: Mapping[str, list[Mapping[str, Any]] | None],
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Option groups with lower-case names and values; a slash in a value becomes ` | `."""
    options = {
        group.lower(): tuple(
            choice["value"].strip().replace("/", " | ").lower() for choice in choices
        )
        for group, choices in groups.items()
        if choices is not None
    }
    return tuple(options.items())


def draw_prices(products: Sequence[Product], rng: random.Random) -> dict[str, float]:
    """The one price that each product costs at the till; drawn where its page shows a range."""
    prices = {}
    for product in products:
        if len(product.pricing) == 2:
            prices[product.asin] = rng.uniform(*product.pricing)
        else:
            prices[product.asin] = product.pricing[0] if product.pricing else UNPRICED
    return prices
