"""BM25 over an inverted index, equal to Lucene's to the order of ties.

Scores are Lucene's, each term in float32, their sum in float64 rounded to float32:

    score = sum over terms of w - w / (1 + tf * norm)
    w     = ln(1 + (N - df + 1/2) / (df + 1/2)) * count in the query
    norm  = 1 / (k1 * (1 - b + b * length / mean length))

Operates on terms and document numbers only; `postings` builds the index.

Reference: Kamphuis et al., "Which BM25 Do You Mean?", ECIR 2020 ("Lucene (default)").
"""

import collections
import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from eef_jax.envs.webshop.analyzer import analyze
from eef_jax.envs.webshop.postings import Postings, build_postings, hash_term

TERM_CACHE_SIZE = 1 << 14  # terms whose places are remembered
BLOCK_SIZE = 16  # documents
SHORT_LIST = 1 << 13  # postings; shorter lists cost more to handle one by one than to copy together


class _Term(NamedTuple):
    """Where a term's postings are, and whether they are few."""

    postings: slice
    short: bool
    idf: np.float32


class SearchIndex:
    """Search over postings, in memory or memory-mapped.

    Args:
        postings: the inverted index.
        cache: number of queries whose hits are remembered.
    """

    def __init__(self, postings: Postings, *, cache: int = 8192):
        self._postings = postings
        self._term = functools.lru_cache(maxsize=TERM_CACHE_SIZE)(self._find)
        self.search = functools.lru_cache(maxsize=cache)(self._search)

    @classmethod
    def build(cls, ids: Sequence[str], texts: Sequence[str]) -> "SearchIndex":
        """Index documents that are in memory; ties are ordered by `ids`."""
        return cls(build_postings(ids, texts))

    def _search(self, query: str, limit: int = 50) -> tuple[int, ...]:
        """The caller's numbers of the best documents, best first; at most `limit`."""
        scores = self._score(query)
        # Only what may reach the cut is sorted: the best of as many blocks are at least as good.
        blocks = (
            scores[: len(scores) // BLOCK_SIZE * BLOCK_SIZE].reshape(-1, BLOCK_SIZE).max(axis=1)
        )
        least = np.partition(blocks, -limit)[-limit] if len(blocks) > limit else 0
        found = np.flatnonzero(scores >= least if least > 0 else scores)
        best = found[np.argsort(-scores[found], kind="stable")][:limit]
        return tuple(self._postings.order[best].tolist())

    def _score(self, query: str) -> np.ndarray:
        """float32[documents] scores, 0 where no term occurs."""
        found = [
            (term, term.idf * np.float32(repeats))
            for word, repeats in collections.Counter(analyze(query)).items()
            if (term := self._term(word)) is not None
        ]
        # The order of sums does not matter: 53 bits hold those of a few 24-bit numbers exactly.
        index, sums = self._postings, self._sum([pair for pair in found if pair[0].short])
        for term, weight in found:
            if not term.short:
                scores = weight - weight / index.saturation
                sums[index.documents[term.postings]] += scores[index.codes[term.postings]]
        return sums.astype(np.float32)

    def _sum(self, terms: Sequence[tuple[_Term, np.float32]]) -> np.ndarray:
        """float64[documents] sums over terms with few postings, in one go."""
        index, size = self._postings, len(self._postings.order)
        if not terms:
            return np.zeros(size)
        documents = [index.documents[term.postings] for term, _ in terms]
        codes = np.concatenate([index.codes[term.postings] for term, _ in terms])
        weights = np.repeat(np.array([weight for _, weight in terms]), [len(d) for d in documents])
        scores = weights - weights / index.saturation[codes]
        return np.bincount(np.concatenate(documents), scores, minlength=size)

    def _find(self, word: str) -> _Term | None:
        """The postings of a term; None where no document has it."""
        index, wanted = self._postings, np.uint64(hash_term(word))
        place = int(np.searchsorted(index.terms, wanted))
        if place == len(index.terms) or index.terms[place] != wanted:
            return None
        start, stop = index.starts[place : place + 2].tolist()
        df = stop - start
        idf = np.float32(math.log(1 + (index.num_nonempty - df + 0.5) / (df + 0.5)))
        return _Term(slice(start, stop), df <= SHORT_LIST, idf)
