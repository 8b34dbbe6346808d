"""Makes the file of title nouns that the reward's title score compares, with a spaCy pipeline.

    pip install -e '.[webshop-import]'
    python -m spacy download en_core_web_sm
    python -m eef_jax.envs.webshop.nouns --products=items_shuffle.json --out=title_nouns.json

The file is a JSON object from title to the lower-case words that the tagger calls nouns or proper
nouns. No two taggers agree on all titles, so what is compared with published numbers names its
model (the original's code asks for `en_core_web_sm`, its paper used `en_core_web_lg`). Playing
needs the file alone, neither spaCy nor a model.
"""

import json
import logging
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from absl import flags

from eef_jax import cli
from eef_jax.envs.webshop.json_stream import iter_records
from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import files
from eef_jax.untrusted import show

NOUNS = frozenset({"NOUN", "PROPN"})
_BATCH = 256  # titles that a pipeline tags at a time
_REPORT = 100_000  # titles between two lines of progress

_log = logging.getLogger(__name__)


def load_tagger(model: str) -> Callable[[Iterable[str]], Iterator[Any]]:
    """A function from texts to spaCy documents.

    Args:
        model: name of an installed pipeline, or path of a folder that holds one.

    Raises:
        ConfigError: spaCy or the pipeline is not installed.
    """
    try:
        import spacy
    except ModuleNotFoundError as error:
        raise ConfigError(
            "title nouns are made with spaCy, which is not installed: "
            "pip install -e '.[webshop-import]'"
        ) from error
    try:
        pipeline = spacy.load(model, exclude=["ner", "lemmatizer"])  # not what tags need
    except OSError as error:
        raise ConfigError(
            f"--model={model}: spaCy finds no such pipeline; python -m spacy download {model} "
            "gets it, or give the path of a folder with config.cfg"
        ) from error
    return lambda texts: pipeline.pipe(texts, batch_size=_BATCH)


def iter_titles(path: str) -> Iterator[str]:
    """Titles of a products file, in order, without repeats.

    Raises:
        DataError: the file is missing or damaged, or a row has no title.
    """
    seen: set[int] = set()
    for record in iter_records(path, list, "WebShop products"):
        row = record.value
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
            raise DataError(
                f"{path}: record {record.number} (line {record.line}) has no name, which is a "
                "product's title; is it a file of WebShop products?"
            )
        if hash(row["name"]) not in seen:
            seen.add(hash(row["name"]))
            yield row["name"]


def tag_titles(
    texts: Iterable[str], tagger: Callable[[Iterable[str]], Iterable[Any]]
) -> Iterator[tuple[str, list[str]]]:
    """Each text and the lower-case words in it that `tagger` calls nouns, in order."""
    for document in tagger(texts):
        words = [token.text.lower() for token in document if token.pos_ in NOUNS]
        yield document.text, words


def write_title_nouns(products: str, out: str, *, model: str) -> int:
    """Write the nouns of all titles of a products file; returns how many titles there are."""
    path = pathlib.Path(out)
    temporary = path.with_name(path.name + files.TEMP_SUFFIX)
    count = 0
    with temporary.open("w", encoding="ascii") as file:
        for text, words in tag_titles(iter_titles(products), load_tagger(model)):
            file.write(f"{',' if count else '{'}\n{json.dumps(text)}: {json.dumps(words)}")
            count += 1
            if count % _REPORT == 0:
                _log.info("%s titles", f"{count:,}")
        file.write("\n}\n" if count else "{}\n")
    temporary.replace(path)
    return count


def main() -> None:
    """Tag the titles of the products that the flags name."""
    for name in ("products", "out"):
        if not FLAGS[name].value:
            raise ConfigError(f"--{name} is not given")
    count = write_title_nouns(FLAGS.products, FLAGS.out, model=FLAGS.model)
    show(f"nouns of {count:,} titles in {FLAGS.out}")


FLAGS = flags.FLAGS


def run() -> None:
    """Run the command."""
    cli.define_path("products", "", "Path of items_shuffle*.json.")
    flags.DEFINE_string("model", "en_core_web_sm", "spaCy pipeline: its name, or a folder.")
    cli.define_path("out", "", "File to write, e.g. title_nouns.json.", local=True)
    cli.run(main)


if __name__ == "__main__":
    run()
