import pytest

from eef_jax.experts._browsing import Browsing
from eef_jax.experts._shopper import Visit
from eef_jax.experts._wish import stems
from tests.experts import goldenshop


@pytest.fixture
def visit():
    env = goldenshop.make()
    return Visit(env.game(), env.tasks("train")[0])


def go(visit, *actions):
    for action in actions:
        visit.follow(action)
    return Browsing(visit)


def listings(visit):
    return visit.pages[-1].results


def test_counts_results_pages_since_the_last_search(visit):
    assert go(visit, "search[shoes]", "click[next >]").turned == 2
    found = go(visit, "click[Back to Search]", "search[Red Shoes]")
    assert (found.searches, found.turned) == (["shoes", "red shoes"], 1)


def test_remembers_the_products_opened_in_the_order_of_opening(visit):
    go(visit, "search[shoes]")
    first, second = listings(visit)[:2]
    opened = (f"click[{first.asin}]", "click[< Prev]", f"click[{second.asin}]", "click[< Prev]")
    found = go(visit, *opened, f"click[{first.asin.upper()}]")
    assert list(found.opened) == [second.asin, first.asin]
    assert found.current is found.opened[first.asin]
    assert (found.current.number, found.current.price) == (0, first.price)
    assert found.current.names == visit.pages[-1].names


def test_reads_a_product_page_by_page(visit):
    go(visit, "search[shoes]")
    one = listings(visit)[0]
    found = go(visit, f"click[{one.asin}]")
    assert found.current.stems == stems(one.title) and not found.current.read
    found = go(visit, "click[Features]")
    assert found.current.read == {"features"}
    assert found.current.stems == stems(one.title) | stems(" ".join(visit.pages[-1].texts))


def test_chosen_options_are_lost_with_the_page_of_their_product(visit):
    go(visit, "search[shoes]")
    one = next(listing for listing in listings(visit))
    go(visit, f"click[{one.asin}]")
    value = visit.pages[-1].options[0][1][0]
    assert go(visit, f"click[{value}]").chosen == {value}
    assert go(visit, "click[description]", "click[< prev]").chosen == {value}
    assert go(visit, "click[< prev]", f"click[{one.asin}]").chosen == set()


def test_what_has_no_effect_leaves_no_trace(visit):
    found = go(visit, "click[next >]", None, "click[b000000000]")
    assert (found.opened, found.current, found.searches, found.turned) == ({}, None, [], 0)
