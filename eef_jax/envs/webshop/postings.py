"""Building an inverted index in bounded memory: which terms occur in which documents, how often.

Occurrences are gathered into runs, each sorted by term; a run is kept in memory, or in a file when
there is a folder for it. Terms are 64-bit digests, whose leading bits partition every run in the
same way, so the index is built one partition at a time, each merged from all runs. The weight of a
term in a document depends only on its count there and on the document's length as Lucene stores it,
in one byte; the few pairs of these that occur are numbered, and a posting holds a pair's number.
"""

import collections
import dataclasses
import functools
import pathlib
from array import array
from collections.abc import Iterator, Sequence

import numpy as np

from eef_jax.envs.webshop.analyzer import analyze
from eef_jax.envs.webshop.columns import hash64

K1 = np.float32(0.9)
B = np.float32(0.4)
RUN_SIZE = 1 << 21  # occurrences in a run
NUM_PARTS = 256
_EXACT = 24  # lengths below this are stored as they are; above, the rest is a 4-bit float
_OCCURRENCE = np.dtype([("term", "<u8"), ("document", "<i4"), ("count", "<i4")])

hash_term = functools.lru_cache(maxsize=1 << 15)(hash64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Postings:
    """An inverted index. Documents are numbered in the order of their ids.

    Attributes:
        terms: uint64[terms]; digests, ascending.
        starts: int64[terms + 1]; where each term's postings start and the last one's end.
        documents: int32[postings]; ascending within a term.
        codes: uint16 or uint32[postings]; places in `saturation`.
        saturation: float32[codes]; 1 + count * norm, ascending.
        order: int64[documents]; the caller's number of each document.
        num_nonempty: documents with at least one term; others do not count in N.
    """

    terms: np.ndarray
    starts: np.ndarray
    documents: np.ndarray
    codes: np.ndarray
    saturation: np.ndarray
    order: np.ndarray
    num_nonempty: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PostingsPart:
    """The postings of some terms; all parts one after the other are the index.

    Attributes:
        terms: uint64[terms]; digests, ascending.
        lengths: int64[terms]; number of postings of each term.
        documents: int32[postings]; ascending within a term.
        codes: uint16 or uint32[postings]; indices into `Postings.saturation`.
    """

    terms: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    codes: np.ndarray


class PostingsBuilder:
    """Takes documents one after the other; then gives the index in parts.

    Args:
        folder: where to put runs when there is more than one; None: all stay in memory.
    """

    def __init__(self, folder: pathlib.Path | None = None):
        self._folder = folder
        self._runs: list[_Run] = []
        self._lengths = array("i")
        self._pairs: set[tuple[int, int]] = set()
        self._clear()

    def add(self, text: str) -> None:
        """Take the next document."""
        counts = collections.Counter(analyze(text))
        document, length = len(self._lengths), counts.total()
        self._lengths.append(length)
        self._terms.extend(map(hash_term, counts))
        self._documents.extend([document] * len(counts))
        self._counts.extend(counts.values())
        coarse = quantized_length(length)
        self._pairs.update((count, coarse) for count in set(counts.values()))
        if len(self._terms) >= RUN_SIZE and self._folder is not None:
            self._flush()

    @property
    def num_nonempty(self) -> int:
        """Documents with at least one term."""
        return sum(length > 0 for length in self._lengths)

    def saturation(self) -> np.ndarray:
        """float32[codes]; see `Postings`."""
        return np.sort(self._saturation(*self._pair_columns()))

    def parts(self, order: np.ndarray) -> Iterator[PostingsPart]:
        """The index, part by part.

        Args:
            order: int64[documents]; numbers of the documents in the order of their ids.
        """
        self._flush()
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        coarse = np.array(
            [quantized_length(length) for length in range(max(self._lengths, default=0) + 1)],
            np.int32,
        )
        lengths = coarse[np.frombuffer(self._lengths, np.int32)]
        counts, of_length = self._pair_columns()
        pairs = counts << 32 | of_length
        codes = np.empty(len(pairs), np.min_scalar_type(max(len(pairs), 1 << 8)))
        codes[np.argsort(self._saturation(counts, of_length), kind="stable")] = np.arange(
            len(pairs), dtype=codes.dtype
        )
        for part in range(NUM_PARTS):
            found = np.concatenate([run.part(part) for run in self._runs])
            rank = ranks[found["document"]]
            by_term = np.lexsort((rank, found["term"]))
            found, rank = found[by_term], rank[by_term]
            starts = np.flatnonzero(np.diff(found["term"], prepend=~found["term"][:1]))
            pair = found["count"].astype(np.int64) << 32 | lengths[found["document"]]
            yield PostingsPart(
                terms=found["term"][starts],
                lengths=np.diff(starts, append=len(found)),
                documents=rank,
                codes=codes[np.searchsorted(pairs, pair)],
            )

    def _pair_columns(self) -> tuple[np.ndarray, np.ndarray]:
        """Counts and coarse lengths that occur together, sorted."""
        pairs = np.array(sorted(self._pairs), np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def _saturation(self, counts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """float32 1 + count * norm, with norm = 1 / (k1 * (1 - b + b * length / mean length))."""
        mean = max(np.float32(sum(self._lengths) / max(1, self.num_nonempty)), np.float32(1))
        norms = np.float32(1) / (K1 * ((np.float32(1) - B) + B * lengths.astype(np.float32) / mean))
        return np.float32(1) + counts.astype(np.float32) * norms

    def _flush(self) -> None:
        """Turn what was gathered into a run."""
        run = np.empty(len(self._terms), _OCCURRENCE)
        run["term"] = np.frombuffer(self._terms, np.uint64)
        run["document"] = np.frombuffer(self._documents, np.int32)
        run["count"] = np.frombuffer(self._counts, np.int32)
        self._clear()
        run = run[np.argsort(run["term"], kind="stable")]
        edges = np.arange(1, NUM_PARTS, dtype=np.uint64) * np.uint64(2**64 // NUM_PARTS)
        bounds = [0, *np.searchsorted(run["term"], edges).tolist(), len(run)]
        if self._folder is None:
            self._runs.append(_Run(run, bounds))
        else:
            path = self._folder / f"run-{len(self._runs)}"
            run.tofile(path)
            self._runs.append(_Run(path, bounds))

    def _clear(self) -> None:
        self._terms, self._documents, self._counts = array("Q"), array("i"), array("i")


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """Occurrences sorted by term, in memory or in a file, and where each part starts and ends."""

    records: np.ndarray | pathlib.Path
    bounds: list[int]

    def part(self, number: int) -> np.ndarray:
        start, stop = self.bounds[number : number + 2]
        if isinstance(self.records, np.ndarray):
            return self.records[start:stop]
        # Not mapped: pages of a map count as this process's memory for as long as it stays open.
        return np.fromfile(
            self.records, _OCCURRENCE, stop - start, offset=start * _OCCURRENCE.itemsize
        )


def quantized_length(length: int) -> int:
    """Quantize a length as Lucene's one-byte norm does: 4 significant bits above `_EXACT`."""
    rest = length - _EXACT
    if rest < 8:
        return length
    shift = rest.bit_length() - 4
    return _EXACT + ((rest >> shift) << shift)


def build_postings(ids: Sequence[str], texts: Sequence[str]) -> Postings:
    """The index of documents that are in memory.

    Args:
        ids: the id of each document; ties are ordered by it.
        texts: the text of each document.
    """
    builder = PostingsBuilder()
    for text in texts:
        builder.add(text)
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    parts = list(builder.parts(order))
    return Postings(
        terms=np.concatenate([part.terms for part in parts]),
        starts=np.cumsum(np.concatenate([[0], *(part.lengths for part in parts)]), dtype=np.int64),
        documents=np.concatenate([part.documents for part in parts]),
        codes=np.concatenate([part.codes for part in parts]),
        saturation=builder.saturation(),
        order=order,
        num_nonempty=builder.num_nonempty,
    )
