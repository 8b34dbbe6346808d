"""Which conversation's keys and values lie in which slot, and which prefixes can be shared.

Host bookkeeping in numpy; the arrays themselves belong to `decode.Programs`. Knows sessions, slots
and ids; knows no model.
"""

import numpy as np


class Slots:
    """Residents of the cache.

    A slot belongs to a session until it is released, and keeps its tokens until it is taken again:
    a later conversation can still copy a prefix from it.

    Only prefilled positions are shared. A decoded token's keys differ from a prefilled one's in the
    last bits, and what happens to be resident must not change what a conversation samples.

    Attributes:
        computed: i64[slots] number of leading positions whose keys and values are there.
    """

    def __init__(self, slots: int, max_context: int):
        self._tokens = np.full((slots, max_context), -1, np.int32)
        self._shareable = np.zeros(slots, np.int64)  # positions that are or will be prefilled
        self.computed = np.zeros(slots, np.int64)
        self._holders: dict[str, int] = {}
        self._free = list(range(slots))  # least recently used first

    def __len__(self) -> int:
        return len(self._tokens)

    def of(self, session: str) -> int | None:
        """The session's slot, if it has one."""
        return self._holders.get(session)

    def full(self) -> bool:
        """Whether every slot has a holder."""
        return not self._free

    def take(self, session: str, source: int | None) -> int:
        """Give the session the longest unused slot, sparing the one it will copy from if it can."""
        spared = self._free[0] == source and len(self._free) > 1
        slot = self._free.pop(1 if spared else 0)
        self._holders[session] = slot
        return slot

    def release(self, session: str) -> None:
        """Take the session's slot back; its tokens stay until the slot is taken."""
        slot = self._holders.pop(session, None)
        if slot is not None:
            self._free.append(slot)

    def sessions(self) -> tuple[str, ...]:
        """Who holds a slot."""
        return tuple(self._holders)

    def longest(self, prompt: np.ndarray) -> tuple[int, int]:
        """Find the slot that shares the longest prefix with a prompt.

        Args:
            prompt: i32[t].

        Returns:
            The slot and the number of leading tokens it shares; some may not be computed yet.
        """
        common = np.minimum(_common(self._tokens, prompt), self._shareable)
        # Among equals, one that has computed more: nobody then waits for it.
        best = int(np.lexsort((self.computed, common))[-1])
        return best, int(common[best])

    def common(self, slot: int, prompt: np.ndarray) -> int:
        """Number of leading positions of a slot that are computed and agree with a prompt."""
        return min(int(_common(self._tokens[slot : slot + 1], prompt)[0]), int(self.computed[slot]))

    def begin(self, slot: int, prompt: np.ndarray, kept: int, *, fresh: bool) -> None:
        """Note that a slot, of which `kept` positions are computed, will be filled with a prompt.

        Args:
            slot: the slot.
            prompt: i32[t] all of its tokens.
            kept: leading positions that stand.
            fresh: whether the slot was just taken, so that all of the prompt will be prefilled.
        """
        self._tokens[slot, : len(prompt)] = prompt
        self._tokens[slot, len(prompt) :] = -1
        self.computed[slot] = kept
        # The last token of a prompt goes through the decode program.
        self._shareable[slot] = (
            len(prompt) - 1 if fresh else min(self._shareable[slot], max(kept, 0))
        )

    def extend(self, slot: int, position: int, token: int) -> None:
        """Note a token that was drawn for `position` (not computed yet)."""
        self._tokens[slot, position] = token

    def stop(self, slot: int) -> None:
        """Note that the rest of a prompt will not be computed after all."""
        self._shareable[slot] = min(self._shareable[slot], self.computed[slot])

    def clear(self) -> None:
        """Forget all contents (the weights have changed); holders keep their slots."""
        self._tokens[:] = -1
        self._shareable[:] = 0
        self.computed[:] = 0


def _common(tokens: np.ndarray, prompt: np.ndarray) -> np.ndarray:
    """Length of the common prefix of each row [n, s] with a prompt [t]."""
    n = min(tokens.shape[1], len(prompt))
    differs = tokens[:, :n] != prompt[:n]
    return (
        np.where(differs.any(axis=1), differs.argmax(axis=1), n)
        if n
        else np.zeros(len(tokens), int)
    )
