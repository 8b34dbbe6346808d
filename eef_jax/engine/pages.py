"""The page allocator: a prefix tree of KV cache pages with reference counts and LRU eviction.

Numpy bookkeeping on the host; the cache arrays belong to `programs.Programs`.
"""

import dataclasses
import hashlib
import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

# A provenance tag is an int64: a token's id, plus this bit if decoding computed its cache entry.
# Decoded keys differ from prefilled ones in the last bits, so prefixes match by tags, not by ids:
# otherwise a sampled token would depend on which entries happen to be in the cache.
DECODED = np.int64(1 << 32)

PrefixKey = bytes  # hash of everything before a page: the adapter and all tags


class OutOfPages(Exception):
    """No page is free, and none can be evicted."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PrefixMatch:
    """The part of a conversation that the cache already holds.

    Attributes:
        full_pages: for each full page of the conversation, the pages with the same contents.
        tail_page: the page that shares most of the remaining tags; None if no page shares any.
        tail_length: positions shared with `tail_page`.
        ready: whether all of these entries have been computed; False while another request is
            still computing some.
        length: matched positions in total.
    """

    full_pages: tuple[tuple[int, ...], ...] = ()
    tail_page: int | None = None
    tail_length: int = 0
    ready: bool = True
    length: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class BlockTable:
    """The pages of one running request, in order of position.

    Attributes:
        keys: prefix key of each page, as far as the tags before it are known.
        pages: page numbers.
    """

    keys: list[PrefixKey]
    pages: list[int] = dataclasses.field(default_factory=list)


class PageAllocator:
    """Allocates pages to requests, and finds and shares pages with a common prefix.

    Args:
        num_pages: pages of the pool.
        page_size: positions in a page.
        exclusive_pages: whether a page can be in one block table only; a second request then gets a
            copy of it.

    Attributes:
        page_size: positions in a page.
    """

    def __init__(self, num_pages: int, page_size: int, *, exclusive_pages: bool):
        self.page_size = page_size
        self._num_pages = num_pages
        self._exclusive_pages = exclusive_pages
        self.reset()

    def __len__(self) -> int:
        return self._num_pages

    def reset(self) -> None:
        """Free all pages; block tables from before are void."""
        n = self._num_pages
        self._tags = np.full((n, self.page_size), -1, np.int64)
        self._planned = np.zeros(n, np.int64)  # leading entries that are or will be computed
        self._computed = np.zeros(n, np.int64)  # leading entries that are computed
        self._references = np.zeros(n, np.int64)
        self._last_used = np.zeros(n, np.int64)
        self._key: list[PrefixKey | None] = [None] * n  # None: not in the prefix tree
        self._children: dict[PrefixKey, list[int]] = {}
        self._free = list(range(n))  # a heap: the lowest page first
        self._clock = 0

    @property
    def num_referenced(self) -> int:
        """Pages that are in a block table."""
        return int(np.count_nonzero(self._references))

    @property
    def num_available(self) -> int:
        """Pages in no block table: free ones and those that can be evicted."""
        return len(self) - self.num_referenced

    def match(self, root: PrefixKey, tags: Int64[np.ndarray, " t"]) -> PrefixMatch:
        """Find the longest prefix of a conversation that is cached or being computed.

        Args:
            root: key of the adapter.
            tags: of the conversation.
        """
        key, full, ready, start = root, [], True, 0
        while start + self.page_size <= len(tags):
            part = tags[start : start + self.page_size]
            pages, shared = self._shared_lengths(key, part)
            same = tuple(pages[shared == self.page_size].tolist())
            if not same:
                break
            computed = tuple(p for p in same if self._computed[p] == self.page_size)
            ready &= bool(computed)
            full.append(computed or same)
            key, start = _child_key(key, part), start + self.page_size
        pages, shared = self._shared_lengths(key, tags[start : start + self.page_size])
        if not len(pages) or not shared.max(initial=0):
            return PrefixMatch(full_pages=tuple(full), ready=ready, length=start)
        # Among equally long matches prefer the page with most entries computed, since nothing has
        # to wait for it, then one without references, which needs no copy.
        rank = np.lexsort((-self._references[pages], self._computed[pages], shared))
        tail, length = int(pages[rank[-1]]), int(shared[rank[-1]])
        return PrefixMatch(
            full_pages=tuple(full),
            tail_page=tail,
            tail_length=length,
            ready=ready and length <= int(self._computed[tail]),
            length=start + length,
        )

    def allocate(
        self, root: PrefixKey, tags: Int64[np.ndarray, " t"], match: PrefixMatch
    ) -> tuple[BlockTable, list[tuple[int, int]]]:
        """Reference the matched pages of a conversation and allocate pages for the rest.

        Args:
            root: key of the adapter.
            tags: of the conversation. From now on other requests match all of them, and wait until
                they are computed.
            match: result of `match` for these tags; must be ready.

        Returns:
            The block table, and the pages to copy as (source, target) pairs.

        Raises:
            OutOfPages: too few pages; nothing stays allocated.
        """
        table, copies = BlockTable(keys=[root]), []
        self._pin(match, +1)
        try:
            for index, same in enumerate(match.full_pages):
                source = min(same, key=lambda page: int(self._references[page]))
                # The pin above is one of the references.
                if self._exclusive_pages and self._references[source] > 1:
                    part = tags[index * self.page_size : (index + 1) * self.page_size]
                    copies.append((source, self._append(table, part, computed=self.page_size)))
                else:
                    self._share(table, source)
            start = len(match.full_pages) * self.page_size
            if match.tail_page is not None:
                copies += self._allocate_tail(table, tags[start : start + self.page_size], match)
                start += self.page_size
            while start < len(tags):
                self._append(table, tags[start : start + self.page_size], computed=0)
                start += self.page_size
        except OutOfPages:
            for _, target in copies:
                self._computed[target] = 0  # these copies will not be made
            self._pin(match, -1)
            self.release(table)
            raise
        self._pin(match, -1)
        return table, copies

    def append_page(self, table: BlockTable) -> None:
        """Allocate one more page at the end of a block table.

        Raises:
            OutOfPages: no page is left; the table is unchanged.
        """
        self._append(table, np.zeros(0, np.int64), computed=0)

    def mark_computed(
        self, table: BlockTable, position: int, tags: Int64[np.ndarray, " t"]
    ) -> None:
        """Record that the entries of some positions have been computed.

        Args:
            table: the request's pages.
            position: the first of the positions.
            tags: of the entries.
        """
        done = 0
        while done < len(tags):
            index, entry = divmod(position + done, self.page_size)
            page = table.pages[index]
            part = tags[done : done + self.page_size - entry]
            end = entry + len(part)
            if self._key[page] is None:
                self._insert(table, index)
            self._tags[page, entry:end] = part
            self._computed[page] = max(self._computed[page], end)
            self._planned[page] = max(self._planned[page], end)
            done += len(part)

    def release(self, table: BlockTable) -> None:
        """Release a block table's references.

        The pages stay in the prefix tree until they are evicted: the least recently released
        first, and of one conversation the last page first, since a page is of no use without those
        before it.
        """
        self._clock += 1
        for depth, page in enumerate(table.pages):
            self._references[page] -= 1
            self._last_used[page] = self._clock * len(self) - depth
            if not self._references[page]:
                self._planned[page] = self._computed[page]
                if not self._computed[page]:
                    self._free_page(page)
        table.pages.clear()

    def drop_tree(self, root: PrefixKey) -> None:
        """Free all pages below an adapter's key; none of them may be in a block table."""
        keys = [root]
        while keys:
            key = keys.pop()
            for page in tuple(self._children.get(key, ())):
                if self._planned[page] == self.page_size:
                    keys.append(_child_key(key, self._tags[page]))
                self._free_page(page)

    def check_invariants(self) -> None:
        """Check that every page is either free, in the prefix tree, or referenced but still empty.

        Raises:
            AssertionError: the bookkeeping is inconsistent.
        """
        in_tree = [page for pages in self._children.values() for page in pages]
        empty = [p for p in range(len(self)) if self._references[p] and self._key[p] is None]
        assert sorted([*in_tree, *empty, *self._free]) == list(range(len(self))), in_tree
        assert (self._references >= 0).all() and not self._references[self._free].any()
        assert (self._computed <= self._planned).all()

    def _shared_lengths(
        self, key: PrefixKey, part: Int64[np.ndarray, " t"]
    ) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
        """The pages below a key, and how many leading tags each shares with `part`."""
        pages = np.array(self._children.get(key, ()), np.int64)
        n = min(len(part), self.page_size)
        differs = self._tags[pages, :n] != part[:n]
        shared = np.where(differs.any(axis=1), differs.argmax(axis=1), n) if n else pages * 0
        return pages, np.minimum(shared, self._planned[pages])

    def _pin(self, match: PrefixMatch, by: int) -> None:
        """Keep matched pages from being evicted while other pages are allocated."""
        for same in match.full_pages:
            for page in same:
                self._references[page] += by
        if match.tail_page is not None:
            self._references[match.tail_page] += by

    def _allocate_tail(
        self, table: BlockTable, part: Int64[np.ndarray, " t"], match: PrefixMatch
    ) -> Sequence[tuple[int, int]]:
        """Take over the partly matching page, or copy it: the (source, target) pairs to copy."""
        tail = match.tail_page
        assert tail is not None
        # An unreferenced page whose entries all match is continued in place.
        if match.tail_length == self._planned[tail] and self._references[tail] == 1:
            self._share(table, tail)
            self._plan(tail, part)
            return []
        return [(tail, self._append(table, part, computed=match.tail_length))]

    def _share(self, table: BlockTable, page: int) -> None:
        """Append a reference to a page that exists."""
        self._references[page] += 1
        table.pages.append(page)

    def _append(self, table: BlockTable, part: Int64[np.ndarray, " t"], *, computed: int) -> int:
        """Append a new page for tags of which the first `computed` count as computed."""
        page = self._take_free_page()
        self._references[page] = 1
        self._computed[page] = computed
        table.pages.append(page)
        if len(part):
            self._insert(table, len(table.pages) - 1)
            self._plan(page, part)
        return page

    def _insert(self, table: BlockTable, index: int) -> None:
        """Insert a table's page into the prefix tree; all tags before it must be known."""
        while len(table.keys) <= index:
            before = self._tags[table.pages[len(table.keys) - 1]]
            table.keys.append(_child_key(table.keys[-1], before))
        key, page = table.keys[index], table.pages[index]
        self._key[page] = key
        self._children.setdefault(key, []).append(page)

    def _plan(self, page: int, part: Int64[np.ndarray, " t"]) -> None:
        self._tags[page, : len(part)] = part
        self._planned[page] = len(part)

    def _take_free_page(self) -> int:
        if self._free:
            return heapq.heappop(self._free)
        unreferenced = np.flatnonzero(self._references == 0)
        if not len(unreferenced):
            raise OutOfPages
        self._free_page(int(unreferenced[np.argmin(self._last_used[unreferenced])]))
        return heapq.heappop(self._free)

    def _free_page(self, page: int) -> None:
        key = self._key[page]
        if key is not None:  # else nothing was ever written to it
            self._children[key].remove(page)
            if not self._children[key]:
                del self._children[key]
        self._key[page] = None
        self._planned[page] = self._computed[page] = 0
        heapq.heappush(self._free, page)


def _child_key(key: PrefixKey, tags: Int64[np.ndarray, " t"]) -> PrefixKey:
    """Key of the pages that follow a full page with these tags."""
    return hashlib.blake2b(key + tags.tobytes(), digest_size=16).digest()
