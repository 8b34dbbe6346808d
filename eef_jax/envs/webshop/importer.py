"""Official files into one stored dataset; `import_data` is its command line.

Files are read record by record and joins and sorts run on the disk, so memory hardly grows with
the catalogue. The folder is complete once it has a manifest.

Random numbers are drawn in the original's order: prices of the catalogue first, then one price
bound for each product (or for each human instruction). The original does not seed them, so its
prices and bounds differ from run to run; here a seed determines the dataset.
"""

import dataclasses
import hashlib
import json
import logging
import pathlib
import random
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from etils import epath

from eef_jax.envs.webshop import stored
from eef_jax.envs.webshop.attributes_table import AttributesTable
from eef_jax.envs.webshop.catalogue import MAX_ASIN_LENGTH, read_products, sample_price
from eef_jax.envs.webshop.columns import (
    ArrayWriter,
    KeyIndexWriter,
    RowWriter,
    open_array,
    write_array,
)
from eef_jax.envs.webshop.goals import (
    count_combinations,
    parse_instructions,
    sample_price_bound,
    shuffled_order,
)
from eef_jax.envs.webshop.json_stream import iter_records
from eef_jax.envs.webshop.postings import PostingsBuilder
from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import files, provenance

_SCRATCH = "unfinished-"  # first letters of the folder that an import works in
_BLOCK = 1 << 18  # goals that are put in order at a time
# Fields of `Sources` that name a file.
PATH_FIELDS = ("products", "attributes", "human_instructions", "title_nouns")
_REPORT = 100_000  # products between two lines of progress

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What a dataset is imported from.

    Attributes:
        products: path of `items_shuffle*.json`.
        attributes: path of `items_ins_v2*.json`.
        human_instructions: path of `items_human_ins*.json`; with it the goals are what people
            wrote, else they are synthetic.
        title_nouns: path of a JSON object from title to its lower-case nouns, see `nouns`.
        seed: decides hidden prices and price bounds.
        max_products: only look at this many first rows of the products file; 0: all.
    """

    products: str
    attributes: str
    human_instructions: str = ""
    title_nouns: str = ""
    seed: int = 0
    max_products: int = 0


def import_dataset(sources: Sources, out: str | pathlib.Path) -> dict[str, Any]:
    """Import official files.

    Args:
        sources: the files.
        out: folder to make; what an interrupted import left there is written over.

    Returns:
        The manifest.

    Raises:
        ConfigError: the folder holds a dataset already.
        DataError: a file is missing, damaged, or of another kind; or no goal comes of them.
    """
    out = pathlib.Path(out)
    if (out / stored.MANIFEST).exists():
        raise ConfigError(f"{out} holds a dataset already: name another folder")
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left)
    rng = random.Random(sources.seed)
    with tempfile.TemporaryDirectory(dir=out, prefix=_SCRATCH) as scratch:
        builder = PostingsBuilder(pathlib.Path(scratch))
        with AttributesTable(sources.attributes, pathlib.Path(scratch)) as labels:
            asins, choices = _write_products(
                out, sources.products, labels, builder, rng=rng, limit=sources.max_products
            )
            counts = {"products": len(asins), **labels.coverage(sources.products)}
        goals = _write_goals(out, asins, choices, sources.human_instructions, rng)
        if not goals:
            raise DataError(
                f"no goals: none of the {len(asins)} products of {sources.products} has an "
                "instruction with what it asks for in "
                f"{sources.human_instructions or sources.attributes}; do the files belong together?"
            )
        counts["goals"] = goals
        counts |= _write_index(out, builder, np.argsort(asins, kind="stable"))
    counts["titles with nouns"] = _write_nouns(out, sources.title_nouns)
    return _write_manifest(out, sources, counts)


def _write_products(
    out: pathlib.Path,
    path: str,
    labels: AttributesTable,
    builder: PostingsBuilder,
    *,
    rng: random.Random,
    limit: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Write products and prices, and gather their terms.

    Returns:
        bytes[products] asins, and int32[products] combinations of options; -1: no instruction.
    """
    asins, prices, choices = bytearray(), array("d"), array("i")
    rows = iter_records(path, list, "WebShop products")
    with RowWriter(out, "products") as table:
        for product in read_products(rows, labels, is_new=labels.is_new, limit=limit, source=path):
            table.append(stored.product_to_row(product))
            prices.append(sample_price(product, rng))
            builder.add(product.document)
            asins += product.asin.encode("ascii").ljust(MAX_ASIN_LENGTH, b"\0")
            choices.append(count_combinations(product) if product.instruction else -1)
            if len(table) % _REPORT == 0:
                _log.info("%s products", f"{len(table):,}")
    names = np.frombuffer(asins, f"S{MAX_ASIN_LENGTH}")
    write_array(out, "asins", names)
    write_array(out, "prices", np.frombuffer(prices, np.float64))
    return names, np.frombuffer(choices, np.int32)


def _write_goals(
    out: pathlib.Path, asins: np.ndarray, choices: np.ndarray, human: str, rng: random.Random
) -> int:
    """Draw price bounds and write all goals in the original's order; returns how many."""
    prices = open_array(out, "prices")
    owners, bounds = array("i"), array("d")
    with RowWriter(out, "written") as rows:
        if human:
            instructions = files.read_json(
                human, what="WebShop human instructions", remedy="give its path, or fetch it again"
            )
            for number, asin in enumerate(asins):
                for instruction in parse_instructions(asin.decode(), instructions, human):
                    owners.append(number)
                    bounds.append(sample_price_bound(prices[number], rng))
                    rows.append(instruction)
        else:
            owners.frombytes(np.flatnonzero(choices >= 0).astype(np.int32).tobytes())
            bounds.extend(sample_price_bound(prices[number], rng) for number in owners)
    products = np.frombuffer(owners, np.int32)
    each = np.ones(len(products), np.int32) if human else choices[products]
    write_array(out, "requests.product", products)
    write_array(out, "requests.bound", np.frombuffer(bounds, np.float64))
    starts = np.cumsum(each) - each
    request = np.repeat(np.arange(len(each), dtype=np.int32), each)
    shuffle = np.asarray(shuffled_order(len(request)))
    with (
        ArrayWriter(out, "goals.request", np.int32) as requests,
        ArrayWriter(out, "goals.choice", np.int32) as combination,
    ):
        for block in range(0, len(shuffle), _BLOCK):
            places = shuffle[block : block + _BLOCK]
            requests.append(request[places])
            combination.append(places - starts[request[places]])
    return len(request)


def _write_index(
    out: pathlib.Path, builder: PostingsBuilder, by_asin: np.ndarray
) -> dict[str, int]:
    """Merge the gathered terms into the stored index."""
    saturation = builder.saturation()
    codes = np.min_scalar_type(max(len(saturation), 1 << 8))
    starts = 0
    with (
        ArrayWriter(out, "index.terms", np.uint64) as terms,
        ArrayWriter(out, "index.starts", np.int64) as ends,
        ArrayWriter(out, "index.documents", np.int32) as documents,
        ArrayWriter(out, "index.codes", codes) as weights,
    ):
        ends.append([0])
        for part in builder.parts(by_asin):
            terms.append(part.terms)
            ends.append(starts + np.cumsum(part.lengths))
            starts += len(part.documents)
            documents.append(part.documents)
            weights.append(part.codes)
    write_array(out, "index.saturation", saturation)
    write_array(out, "index.order", by_asin.astype(np.int64))
    return {
        "documents with terms": builder.num_nonempty,
        "terms": terms.length,
        "postings": documents.length,
    }


def _write_nouns(out: pathlib.Path, path: str) -> int:
    """Write title nouns; returns how many titles have them."""
    keys = KeyIndexWriter(out, "nouns")
    with RowWriter(out, "nouns") as rows:
        for record in iter_records(path, dict, "WebShop title nouns") if path else ():
            words = record.value
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise DataError(
                    f"{path}: record {record.number} (line {record.line}): nouns of "
                    f"{record.key!r} are {words!r}, expected a list of strings"
                )
            rows.append((record.key, words))
            keys.append(record.key)
    keys.close()
    return len(rows)


def _write_manifest(
    out: pathlib.Path, sources: Sources, counts: Mapping[str, int]
) -> dict[str, Any]:
    paths = {name: getattr(sources, name) for name in PATH_FIELDS}
    settings = {"seed": sources.seed, "max_products": sources.max_products}
    written = {name: _facts(out / name) for name in sorted(_names(out))}
    content = json.dumps([stored.FORMAT_VERSION, written], sort_keys=True)
    manifest = {
        "format": stored.FORMAT_VERSION,
        "dataset_id": hashlib.sha256(content.encode()).hexdigest(),
        **settings,
        "counts": counts,
        "sources": {what: _facts(path) for what, path in paths.items() if path},
        "files": written,
        "made_by": provenance.collect_provenance(settings, settings["seed"]),
    }
    files.write_json(out / stored.MANIFEST, manifest)
    return manifest


def _names(out: pathlib.Path) -> Iterator[str]:
    return (path.name for path in out.iterdir() if path.suffix in {".npy", ".jsonl"})


def _facts(path: str | pathlib.Path) -> dict[str, Any]:
    with epath.Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": pathlib.Path(path).name, "bytes": file.tell(), "sha256": digest}


def verify_dataset(folder: str | pathlib.Path) -> None:
    """Read a stored dataset whole.

    Raises:
        DataError: a file is not what the manifest says.
    """
    folder = files.local_copy(folder)
    for name, facts in stored.read_manifest(folder)["files"].items():
        if _facts(folder / name)["sha256"] != facts["sha256"]:
            raise DataError(f"{folder / name} was changed or damaged; import anew")
