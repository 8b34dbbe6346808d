"""The training examples as tokens with weights, as they were stored; texts by the base's tokenizer.

Reads the tokenizer's own file: neither transformers nor a model is loaded.
"""

import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from eef_jax import bases
from eef_jax.data.stored import StoredExamples
from eef_jax.report.run import Run
from eef_jax.storage import files, hub

_FILE = "tokenizer.json"

_log = logging.getLogger(__name__)


class Texts:
    """The text of each token id; `<id>` where the tokenizer is not at hand."""

    def __init__(self, run: Run):
        self._known: dict[int, str] = {}
        self._tokenizer = _tokenizer(run)

    def of(self, token: int) -> str:
        """The text of a token."""
        text = self._known.get(token)
        if text is None:
            text = f"<{token}>"
            if self._tokenizer is not None:
                text = self._tokenizer.decode([token], skip_special_tokens=False)
                text = text or str(self._tokenizer.id_to_token(token))
            self._known[token] = text
        return text


def examples(run: Run, number: int) -> Iterator[tuple[str, Sequence[int], list[list[float]]]]:
    """The training examples of a round: id, tokens, and the weights as runs [count, weight].

    Raises:
        DataError: the data set is missing or damaged.
    """
    folder = run.work.stage(f"round_{number}/select").folder / "dataset"
    if not folder.exists():
        return
    for example in StoredExamples(folder):
        runs = [
            [len(list(group)), weight]
            for weight, group in itertools.groupby(example.weights.tolist())
        ]
        yield example.id, example.tokens.tolist(), runs


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
