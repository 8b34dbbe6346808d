"""Generates a WebShop catalogue from a seed, in the schema of the original's product files.

The catalogue is built from families. A family is one kind of product whose members are
near-duplicates: their attributes are compounds (`quick-dry`, `soft-touch`) of the same few words,
and a bag-of-words search cannot tell `quick-dry soft-touch` from `quick-touch soft-dry`. Verbose
listings rank below terse ones (document length), so what is asked for often stands on a later page
than its look-alikes. That is what makes search, paging and reading necessary; nothing here knows
tasks, splits or agents.
"""

import dataclasses
import random
from typing import Any

LEFT = tuple(
    "quick easy soft dry cool sleek deep slim wide high smart clear firm warm pure bold".split()
)
RIGHT = tuple(
    "fit grip touch clean seal lock wear edge fold press flow rise shine tone knit blend".split()
)
BRANDS = tuple(
    "norva kelto brimo sanda velor tarvik osmo plenza dorin hestia quillo mavro fenwick lumera "
    "ostra garnet rivello tansy ulmo corvina".split()
)
COLORS = tuple(
    "black white blue green pink purple orange yellow gray brown teal beige ivory silver violet "
    "coral".split()
)
SIZES = ("small", "medium", "large", "twin", "queen", "king")
STYLES = ("classic", "modern", "vintage", "sporty", "casual", "formal")
SCENTS = ("vanilla", "jasmine", "cedar", "citrus", "musk", "almond")

# noun: (category, path, option groups it may have)
NOUNS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    **dict.fromkeys(
        "towel blanket pillow curtain rug quilt".split(),
        ("garden", "Home & Kitchen › Bedding & Bath", ("color", "size")),
    ),
    **dict.fromkeys(
        "jacket sweater scarf boots sandals leggings hoodie skirt".split(),
        ("fashion", "Clothing, Shoes & Jewelry › Apparel", ("color", "size", "style")),
    ),
    **dict.fromkeys(
        "headphones charger speaker keyboard tripod webcam router".split(),
        ("electronics", "Electronics › Accessories", ("color", "style")),
    ),
    **dict.fromkeys(
        "shampoo lotion lipstick serum soap perfume mascara".split(),
        ("beauty", "Beauty & Personal Care › Care", ("scent", "size")),
    ),
    **dict.fromkeys(
        "tea coffee granola cookies sauce".split(),
        ("grocery", "Grocery & Gourmet Food › Pantry", ("size",)),
    ),
    **dict.fromkeys(
        "lamp chair desk shelf basket mirror clock vase".split(),
        ("garden", "Home & Kitchen › Furniture & Decor", ("color", "style")),
    ),
    **dict.fromkeys(
        "tent backpack bottle helmet gloves mat".split(),
        ("fashion", "Sports & Outdoors › Gear", ("color", "size")),
    ),
}
VALUES = {"color": COLORS, "size": SIZES, "style": STYLES, "scent": SCENTS}
OPENERS = ("find me", "i need", "i am looking for", "looking for", "show me", "i want")
USES = ("daily use", "travel", "gifts", "small homes", "busy mornings", "long weekends")
IDS = 2500  # products are B0000 to B2499; so few that the nano tokenizer knows each as one word
EXTRAS = (
    "Every order ships in recycled paper and arrives within days.",
    "Our makers check each piece by hand before it leaves the workshop.",
    "Backed by friendly service and a simple return policy.",
    "Designed together with families who asked for something that lasts.",
    "Care notes and a short guide come inside the box.",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """One product before it is written out in the original's schema.

    Attributes:
        attributes: its two compounds, in title order.
        verbose: whether the description is long (such a listing ranks below terse ones).
        stray: a word that the description mentions without claiming the attribute.
    """

    noun: str
    attributes: tuple[str, str]
    options: dict[str, tuple[str, ...]]
    verbose: bool
    price: float
    stray: str = ""


def _compounds(
    rng: random.Random, taken: set[tuple[str, frozenset[str]]], noun: str
) -> tuple[tuple[str, str], tuple[str, str, str]]:
    """Two first and three second halves, unused for `noun` so far."""
    while True:
        lefts, rights = rng.sample(LEFT, 2), rng.sample(RIGHT, 3)
        key = (noun, frozenset(lefts))
        if key not in taken and not set(lefts) & set(rights):
            taken.add(key)
            return (lefts[0], lefts[1]), (rights[0], rights[1], rights[2])


def _options(rng: random.Random, noun: str) -> dict[str, tuple[str, ...]]:
    groups = NOUNS[noun][2]
    count = min(len(groups), rng.choices((0, 1, 2, 3), (0.07, 0.30, 0.50, 0.13))[0])
    chosen = sorted(rng.sample(groups, count))
    return {g: tuple(rng.sample(VALUES[g], rng.randint(3, 4))) for g in chosen}


def _decoys(
    rng: random.Random, lefts: tuple[str, str], rights: tuple[str, str, str], count: int
) -> list[tuple[tuple[str, str], str]]:
    """Look-alikes of `lefts[0]-rights[0] lefts[1]-rights[1]` with the same bag of words.

    Either both compounds are swapped, or one differs and the missing word is said in passing.
    """
    (l1, l2), (r1, r2, r3) = lefts, rights
    kinds = (
        ((f"{l1}-{r2}", f"{l2}-{r1}"), ""),
        ((f"{l1}-{r1}", f"{l2}-{r3}"), r2),
        ((f"{l1}-{r3}", f"{l2}-{r2}"), r1),
    )
    return [kinds[i % 3] for i in rng.sample(range(3 * count), count)]


def _family(rng: random.Random, noun: str, taken: set) -> list[Listing]:
    """All listings of one family: the verbose ones asked for and their terse look-alikes."""
    lefts, rights = _compounds(rng, taken, noun)
    options = _options(rng, noun)
    base, spread = rng.randint(12, 40), 14 if rng.random() < 0.15 else 5
    kinds = [((f"{lefts[0]}-{rights[0]}", f"{lefts[1]}-{rights[1]}"), "", True)] * rng.randint(
        12, 16
    )
    count = rng.choice((11, 12, 13, 14, 15, 16, 18, 21, 22))
    kinds += [(pair, stray, False) for pair, stray in _decoys(rng, lefts, rights, count)]
    listings = []
    for pair, stray, verbose in kinds:
        first, second = rng.sample(pair, 2)
        listings.append(
            Listing(
                noun=noun,
                attributes=(first, second),
                options=options,
                verbose=verbose,
                price=float(base + rng.randint(0, spread)),
                stray=stray,
            )
        )
    return listings


def _description(rng: random.Random, listing: Listing) -> str:
    words = f"Made for {rng.choice(USES)}."
    if listing.stray:
        words += f" Note on {listing.stray} inside."
    if listing.verbose:
        words += " " + " ".join(rng.sample(EXTRAS, 3))
    return words


def _product(rng: random.Random, listing: Listing, asin: str) -> dict[str, Any]:
    category, path, _ = NOUNS[listing.noun]
    brand = rng.choice(BRANDS)
    title = " ".join((brand, *listing.attributes, listing.noun)).title()
    low = listing.price
    pricing = f"${low:.2f}" if rng.random() > 0.05 else f"${low:.2f} - ${low + 3:.2f}"
    return {
        "asin": asin,
        "name": title,
        "full_description": _description(rng, listing),
        "small_description": [f"{brand.title()} quality.", "Easy to order."],
        "pricing": pricing,
        "customization_options": {
            g: [{"value": v, "image": None} for v in values]
            for g, values in listing.options.items()
        }
        or "",
        "product_category": f"{path} › {listing.noun.title()}",
        "category": category,
        "query": listing.noun,
        "images": [""],
        "average_rating": "",
    }


def generate_catalogue(
    seed: int, families: int = 64
) -> tuple[list[dict], dict[str, dict], dict[str, list[str]]]:
    """Make a catalogue.

    Args:
        seed: decides everything.
        families: number of families, about 30 products each.

    Returns:
        Products (the schema of `items_shuffle.json`), attributes and instructions (of
        `items_ins_v2.json`) and title nouns (of `title_nouns.json`).
    """
    rng = random.Random(f"webshop catalogue {seed}")
    nouns = list(NOUNS)
    rng.shuffle(nouns)
    taken: set = set()
    listings = []
    for i in range(families):
        listings += _family(rng, nouns[i % len(nouns)], taken)
    rng.shuffle(listings)
    ids = rng.sample(range(IDS), len(listings))
    products, attributes, title_nouns = [], {}, {}
    for listing, number in zip(listings, ids, strict=True):
        asin = f"B{number:04d}"
        product = _product(rng, listing, asin)
        asked = list(listing.attributes)
        rng.shuffle(asked)
        products.append(product)
        attributes[asin] = {
            "attributes": list(listing.attributes),
            "instruction": f"{rng.choice(OPENERS)} {', '.join(asked)} {listing.noun}",
            "instruction_attributes": asked,
        }
        title_nouns[product["name"]] = sorted({listing.noun, product["name"].split()[0].lower()})
    return products, attributes, title_nouns
