"""Examples to training batches: packed rows of fixed shapes, in an order that resumes exactly.

The order is stateless: which examples share a row and a batch is a pure function of (seed, epoch),
so a run that stops after any batch continues from its `Position` alone. Operates on token ids only.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Int64, Shaped

from eef_jax.data.stored import StoredExamples
from eef_jax.errors import DataError
from eef_jax.types import Example

Batch = dict[str, Shaped[np.ndarray, "b _"]]

_ROUND = 16  # the number of loss positions of a row is a multiple of this


def order_seed(seed: int, round: int) -> int:
    """The seed of the order in which a round's examples are trained on; `seed` is the run's."""
    return 1000 * seed + round


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in the data: the next batch is number `index` of epoch `epoch`."""

    epoch: int = 0
    index: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """Which examples are packed into which row, in one epoch.

    Attributes:
        rows: for each row the numbers of its examples, in order; as many rows as whole batches need
            (the last ones may be empty).
        padding: share of token slots that hold no example (0-1).
    """

    rows: tuple[tuple[int, ...], ...]
    padding: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BatchStats:
    """Counts of a batch.

    Attributes:
        tokens: of examples.
        weighted_tokens: of these, how many have a loss weight.
        capacity: tokens that the batch has room for.
    """

    tokens: int
    weighted_tokens: int
    capacity: int


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """Packed batches of a list of examples.

    A batch is a dict of arrays whose shapes never change (rows b, tokens t, loss positions n):

    | key | type | meaning |
    |---|---|---|
    | tokens | int32[b, t] | ids, 0 where empty |
    | positions | int32[b, t] | restart at 0 with each example |
    | segment_ids | int32[b, t] | 1, 2, ... number of the example in its row; 0 where empty |
    | weights | float32[b, t] | loss weight of predicting a token; 0 on an example's first |
    | loss_positions | int32[b, n] | columns of the tokens that have a weight; 0 where unused |
    | each of `columns` | float32[b, t] | the examples' column of that name; 0 where empty |

    The sides of a pair (`Example.pair`) share a row and keep their order in it, so that a loss of
    pairs is a sum over rows like any other, however rows are split.
    `loss_positions` restricts the loss to the tokens that have a weight (about one in ten in an
    agent's conversation). A row has at most n; an example that would exceed n goes into another.

    Attributes:
        examples: the examples to pack; of stored ones, a process reads only those in its rows.
        batch_size: rows of a global batch.
        seq_len: tokens per row.
        seed: seed of the order.
        shuffle: whether examples change their order (and neighbours) each epoch.
        process_rows: ascending indices of the rows of a batch that this process lays out (those on
            its devices, `sharding.process_rows`); None for all rows.
        max_loss_positions: n; by default a quarter more than rows of average examples would need.
        columns: names of the examples' columns that batches have.
    """

    examples: Sequence[Example] | StoredExamples
    batch_size: int
    seq_len: int
    seed: int = 0
    shuffle: bool = True
    process_rows: tuple[int, ...] | None = None
    max_loss_positions: int = 0
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check sizes once, and choose the number of loss positions.

        Raises:
            DataError: there is no example, or one (or a pair) that does not fit a row.
        """
        if not len(self.examples):
            raise DataError("no example to train on; see the counts of the selection stage")
        both = _sizes(self.examples)
        units = _units(self.examples)
        together = np.add.reduceat(both, [unit[0] for unit in units])
        sizes, learned = together[:, 0], together[:, 1]
        longest = int(np.argmax(sizes))
        if sizes[longest] > self.seq_len:
            raise DataError(
                f"{self._named(units[longest])} has {sizes[longest]} tokens, a row holds "
                f"{self.seq_len}; raise config.train.seq_len or leave it out when encoding"
            )
        if not self.max_loss_positions:
            average = 1.25 * self.seq_len * learned.sum() / sizes.sum()
            bound = max(int(average), int(learned.max()), 1)
            object.__setattr__(
                self, "max_loss_positions", min(-(-bound // _ROUND) * _ROUND, self.seq_len)
            )
        if learned.max() > self.max_loss_positions:
            raise DataError(
                f"{self._named(units[int(np.argmax(learned))])} has {learned.max()} tokens with a "
                f"weight, a row's limit is {self.max_loss_positions}; raise max_loss_positions"
            )
        object.__setattr__(self, "_sizes", both)
        object.__setattr__(self, "_units", units)
        object.__setattr__(self, "_together", together)

    def pack(self, epoch: int) -> Packing:
        """Pack an epoch's examples: first-fit in its order, by tokens and loss positions."""
        sizes: Int64[np.ndarray, "u 2"] = self._together  # type: ignore[attr-defined]
        units: Sequence[tuple[int, ...]] = self._units  # type: ignore[attr-defined]
        order = np.arange(len(sizes))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        rows: list[list[int]] = []
        free = np.empty((len(sizes), 2), np.int64)  # at most one row per unit
        for number in order.tolist():
            fits = (free[: len(rows)] >= sizes[number]).all(axis=1)
            row = int(fits.argmax()) if fits.any() else len(rows)
            if row == len(rows):
                rows.append([])
                free[row] = self.seq_len, self.max_loss_positions
            rows[row].extend(units[number])
            free[row] -= sizes[number]
        # Whole batches only: the compiled step has a single shape.
        rows += [[] for _ in range(-len(rows) % self.batch_size)]
        padding = 1 - int(sizes[:, 0].sum()) / (len(rows) * self.seq_len)
        return Packing(rows=tuple(map(tuple, rows)), padding=padding)

    def steps(self, epochs: int) -> int:
        """Number of batches in the first `epochs` epochs."""
        return sum(len(self.pack(epoch).rows) // self.batch_size for epoch in range(epochs))

    def iterate(self, start: Position | None = None) -> Iterator[tuple[Batch, Position]]:
        """Yield batches forever, each with the position of the next one."""
        here = self._normalized(start or Position())
        while True:
            after = self._normalized(dataclasses.replace(here, index=here.index + 1))
            yield self._batch(self._rows(here)), after
            here = after

    def stats(self, position: Position) -> BatchStats:
        """Counts of the global batch at a position, other processes' rows included."""
        sizes: Int64[np.ndarray, "n 2"] = self._sizes  # type: ignore[attr-defined]
        numbers = [number for row in self._rows(position) for number in row]
        tokens, learned = sizes[numbers].sum(axis=0).tolist() if numbers else (0, 0)
        return BatchStats(
            tokens=tokens, weighted_tokens=learned, capacity=self.batch_size * self.seq_len
        )

    def by_example(
        self, position: Position, values: Float32[np.ndarray, "b n"]
    ) -> Iterator[tuple[int, Float32[np.ndarray, " t"]]]:
        """What was computed at a global batch's loss positions, as a column of each example.

        Args:
            position: of the batch.
            values: one for each loss position of all rows.

        Yields:
            An example's number, and its column: 0 at tokens without a weight.
        """
        for row, numbers in enumerate(self._rows(position)):
            learned = 0
            for number in numbers:
                example = self.examples[number]
                places = example.loss_positions
                column = np.zeros(len(example.tokens), np.float32)
                column[places] = values[row, learned : learned + places.size]
                learned += places.size
                yield number, column

    def before(self, position: Position) -> BatchStats:
        """Counts of all global batches before a position."""
        sizes: Int64[np.ndarray, "n 2"] = self._sizes  # type: ignore[attr-defined]
        rows = self._packing(position.epoch).rows[: position.index * self.batch_size]
        part = sizes[[number for row in rows for number in row]].sum(axis=0)
        tokens, learned = (position.epoch * sizes.sum(axis=0) + part).tolist()
        count = self.steps(position.epoch) + position.index
        return BatchStats(
            tokens=tokens,
            weighted_tokens=learned,
            capacity=count * self.batch_size * self.seq_len,
        )

    def _normalized(self, position: Position) -> Position:
        """The same place; the end of an epoch becomes the start of the next."""
        ended = position.index * self.batch_size >= len(self._packing(position.epoch).rows)
        return Position(epoch=position.epoch + 1) if ended else position

    def _rows(self, position: Position) -> Sequence[Sequence[int]]:
        """The examples of each row of the batch at a position."""
        first = position.index * self.batch_size
        return self._packing(position.epoch).rows[first : first + self.batch_size]

    def _packing(self, epoch: int) -> Packing:
        """The packing of an epoch; the latest one is cached."""
        cached: tuple[int, Packing] | None = getattr(self, "_last", None)
        if cached is None or cached[0] != epoch:
            cached = epoch, self.pack(epoch)
            object.__setattr__(self, "_last", cached)
        return cached[1]

    def _batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Lay out this process's part of a batch."""
        rows = rows if self.process_rows is None else [rows[number] for number in self.process_rows]
        batch = empty_batch(len(rows), self.seq_len, self.max_loss_positions, self.columns)
        for row, numbers in enumerate(rows):
            at = learned = 0
            for segment, number in enumerate(numbers, start=1):
                example = self.examples[number]
                size = len(example.tokens)
                batch["tokens"][row, at : at + size] = example.tokens
                batch["positions"][row, at : at + size] = np.arange(size)
                batch["segment_ids"][row, at : at + size] = segment
                # No position of this example predicts its first token.
                batch["weights"][row, at + 1 : at + size] = example.weights[1:]
                for name in self.columns:
                    batch[name][row, at : at + size] = _column(example, name)
                columns = at + example.loss_positions
                batch["loss_positions"][row, learned : learned + columns.size] = columns
                at, learned = at + size, learned + columns.size
        return batch

    def _named(self, unit: tuple[int, ...]) -> str:
        first = self.examples[unit[0]]
        return f"example {first.id!r}" if len(unit) == 1 else f"pair {first.pair!r}"


def _column(example: Example, name: str) -> Float32[np.ndarray, " t"]:
    if name not in example.columns:
        raise DataError(
            f"example {example.id!r} has no column {name!r}, which the loss reads; it has "
            f"{sorted(example.columns)}"
        )
    return example.columns[name]


def _units(examples: Sequence[Example] | StoredExamples) -> list[tuple[int, ...]]:
    """The examples that share a row, by their numbers: a pair's two sides, or one example."""
    pairs: Sequence[object]
    if isinstance(examples, StoredExamples):
        pairs = examples.pairs
    else:
        pairs = [example.pair for example in examples]
    units: list[tuple[int, ...]] = []
    for number, pair in enumerate(pairs):
        if pair and number and pairs[number - 1] == pair:
            units[-1] = (*units[-1], number)
        else:
            units.append((number,))
    return units


def _sizes(examples: Sequence[Example] | StoredExamples) -> Int64[np.ndarray, "n 2"]:
    """Tokens and weighted tokens of each example; stored ones are not read for it."""
    if isinstance(examples, StoredExamples):
        return examples.sizes
    return np.array([(len(example.tokens), example.loss_positions.size) for example in examples])


def empty_batch(
    batch_size: int, seq_len: int, max_loss_positions: int, columns: Sequence[str] = ()
) -> Batch:
    """A batch without examples, to compile a step for its shapes."""
    return {
        "tokens": np.zeros((batch_size, seq_len), np.int32),
        "positions": np.zeros((batch_size, seq_len), np.int32),
        "segment_ids": np.zeros((batch_size, seq_len), np.int32),
        "weights": np.zeros((batch_size, seq_len), np.float32),
        "loss_positions": np.zeros((batch_size, max_loss_positions), np.int32),
        **{name: np.zeros((batch_size, seq_len), np.float32) for name in columns},
    }
