"""The page allocator: what is matched, shared, copied, evicted and released."""

import numpy as np
import pytest

from eef_jax.engine.pages import DECODED, OutOfPages, PageAllocator

ROOT = b"adapter"


def ids(*values):
    return np.array(values, np.int64)


def compute(allocator, tags, root=ROOT):
    """Allocate a conversation's pages and compute them, as the scheduler does."""
    table, copies = allocator.allocate(root, tags, allocator.match(root, tags))
    allocator.mark_computed(table, 0, tags)
    return table, copies


def length(allocator, tags, root=ROOT):
    return allocator.match(root, tags).length


@pytest.fixture
def allocator():
    made = PageAllocator(8, 4, exclusive_pages=False)
    yield made
    made.check_invariants()


def test_a_prefix_is_matched_to_the_token(allocator):
    table, _ = compute(allocator, ids(1, 2, 3, 4, 5, 6, 7))
    for held in (True, False):
        if not held:
            allocator.release(table)
        assert length(allocator, ids(1, 2, 3, 4, 5, 6, 7, 8)) == 7
        assert length(allocator, ids(1, 2, 3, 4, 5, 9)) == 5
        assert length(allocator, ids(1, 2, 9)) == 2
        assert length(allocator, ids(9)) == 0
        assert length(allocator, ids(1, 2), root=b"another") == 0


def test_full_pages_are_shared_and_partial_ones_are_copied(allocator):
    first, _ = compute(allocator, ids(1, 2, 3, 4, 5, 6))
    second, copies = compute(allocator, ids(1, 2, 3, 4, 5, 7))
    assert second.pages[0] == first.pages[0]
    assert copies == [(first.pages[1], second.pages[1])]
    assert allocator.num_referenced == 3
    allocator.release(first)
    assert allocator.num_referenced == 2
    allocator.release(second)


def test_an_exclusive_page_is_copied_for_another_request():
    allocator = PageAllocator(8, 4, exclusive_pages=True)
    first, _ = compute(allocator, ids(1, 2, 3, 4, 5))
    second, copies = compute(allocator, ids(1, 2, 3, 4, 6))
    assert not set(first.pages) & set(second.pages)
    assert copies == [(first.pages[0], second.pages[0])]
    left = first.pages[0]
    allocator.release(first)
    third, copies = compute(allocator, ids(1, 2, 3, 4, 7))
    assert third.pages[0] == left and copies == []
    allocator.check_invariants()


def test_a_released_partial_page_is_continued_in_place(allocator):
    first, _ = compute(allocator, ids(1, 2, 3, 4, 5))
    allocator.release(first)
    tags = ids(1, 2, 3, 4, 5, 6, 7)
    match = allocator.match(ROOT, tags)
    second, copies = allocator.allocate(ROOT, tags, match)
    assert (match.length, copies, allocator.num_referenced) == (5, [], 2)
    allocator.release(second)  # without computing more
    assert length(allocator, tags) == 5


def test_decoded_entries_do_not_match_prefilled_ones(allocator):
    compute(allocator, ids(1, 2, 3 + DECODED, 4 + DECODED))
    assert length(allocator, ids(1, 2, 3, 4)) == 2
    assert length(allocator, ids(1, 2, 3 + DECODED, 4 + DECODED)) == 4


def test_a_match_is_not_ready_while_another_request_computes_it(allocator):
    tags = ids(1, 2, 3, 4, 5, 6)
    table, _ = allocator.allocate(ROOT, tags, allocator.match(ROOT, tags))
    allocator.mark_computed(table, 0, tags[:2])
    assert not allocator.match(ROOT, ids(1, 2, 3, 4, 9)).ready
    assert allocator.match(ROOT, ids(1, 2, 9)).ready
    allocator.release(table)
    match = allocator.match(ROOT, ids(1, 2, 3, 4, 9))
    assert (match.ready, match.length) == (True, 2)


def test_the_last_page_of_the_least_recently_used_conversation_is_evicted(allocator):
    old, _ = compute(allocator, ids(*range(16)))
    allocator.release(old)
    new, _ = compute(allocator, ids(*range(50, 66)))
    allocator.release(new)
    compute(allocator, ids(90))
    assert (length(allocator, ids(*range(16))), length(allocator, ids(*range(50, 66)))) == (12, 16)


def test_referenced_pages_are_not_evicted(allocator):
    held, _ = compute(allocator, ids(*range(24)))
    with pytest.raises(OutOfPages):
        compute(allocator, ids(*range(50, 66)))
    assert (allocator.num_referenced, length(allocator, ids(*range(24)))) == (6, 24)
    allocator.release(held)
    compute(allocator, ids(*range(50, 66)))


def test_a_failed_allocation_leaves_no_copy_behind():
    allocator = PageAllocator(4, 4, exclusive_pages=True)
    held, _ = compute(allocator, ids(1, 2, 3, 4, 5, 6))
    tags = ids(1, 2, 3, 4, 5, 6, 7, 8, 9)  # needs two copies and a third page
    with pytest.raises(OutOfPages):
        allocator.allocate(ROOT, tags, allocator.match(ROOT, tags))
    allocator.check_invariants()
    assert allocator.num_referenced == 2
    allocator.release(held)
    assert allocator.match(ROOT, tags).full_pages == ((only_page(allocator),),)


def only_page(allocator):
    """The only page with the first four tags."""
    (page,) = allocator.match(ROOT, ids(1, 2, 3, 4)).full_pages[0]
    return page


def test_generated_tokens_are_matched_in_appended_pages(allocator):
    table, _ = compute(allocator, ids(1, 2, 3))
    allocator.append_page(table)
    allocator.mark_computed(table, 3, ids(4 + DECODED))
    allocator.mark_computed(table, 4, ids(5 + DECODED))
    allocator.release(table)
    assert length(allocator, ids(1, 2, 3, 4 + DECODED, 5 + DECODED, 6)) == 5


def test_dropping_an_adapters_tree_frees_its_pages_only(allocator):
    for root in (ROOT, b"another"):
        table, _ = compute(allocator, ids(*range(12)), root)
        allocator.release(table)
    allocator.drop_tree(ROOT)
    assert (length(allocator, ids(*range(12))), length(allocator, ids(*range(12)), b"another")) == (
        0,
        12,
    )
