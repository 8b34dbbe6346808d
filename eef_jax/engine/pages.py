"""Which tokens' keys and values lie in which page, who reads them, and which page goes first.

The pages form a prefix tree. A page is found by the key of all that stands before it (adapter and
tokens) and its own marks. A mark is a token's id and how its entry was computed: a decoded token's
keys differ from a prefilled one's in the last bits, and what happens to be resident must not change
what a conversation samples.

Host bookkeeping in numpy; the arrays themselves belong to `programs.Programs`. Knows marks; knows
no model, no jobs and no clock but the order of calls.
"""

import dataclasses
import hashlib
import heapq
from collections.abc import Sequence

import numpy as np

DECODED = np.int64(1 << 32)  # added to a token's id where decoding computed its entry

Key = bytes


class OutOfPages(Exception):
    """No page is free, and none can be evicted."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrefixMatch:
    """What of a conversation is there.

    Attributes:
        full: for each full page of it, the pages that hold the same.
        tail: the page that shares most of what follows, if any.
        common: positions that it shares.
        ready: whether all of this has been computed; if not, somebody is at it.
        length: positions found in all.
    """

    full: tuple[tuple[int, ...], ...]
    tail: int | None
    common: int
    ready: bool
    length: int


@dataclasses.dataclass(slots=True, kw_only=True)
class BlockTable:
    """The pages of one conversation, in order, while somebody works on it.

    Attributes:
        keys: of what stands before each page, as far as it is known.
        table: the pages.
    """

    keys: list[Key]
    table: list[int] = dataclasses.field(default_factory=list)


class PageAllocator:
    """The book of all pages.

    Args:
        count: number of pages.
        size: positions in a page.
        one_reader: whether a page can be read by one conversation at a time only; a second one then
            gets a copy of it.

    Attributes:
        evicted: pages that were taken from whoever left them.
    """

    def __init__(self, count: int, size: int, *, one_reader: bool):
        self.size = size
        self.evicted = 0
        self._one_reader = one_reader
        self._marks = np.full((count, size), -1, np.int64)
        self._known = np.zeros(count, np.int64)  # leading marks that are or will be computed
        self._computed = np.zeros(count, np.int64)
        self._readers = np.zeros(count, np.int64)
        self._used = np.zeros(count, np.int64)
        self._parent: list[Key | None] = [None] * count
        self._children: dict[Key, list[int]] = {}
        self._free = list(range(count))  # a heap: the lowest first
        self._clock = 0

    def __len__(self) -> int:
        return len(self._marks)

    @property
    def held(self) -> int:
        """Pages that somebody reads."""
        return int(np.count_nonzero(self._readers))

    @property
    def available(self) -> int:
        """Pages that nobody reads: free ones, and those that can be evicted."""
        return len(self) - self.held

    def match(self, root: Key, marks: np.ndarray) -> PrefixMatch:
        """Find what of a conversation is there.

        Args:
            root: key of the adapter.
            marks: i64[t].
        """
        key, full, ready, start = root, [], True, 0
        while start + self.size <= len(marks):
            part = marks[start : start + self.size]
            pages, common = self._common(key, part)
            same = tuple(p for p, n in zip(pages, common, strict=True) if n == self.size)
            if not same:
                break
            done = tuple(p for p in same if self._computed[p] == self.size)
            ready &= bool(done)
            full.append(done or same)
            key, start = _below(key, part), start + self.size
        pages, common = self._common(key, marks[start : start + self.size])
        if not len(pages) or not common.max(initial=0):
            return PrefixMatch(full=tuple(full), tail=None, common=0, ready=ready, length=start)
        # Among equals one that has computed more (nobody waits for it), then one nobody reads.
        rank = np.lexsort((-self._readers[pages], self._computed[pages], common))
        tail, shared = int(pages[rank[-1]]), int(common[rank[-1]])
        ready &= shared <= int(self._computed[tail])
        return PrefixMatch(
            full=tuple(full), tail=tail, common=shared, ready=ready, length=start + shared
        )

    def take(
        self, root: Key, marks: np.ndarray, match: PrefixMatch
    ) -> tuple[BlockTable, list[tuple[int, int]]]:
        """Hold the pages of a conversation, new ones for what was not found.

        Args:
            root: key of the adapter.
            marks: i64[t]; all of them are found by others from now on, and waited for.
            match: what `match` found of them, ready.

        Returns:
            The chain, and the pages to be copied: (source, target) each.

        Raises:
            OutOfPages: nothing is held then.
        """
        chain, copies = BlockTable(keys=[root]), []
        self._hold_sources(match, +1)
        try:
            for index, same in enumerate(match.full):
                source = self._quietest(same)
                part = marks[index * self.size : (index + 1) * self.size]
                # Its own hold as a source is one of the readers.
                if self._one_reader and self._readers[source] > 1:
                    target = self._new(chain, part, computed=self.size)
                    copies.append((source, target))
                else:
                    self._join(chain, source)
            start = len(match.full) * self.size
            if match.tail is not None:
                part = marks[start : start + self.size]
                whole = match.common == self._known[match.tail]
                if whole and self._readers[match.tail] == 1:
                    self._join(chain, match.tail)
                    self._plan(match.tail, part)
                else:
                    copies.append((match.tail, self._new(chain, part, computed=match.common)))
                start += self.size
            while start < len(marks):
                self._new(chain, marks[start : start + self.size], computed=0)
                start += self.size
        except OutOfPages:
            for _, target in copies:
                self._computed[target] = 0  # nobody will copy them
            self._hold_sources(match, -1)
            self.release(chain)
            raise
        self._hold_sources(match, -1)
        return chain, copies

    def grow(self, chain: BlockTable) -> None:
        """Hold one more page at the end of a chain.

        Raises:
            OutOfPages: the chain is as it was then.
        """
        self._new(chain, np.zeros(0, np.int64), computed=0)

    def computed(self, chain: BlockTable, position: int, marks: np.ndarray) -> None:
        """Note that the entries of marks i64[t] from `position` on have been computed."""
        done = 0
        while done < len(marks):
            index, entry = divmod(position + done, self.size)
            page = chain.table[index]
            part = marks[done : done + self.size - entry]
            end = entry + len(part)
            if self._parent[page] is None:
                self._list(chain, index)
            self._marks[page, entry:end] = part
            self._computed[page] = max(self._computed[page], end)
            self._known[page] = max(self._known[page], end)
            done += len(part)

    def release(self, chain: BlockTable) -> None:
        """Let a chain's pages go; they stay until they are evicted, the last ones first."""
        self._clock += 1
        for depth, page in enumerate(chain.table):
            self._readers[page] -= 1
            self._used[page] = self._clock * len(self) - depth
            if not self._readers[page]:
                self._known[page] = self._computed[page]
                if not self._computed[page]:
                    self._drop(page)
        chain.table.clear()

    def forget(self, root: Key) -> None:
        """Drop what an adapter has left; nobody may hold any of it."""
        keys = [root]
        while keys:
            key = keys.pop()
            for page in tuple(self._children.get(key, ())):
                if self._known[page] == self.size:
                    keys.append(_below(key, self._marks[page]))
                self._drop(page)

    def check(self) -> None:
        """Check the book: every page is free, left or held, and listed once.

        Raises:
            AssertionError: when it is not.
        """
        listed = [page for pages in self._children.values() for page in pages]
        blank = [p for p in range(len(self)) if self._readers[p] and self._parent[p] is None]
        assert sorted([*listed, *blank, *self._free]) == list(range(len(self))), listed
        assert (self._readers >= 0).all() and not self._readers[self._free].any()
        assert (self._computed <= self._known).all()

    def _common(self, key: Key, part: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pages below a key, and how many leading marks each shares with a part."""
        pages = np.array(self._children.get(key, ()), np.int64)
        n = min(len(part), self.size)
        differs = self._marks[pages, :n] != part[:n]
        common = np.where(differs.any(axis=1), differs.argmax(axis=1), n) if n else pages * 0
        return pages, np.minimum(common, self._known[pages])

    def _quietest(self, pages: Sequence[int]) -> int:
        return min(pages, key=lambda page: int(self._readers[page]))

    def _hold_sources(self, match: PrefixMatch, by: int) -> None:
        """Keep what a match found from being evicted while new pages are taken."""
        for same in match.full:
            for page in same:
                self._readers[page] += by
        if match.tail is not None:
            self._readers[match.tail] += by

    def _join(self, chain: BlockTable, page: int) -> None:
        """Read a page where it is."""
        self._readers[page] += 1
        chain.table.append(page)

    def _new(self, chain: BlockTable, part: np.ndarray, *, computed: int) -> int:
        """Hold a new page at the end of a chain, for marks of which some are computed."""
        page = self._allocate()
        self._readers[page] = 1
        self._computed[page] = computed
        chain.table.append(page)
        if len(part):
            self._list(chain, len(chain.table) - 1)
            self._plan(page, part)
        return page

    def _list(self, chain: BlockTable, index: int) -> None:
        """Let a chain's page be found by what stands before it, all of which is known by now."""
        while len(chain.keys) <= index:
            before = self._marks[chain.table[len(chain.keys) - 1]]
            chain.keys.append(_below(chain.keys[-1], before))
        key, page = chain.keys[index], chain.table[index]
        self._parent[page] = key
        self._children.setdefault(key, []).append(page)

    def _plan(self, page: int, part: np.ndarray) -> None:
        self._marks[page, : len(part)] = part
        self._known[page] = len(part)

    def _allocate(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        left = np.flatnonzero(self._readers == 0)
        if not len(left):
            raise OutOfPages
        self._drop(int(left[np.argmin(self._used[left])]))
        self.evicted += 1
        return heapq.heappop(self._free)

    def _drop(self, page: int) -> None:
        key = self._parent[page]
        if key is not None:  # else nothing was ever written to it
            self._children[key].remove(page)
            if not self._children[key]:
                del self._children[key]
        self._parent[page] = None
        self._known[page] = self._computed[page] = 0
        heapq.heappush(self._free, page)


def _below(key: Key, marks: np.ndarray) -> Key:
    """Key of what stands below a full page."""
    return hashlib.blake2b(key + marks.tobytes(), digest_size=16).digest()
