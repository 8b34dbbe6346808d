"""BM25 over a catalogue, equal to Lucene's to the order of ties.

An inverted index in flat numpy arrays: built once, read by all games. Knows terms and document
numbers; what a document is stays with the caller.

Scores are Lucene's, each term in float32, their sum in float64 rounded to float32:

    score = sum over terms of w - w / (1 + tf * norm)
    w     = ln(1 + (N - df + 1/2) / (df + 1/2)) * count in the query
    norm  = 1 / (k1 * (1 - b + b * length / mean length))

A document's length is known only to one byte: exact up to 40 terms, then with a 3-bit mantissa.

Reference: Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020 ("Lucene (default)").
"""

import collections
import functools
import math
from collections.abc import Sequence

import numpy as np

from eef_jax.envs.webshop.analyse import analyse

K1 = np.float32(0.9)
B = np.float32(0.4)
_EXACT = 24  # lengths below this are stored as they are; above, the rest is a 4-bit float


class Index:
    """A searchable set of documents.

    Args:
        ids: the id of each document; ties are ordered by it.
        texts: the text of each document.
        cache: number of queries whose hits are remembered.
    """

    def __init__(self, ids: Sequence[str], texts: Sequence[str], *, cache: int = 8192):
        # Documents are numbered in the order of their ids, so that a stable sort breaks ties.
        order = sorted(range(len(ids)), key=ids.__getitem__)
        self._original = order
        counts = [collections.Counter(analyse(texts[number])) for number in order]
        lengths = np.array([count.total() for count in counts], np.int64)
        norms = _norms(lengths)
        documents: dict[str, list[int]] = collections.defaultdict(list)
        frequencies: dict[str, list[int]] = collections.defaultdict(list)
        for number, count in enumerate(counts):
            for term, frequency in count.items():
                documents[term].append(number)
                frequencies[term].append(frequency)
        self._size = len(order)
        self._full = int(np.count_nonzero(lengths))  # documents without terms do not count in N
        self._postings: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for term, numbers in documents.items():
            rows = np.array(numbers, np.int32)
            tf = np.array(frequencies[term], np.float32)
            self._postings[term] = (rows, np.float32(1) + tf * norms[rows])
        self.search = functools.lru_cache(maxsize=cache)(self._search)

    def _search(self, query: str, limit: int = 50) -> tuple[int, ...]:
        """Numbers of the best documents (positions in `ids`), best first; at most `limit`."""
        scores = self._score(query)
        found = np.flatnonzero(scores)
        if len(found) > 4 * limit:  # only what may reach the cut is sorted
            cut = np.partition(scores[found], len(found) - limit)[len(found) - limit]
            found = found[scores[found] >= cut]
        best = found[np.argsort(-scores[found], kind="stable")][:limit]
        return tuple(self._original[number] for number in best)

    def _score(self, query: str) -> np.ndarray:
        """float32[documents] scores, 0 where no term occurs."""
        sums = np.zeros(self._size, np.float64)
        for term, repeats in collections.Counter(analyse(query)).items():
            if term not in self._postings:
                continue
            rows, saturation = self._postings[term]
            df = len(rows)
            idf = np.float32(math.log(1 + (self._full - df + 0.5) / (df + 0.5)))
            weight = idf * np.float32(repeats)
            sums[rows] += weight - weight / saturation
        return sums.astype(np.float32)


def _norms(lengths: np.ndarray) -> np.ndarray:
    """float32[documents] factors of term frequencies, of int64[documents] lengths in terms."""
    mean = np.float32(lengths.sum() / max(1, np.count_nonzero(lengths)))
    coarse = np.array([_coarse(int(length)) for length in lengths], np.float32)
    return np.float32(1) / (K1 * ((np.float32(1) - B) + B * coarse / max(mean, np.float32(1))))


def _coarse(length: int) -> int:
    """A length after its trip through one byte: the 4 leading bits of what lies above `_EXACT`."""
    rest = length - _EXACT
    if rest < 8:
        return length
    shift = rest.bit_length() - 4
    return _EXACT + ((rest >> shift) << shift)
