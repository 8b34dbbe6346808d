"""The slots' book: who holds what, which prefixes can be shared, what happens to released ones."""

import numpy as np

from eef_jax.engine.cache import Slots


def ids(*values):
    return np.array(values, np.int32)


def filled(slots, session, prompt, drawn=()):
    """Take a slot, prefill a prompt and draw some tokens, as the engine does."""
    slot = slots.take(session, None)
    slots.begin(slot, prompt, 0, fresh=True)
    slots.computed[slot] = len(prompt) - 1
    for token in drawn:
        slots.computed[slot] += 1
        slots.extend(slot, int(slots.computed[slot]), token)
    return slot


def test_the_longest_prefix_is_found_in_held_and_released_slots():
    slots = Slots(3, 16)
    filled(slots, "short", ids(1, 2, 9, 9))
    long = filled(slots, "long", ids(1, 2, 3, 4, 5))
    assert slots.longest(ids(1, 2, 3, 4, 7)) == (long, 4)
    slots.release("long")
    assert slots.longest(ids(1, 2, 3, 4, 7)) == (long, 4)
    assert slots.longest(ids(8, 8))[1] == 0


def test_decoded_positions_are_kept_for_their_own_session_only():
    slots = Slots(2, 16)
    slot = filled(slots, "a", ids(1, 2, 3), drawn=(4, 5))
    assert slots.common(slot, ids(1, 2, 3, 4, 5)) == 4  # the last drawn token is not computed yet
    assert slots.longest(ids(1, 2, 3, 4, 5))[1] == 2
    kept = slots.common(slot, ids(1, 2, 3, 4, 5, 6))
    slots.begin(slot, ids(1, 2, 3, 4, 5, 6), kept, fresh=False)
    assert slots.longest(ids(1, 2, 3, 4, 5))[1] == 2


def test_the_least_recently_used_slot_is_taken_sparing_the_source():
    slots = Slots(2, 8)
    first = filled(slots, "a", ids(1, 2))
    second = filled(slots, "b", ids(3, 4))
    assert slots.full()
    slots.release("a")
    slots.release("b")
    assert slots.take("c", first) == second
    assert slots.take("d", first) == first
    assert slots.sessions() == ("c", "d") and slots.of("a") is None


def test_a_prefix_that_is_being_computed_is_announced_until_it_is_given_up():
    slots = Slots(2, 8)
    slot = slots.take("a", None)
    slots.begin(slot, ids(1, 2, 3, 4), 0, fresh=True)
    assert slots.longest(ids(1, 2, 3, 5)) == (slot, 3)
    slots.computed[slot] = 1
    slots.stop(slot)
    assert slots.longest(ids(1, 2, 3, 5)) == (slot, 1)


def test_clearing_forgets_contents_but_not_holders():
    slots = Slots(2, 8)
    slot = filled(slots, "a", ids(1, 2, 3))
    slots.clear()
    assert slots.longest(ids(1, 2, 3))[1] == 0
    assert (slots.common(slot, ids(1, 2, 3)), slots.of("a")) == (0, slot)
