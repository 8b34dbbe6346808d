"""A sequence whose items are made when they are asked for: a catalogue may hold a million."""

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that makes each item from its index; equal to any sequence of equal items.

    Args:
        length: number of items.
        make: returns the item at an index in [0, length); caching is up to it.
    """

    def __init__(self, length: int, make: Callable[[int], T]):
        self._length = length
        self._make = make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, number: int) -> T: ...

    @overload
    def __getitem__(self, number: slice) -> tuple[T, ...]: ...

    def __getitem__(self, number: int | slice) -> T | tuple[T, ...]:
        if isinstance(number, slice):
            return tuple(self._make(n) for n in range(*number.indices(self._length)))
        return self._make(range(self._length)[number])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as of a list
