"""The book of pages: what is found, shared, copied, evicted and given up."""

import numpy as np
import pytest

from eef_jax.engine.pages import DECODED, OutOfPages, PageAllocator

ROOT = b"adapter"


def ids(*values):
    return np.array(values, np.int64)


def compute(pages, marks, root=ROOT):
    """Take a conversation's pages and compute them, as the scheduler does."""
    chain, copies = pages.take(root, marks, pages.match(root, marks))
    pages.computed(chain, 0, marks)
    return chain, copies


def length(pages, marks, root=ROOT):
    return pages.match(root, marks).length


@pytest.fixture
def pages():
    made = PageAllocator(8, 4, one_reader=False)
    yield made
    made.check()


def test_a_prefix_is_found_to_the_token(pages):
    chain, _ = compute(pages, ids(1, 2, 3, 4, 5, 6, 7))
    for held in (True, False):
        if not held:
            pages.release(chain)
        assert length(pages, ids(1, 2, 3, 4, 5, 6, 7, 8)) == 7
        assert length(pages, ids(1, 2, 3, 4, 5, 9)) == 5
        assert length(pages, ids(1, 2, 9)) == 2
        assert length(pages, ids(9)) == 0
        assert length(pages, ids(1, 2), root=b"another") == 0


def test_full_pages_are_shared_and_parts_are_copied(pages):
    first, _ = compute(pages, ids(1, 2, 3, 4, 5, 6))
    second, copies = compute(pages, ids(1, 2, 3, 4, 5, 7))
    assert second.table[0] == first.table[0]
    assert copies == [(first.table[1], second.table[1])]
    assert pages.held == 3
    pages.release(first)
    assert pages.held == 2
    pages.release(second)


def test_a_page_with_one_reader_is_copied_for_the_next():
    pages = PageAllocator(8, 4, one_reader=True)
    first, _ = compute(pages, ids(1, 2, 3, 4, 5))
    second, copies = compute(pages, ids(1, 2, 3, 4, 6))
    assert not set(first.table) & set(second.table)
    assert copies == [(first.table[0], second.table[0])]
    left = first.table[0]
    pages.release(first)
    third, copies = compute(pages, ids(1, 2, 3, 4, 7))
    assert third.table[0] == left and copies == []
    pages.check()


def test_a_page_left_half_full_is_taken_over_by_who_goes_on(pages):
    first, _ = compute(pages, ids(1, 2, 3, 4, 5))
    pages.release(first)
    marks = ids(1, 2, 3, 4, 5, 6, 7)
    match = pages.match(ROOT, marks)
    second, copies = pages.take(ROOT, marks, match)
    assert (match.length, copies, pages.held) == (5, [], 2)
    pages.release(second)  # nothing more was computed
    assert length(pages, marks) == 5


def test_decoded_entries_are_not_taken_for_prefilled_ones(pages):
    compute(pages, ids(1, 2, 3 + DECODED, 4 + DECODED))
    assert length(pages, ids(1, 2, 3, 4)) == 2
    assert length(pages, ids(1, 2, 3 + DECODED, 4 + DECODED)) == 4


def test_what_somebody_is_computing_is_waited_for_until_it_is_given_up(pages):
    marks = ids(1, 2, 3, 4, 5, 6)
    chain, _ = pages.take(ROOT, marks, pages.match(ROOT, marks))
    pages.computed(chain, 0, marks[:2])
    assert not pages.match(ROOT, ids(1, 2, 3, 4, 9)).ready
    assert pages.match(ROOT, ids(1, 2, 9)).ready
    pages.release(chain)
    match = pages.match(ROOT, ids(1, 2, 3, 4, 9))
    assert (match.ready, match.length) == (True, 2)


def test_the_least_recently_used_page_is_evicted_the_end_before_the_beginning(pages):
    old, _ = compute(pages, ids(*range(16)))
    pages.release(old)
    new, _ = compute(pages, ids(*range(50, 66)))
    pages.release(new)
    compute(pages, ids(90))
    assert (length(pages, ids(*range(16))), length(pages, ids(*range(50, 66)))) == (12, 16)
    assert pages.evicted == 1


def test_pages_that_are_read_are_never_evicted(pages):
    held, _ = compute(pages, ids(*range(24)))
    with pytest.raises(OutOfPages):
        compute(pages, ids(*range(50, 66)))
    assert (pages.held, length(pages, ids(*range(24)))) == (6, 24)
    pages.release(held)
    compute(pages, ids(*range(50, 66)))


def test_pages_that_could_not_all_be_had_leave_no_copy_behind():
    pages = PageAllocator(4, 4, one_reader=True)
    held, _ = compute(pages, ids(1, 2, 3, 4, 5, 6))
    marks = ids(1, 2, 3, 4, 5, 6, 7, 8, 9)  # two copies, and no page for the rest
    with pytest.raises(OutOfPages):
        pages.take(ROOT, marks, pages.match(ROOT, marks))
    pages.check()
    assert pages.held == 2
    pages.release(held)
    assert pages.match(ROOT, marks).full == ((held_page(pages),),)


def held_page(pages):
    """The only page that holds the first four marks."""
    (page,) = pages.match(ROOT, ids(1, 2, 3, 4)).full[0]
    return page


def test_drawing_goes_on_in_pages_whose_tokens_are_not_known_beforehand(pages):
    chain, _ = compute(pages, ids(1, 2, 3))
    pages.grow(chain)
    pages.computed(chain, 3, ids(4 + DECODED))
    pages.computed(chain, 4, ids(5 + DECODED))
    pages.release(chain)
    assert length(pages, ids(1, 2, 3, 4 + DECODED, 5 + DECODED, 6)) == 5


def test_an_adapter_is_forgotten_with_all_it_left(pages):
    for root in (ROOT, b"another"):
        chain, _ = compute(pages, ids(*range(12)), root)
        pages.release(chain)
    pages.forget(ROOT)
    assert (length(pages, ids(*range(12))), length(pages, ids(*range(12)), b"another")) == (0, 12)
