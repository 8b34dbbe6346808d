"""The training examples as tokens with weights, as they were stored; texts by the base's tokenizer.

Reads the tokenizer's own file: neither transformers nor a model is loaded.
"""

import itertools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from eef_jax import bases
from eef_jax.data.batches import Batches, order_seed
from eef_jax.data.stored import StoredExamples
from eef_jax.report.run import Run
from eef_jax.storage import files, hub
from eef_jax.types import Example

_FILE = "tokenizer.json"

_log = logging.getLogger(__name__)


class Texts:
    """The texts of token ids; `<id>` where the tokenizer is not at hand."""

    def __init__(self, run: Run):
        self._known: dict[tuple[int | None, int], str] = {}
        self._tokenizer = _tokenizer(run)

    def pieces(self, tokens: Sequence[int]) -> list[str]:
        """The text of each token of a sequence; together they are the sequence's text."""
        return [
            self._piece(before, token)
            for before, token in zip([None, *tokens], tokens, strict=False)
        ]

    def _piece(self, before: int | None, token: int) -> str:
        """What a token adds to the one before it: whether a space is between them depends on it."""
        text = self._known.get((before, token))
        if text is None:
            text = self._decode(token)
            if before is not None:
                first, both = self._decode(before), self._decode(before, token)
                text = both.removeprefix(first) if both.startswith(first) else text
            self._known[before, token] = text
        return text

    def _decode(self, *tokens: int) -> str:
        if self._tokenizer is None:
            return "".join(f"<{token}>" for token in tokens)
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
        return text or "".join(str(self._tokenizer.id_to_token(token)) for token in tokens)


def stored(run: Run, number: int) -> Sequence[Example] | StoredExamples:
    """The training examples of a round; none where it has no data set.

    Raises:
        DataError: the data set is damaged.
    """
    folder = run.work.stage(f"round_{number}/select").folder / "dataset"
    return StoredExamples(folder) if folder.exists() else ()


def first_batch(run: Run, number: int) -> list[list[Example]]:
    """The examples of each row of a round's first batch, in the order of its training.

    Raises:
        DataError: the data set is damaged.
    """
    examples = stored(run, number)
    if not len(examples):
        return []
    train = run.config.train
    batches = Batches(
        examples=examples,
        batch_size=train.batch_size,
        seq_len=train.seq_len,
        seed=order_seed(run.config.seed, number),
    )
    rows = batches.pack(0).rows[: train.batch_size]
    return [[examples[place] for place in row] for row in rows]


def runs(weights: Float32[np.ndarray, " t"]) -> list[tuple[int, float]]:
    """Weights as runs of equal ones: how many tokens, and their weight."""
    return [(len(list(group)), weight) for weight, group in itertools.groupby(weights.tolist())]


def _tokenizer(run: Run) -> Any:
    """The base's tokenizer, if it is on this machine; None otherwise."""
    import tokenizers

    path = run.config.model.path
    try:
        if repository := bases.on_hub(path):
            file = hub.cached(repository, _FILE)
        else:
            file = files.local_copy(bases.find(path, weights=False), only=(_FILE,)) / _FILE
        return tokenizers.Tokenizer.from_file(str(file)) if file and file.exists() else None
    except Exception as error:  # what tokenizers raises has no class of its own
        _log.info("tokens are shown as ids: %s cannot be read (%s)", path, error)
        return None
