"""Examples to training batches: packed rows of fixed shapes, in an order that resumes exactly.

The order is stateless: which examples share a row and a batch is a pure function of (seed, epoch),
so a run that stops after any batch continues from its `Position` alone. Knows tokens and weights;
knows no text, no model and no device.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from eef_jax.errors import ConfigError, DataError
from eef_jax.types import Example

Batch = dict[str, np.ndarray]

_ROUND = 16  # bound of learned tokens in a row is a multiple of this


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where in the data a run stands: the next batch is number `index` of epoch `epoch`."""

    epoch: int = 0
    index: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which examples lie in which row, for one epoch.

    Attributes:
        rows: for each row the numbers of its examples, in order; as many rows as whole batches need
            (the last ones may be empty).
        padding: share of token slots that hold no example (0-1).
    """

    rows: tuple[tuple[int, ...], ...]
    padding: float


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """Packed batches of a list of examples.

    A batch is a dict of arrays of equal shapes throughout (rows b, tokens t, learned slots n):

    | key | type | meaning |
    |---|---|---|
    | tokens | int32[b, t] | ids, 0 where empty |
    | positions | int32[b, t] | restart at 0 with each example |
    | segment_ids | int32[b, t] | 1, 2, ... number of the example in its row; 0 where empty |
    | weights | float32[b, t] | loss weight of predicting a token; 0 on an example's first |
    | targets | int32[b, n] | columns of the tokens that have a weight; 0 where unused |

    `targets` lets the loss look at learned tokens alone (about one in ten in an agent's
    conversation): n bounds them in a row, and a row takes no example that would exceed it.

    Attributes:
        examples: what is packed.
        rows: rows of a global batch.
        length: tokens of a row.
        seed: of the order.
        shuffle: whether examples change their order (and neighbours) each epoch.
        process: number of this host among `processes`; it gets its own part of a batch's rows.
        processes: number of hosts.
        targets: n; by default a quarter more than rows of average examples would need.
    """

    examples: Sequence[Example]
    rows: int
    length: int
    seed: int = 0
    shuffle: bool = True
    process: int = 0
    processes: int = 1
    targets: int = 0

    def __post_init__(self) -> None:
        """Check sizes once, and settle the number of learned slots.

        Raises:
            DataError: when there is no example, or one that no row can hold.
            ConfigError: when hosts do not divide the rows.
        """
        if not self.examples:
            raise DataError("no example to train on; see the counts of the selection stage")
        if self.rows % self.processes:
            raise ConfigError(
                f"a batch of {self.rows} rows does not divide among {self.processes} processes; "
                "change config.train.rows to a multiple"
            )
        sizes = np.array([len(example.tokens) for example in self.examples])
        longest = int(sizes.argmax())
        if sizes[longest] > self.length:
            raise DataError(
                f"example {self.examples[longest].id!r} has {sizes[longest]} tokens, a row holds "
                f"{self.length}; raise config.train.length or leave it out when encoding"
            )
        learned = np.array([_learned(example).size for example in self.examples])
        if not self.targets:
            average = 1.25 * self.length * learned.sum() / sizes.sum()
            bound = max(int(average), int(learned.max()), 1)
            object.__setattr__(self, "targets", min(-(-bound // _ROUND) * _ROUND, self.length))
        if learned.max() > self.targets:
            raise DataError(
                f"example {self.examples[int(learned.argmax())].id!r} has {learned.max()} learned "
                f"tokens, a row's bound is {self.targets}; raise targets"
            )
        object.__setattr__(self, "_sizes", np.stack([sizes, learned], axis=1))

    def plan(self, epoch: int) -> Plan:
        """Pack the examples of an epoch: first-fit in the epoch's order, by tokens and targets."""
        sizes: np.ndarray = self._sizes  # type: ignore[attr-defined]
        order = np.arange(len(sizes))
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        rows: list[list[int]] = []
        free = np.empty((len(sizes), 2), np.int64)
        for number in order.tolist():
            fits = (free[: len(rows)] >= sizes[number]).all(axis=1)
            row = int(fits.argmax()) if fits.any() else len(rows)
            if row == len(rows):
                rows.append([])
                free[row] = self.length, self.targets
            rows[row].append(number)
            free[row] -= sizes[number]
        rows += [[] for _ in range(-len(rows) % self.rows)]
        padding = 1 - int(sizes[:, 0].sum()) / (len(rows) * self.length)
        return Plan(rows=tuple(map(tuple, rows)), padding=padding)

    def steps(self, epochs: int) -> int:
        """Number of batches in the first `epochs` epochs."""
        return sum(len(self.plan(epoch).rows) // self.rows for epoch in range(epochs))

    def iterate(self, start: Position | None = None) -> Iterator[tuple[Batch, Position]]:
        """Yield batches without end, each with the position of the one after it."""
        epoch, index = dataclasses.astuple(start or Position())
        while True:
            plan = self.plan(epoch)
            count = len(plan.rows) // self.rows
            while index < count:
                index += 1
                here = plan.rows[(index - 1) * self.rows : index * self.rows]
                after = Position(epoch=epoch, index=index)
                yield self._batch(here), after if index < count else Position(epoch=epoch + 1)
            epoch, index = epoch + 1, 0

    def _batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        """Lay out this host's part of a batch."""
        share = self.rows // self.processes
        rows = rows[self.process * share : (self.process + 1) * share]
        batch = empty(share, self.length, self.targets)
        for row, numbers in enumerate(rows):
            at = learned = 0
            for segment, number in enumerate(numbers, start=1):
                example = self.examples[number]
                size = len(example.tokens)
                batch["tokens"][row, at : at + size] = example.tokens
                batch["positions"][row, at : at + size] = np.arange(size)
                batch["segment_ids"][row, at : at + size] = segment
                batch["weights"][row, at + 1 : at + size] = example.weights[1:]
                columns = at + _learned(example)
                batch["targets"][row, learned : learned + columns.size] = columns
                at, learned = at + size, learned + columns.size
        return batch


def empty(rows: int, length: int, targets: int) -> Batch:
    """A batch that holds nothing: what a step is compiled for."""
    return {
        "tokens": np.zeros((rows, length), np.int32),
        "positions": np.zeros((rows, length), np.int32),
        "segment_ids": np.zeros((rows, length), np.int32),
        "weights": np.zeros((rows, length), np.float32),
        "targets": np.zeros((rows, targets), np.int32),
    }


def _learned(example: Example) -> np.ndarray:
    """Indices of the tokens that are learned; the first one has nothing to be predicted from."""
    return np.flatnonzero(example.weights[1:]) + 1
