"""Large catalogues in WebShop's file format, written row by row, for `benchmarks.webshop`.

`replicate` writes copies of a small catalogue with new ids; `generate` makes products of random
words, each with a unique one (a model number). Neither uses global random state.
"""

import itertools
import json
import pathlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

Row = Mapping[str, Any]
SYLLABLES = (
    "ba",
    "co",
    "di",
    "fe",
    "gu",
    "ka",
    "lo",
    "mi",
    "ne",
    "pu",
    "ra",
    "so",
    "ti",
    "ve",
    "zu",
)


def replicate(folder: pathlib.Path, products: Iterable[Row], labels: Row, copies: int) -> None:
    """Write `products.json` and `attributes.json`: a catalogue, `copies` times."""

    def rows() -> Iterator[tuple[Row, Row | None]]:
        for copy in range(copies):
            for number, row in enumerate(products):
                renamed = {**row, "asin": f"R{copy:04}{number:05}"}
                yield renamed, labels.get(row["asin"])

    _write(folder, rows)


def generate(folder: pathlib.Path, count: int, *, seed: int = 0) -> None:
    """Write `products.json` and `attributes.json`: random products, four tenths with goals."""
    rng = random.Random(seed)
    words = ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(5000)]
    weights = list(itertools.accumulate(1 / (place + 2) for place in range(len(words))))

    def some(number: int) -> str:
        return " ".join(rng.choices(words, cum_weights=weights, k=number))

    def rows() -> Iterator[tuple[Row, Row | None]]:
        for number in range(count):
            options = {g: [{"value": some(1)} for _ in range(3)] for g in ("Color", "Size")}
            row = {
                "asin": f"G{number:09}",
                "name": f"{some(10)} {number:x}-{rng.getrandbits(20):x}",
                "full_description": some(30),
                "small_description": [some(8), some(8)],
                "pricing": rng.choice(["", "$9.99", "$9.99 - $19.99"]),
                "customization_options": options if number % 5 < 2 else "",
                "product_category": f"{some(1)} › {some(1)}",
                "category": "garden",
                "query": some(2),
                "images": [],
            }
            entry: dict[str, Any] = {"attributes": [some(2)]}
            if number % 5 < 2:
                entry |= {"instruction": f"Find me {some(4)}", "instruction_attributes": [some(2)]}
            yield row, entry

    _write(folder, rows)


def _write(folder: pathlib.Path, rows: Callable[[], Iterator[tuple[Row, Row | None]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "products.json").open("w", encoding="utf-8") as products,
        (folder / "attributes.json").open("w", encoding="utf-8") as attributes,
    ):
        products.write("[")
        attributes.write("{")
        comma = label_comma = ""
        for row, entry in rows():
            products.write(comma + json.dumps(row))
            comma = ",\n"
            if entry is not None:
                attributes.write(f"{label_comma}{json.dumps(row['asin'])}:{json.dumps(entry)}")
                label_comma = ",\n"
        products.write("]")
        attributes.write("}")
