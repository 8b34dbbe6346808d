"""Products in WebShop's file format: parsing, price tags, hidden prices and the indexed text.

The schema is that of `items_shuffle*.json` and `items_ins_v2*.json`. Nothing is drawn from global
random state: the caller passes a generator for prices.
"""

import dataclasses
import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from eef_jax.envs.webshop.json_stream import Record
from eef_jax.errors import DataError

MAX_ASIN_LENGTH = 10  # characters
DEFAULT_PRICE = 100.0  # dollars asked for a product without a price, on its page and at the till
DEFAULT_ATTRIBUTES = ("DUMMY_ATTR",)  # attributes of a product that the attributes file leaves out


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
    price_text: str = f"${DEFAULT_PRICE}"
    options: tuple[tuple[str, tuple[str, ...]], ...] = ()
    attributes: tuple[str, ...] = DEFAULT_ATTRIBUTES
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


def load_products(
    rows: Iterable[Mapping[str, Any]],
    attributes: Mapping[str, Mapping[str, Any]],
    *,
    limit: int = 0,
    source: str = "products",
) -> tuple[Product, ...]:
    """Parse product rows that are in memory, in file order; see `read_products`.

    Args:
        rows: the products file's list.
        attributes: the attributes file's mapping from asin to attributes and instruction.
        limit: only look at this many first rows (cut before rows are dropped); 0: all.
        source: name of the file for error messages.

    Raises:
        DataError: a row has not the expected fields.
    """
    records = (Record(number, 1, "", row) for number, row in enumerate(rows))
    seen: set[str] = set()

    def is_new(asin: str) -> bool:
        known = asin in seen
        seen.add(asin)
        return not known

    def labels(asin: str) -> Mapping[str, Any]:
        return attributes.get(asin, {})

    return tuple(read_products(records, labels, is_new=is_new, limit=limit, source=source))


def read_products(
    records: Iterable[Record],
    labels: Callable[[str], Mapping[str, Any]],
    *,
    is_new: Callable[[str], bool],
    limit: int = 0,
    source: str,
) -> Iterator[Product]:
    """Parse product rows one after the other.

    Rows with the asin `nan`, an asin longer than 10 characters, or one seen before are dropped.

    Args:
        records: rows of the products file.
        labels: gives an asin's entry of the attributes file, empty where it has none.
        is_new: tells of an asin whether it was not asked about before.
        limit: only look at this many first rows (cut before rows are dropped); 0: all.
        source: name of the file for error messages.

    Raises:
        DataError: a row has not the expected fields.
    """
    for record in itertools.islice(records, limit or None):
        try:
            asin = _text(record.value, "asin")
            if not asin.isascii():
                raise ValueError(f"asin is {asin!r}, which is not ASCII")
            if asin == "nan" or len(asin) > MAX_ASIN_LENGTH or not is_new(asin):
                continue
            product = parse_product(record.value, labels(asin))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            lacking = isinstance(error, KeyError)
            raise DataError(
                f"{source}: record {record.number} (line {record.line}) is not a WebShop product: "
                f"{f'{error.args[0]} is missing' if lacking else error}; expected an object with "
                "asin, name, category, query, product_category, full_description, "
                "small_description, pricing and customization_options"
            ) from error
        yield product


def parse_product(row: Mapping[str, Any], labels: Mapping[str, Any]) -> Product:
    """Turn one product row and its entry in the attributes file into a `Product`."""
    pricing = parse_pricing(row.get("pricing") or "")
    bullets = row["small_description"]
    return Product(
        asin=_text(row, "asin"),
        title=_text(row, "name"),
        description=_text(row, "full_description"),
        bullets=tuple(bullets) if isinstance(bullets, list) else (bullets,),
        pricing=pricing,
        price_text=price_text(pricing),
        options=parse_options(row.get("customization_options") or {}),
        attributes=tuple(labels.get("attributes", DEFAULT_ATTRIBUTES) or ()),
        category=_text(row, "category"),
        query=_text(row, "query").lower().strip(),
        product_category=_text(row, "product_category"),
        instruction=labels.get("instruction") or "",
        instruction_attributes=tuple(labels.get("instruction_attributes") or ()),
    )


def parse_pricing(text: str) -> tuple[float, ...]:
    """Dollars in a price field: `"$1,234.50"` one, `"$9.99 - $19.99"` both ends, `""` none."""
    amounts = (re.sub(r"[^\d.]", "", part) for part in text.split("$")[1:])
    return tuple(float(amount) for amount in amounts)[:2]


def price_text(pricing: tuple[float, ...]) -> str:
    """Price tag of a product's pages."""
    return " to ".join(f"${price}" for price in pricing or (DEFAULT_PRICE,))


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


def sample_prices(products: Sequence[Product], rng: random.Random) -> dict[str, float]:
    """The price of each asin, drawn in the catalogue's order."""
    return {product.asin: sample_price(product, rng) for product in products}


def sample_price(product: Product, rng: random.Random) -> float:
    """The one price that a product costs at the till; drawn where its page shows a range."""
    if len(product.pricing) == 2:
        return rng.uniform(*product.pricing)
    return product.pricing[0] if product.pricing else DEFAULT_PRICE


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row, dict):
        raise TypeError(f"a JSON {type(row).__name__}")
    if not isinstance(row[name], str):
        raise TypeError(f"{name} is {row[name]!r}, expected a text")
    return row[name]
