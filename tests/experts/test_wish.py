import pytest

from eef_jax.experts._wish import parse, stems

INSTRUCTION = (
    "Find me hand wash, machine wash women's dresses with quality polyester, long sleeve "
    "with color: orange | dots, and size: large, and price lower than 70.00 dollars"
)


def test_takes_an_instruction_apart():
    wish = parse(INSTRUCTION)
    assert wish.text == (
        "hand wash, machine wash women's dresses with quality polyester, long sleeve"
    )
    assert wish.options == (("color", "orange | dots"), ("size", "large"))
    assert wish.upper == 70.0
    assert wish.stems == stems("hands washing machines women dress quality polyester long sleeves")


@pytest.mark.parametrize(
    "text",
    [
        "Find me candles with soy wax",
        "I need candles with soy wax",
        "i am looking for candles soy wax",
    ],
)
def test_what_opens_a_sentence_is_not_wanted(text):
    wish = parse(f"{text}, and price lower than 60.00 dollars")
    assert wish.stems == stems("candle soy wax")
    assert wish.options == ()


def test_without_a_bound_every_price_will_do():
    assert parse("Find me candles").upper == float("inf")


def test_searches_get_longer_and_none_is_made_twice():
    first, every, text = parse(INSTRUCTION).queries()
    assert first == "hand wash, machine wash women's dresses"
    assert every == f"{text} orange | dots large"
    assert parse("Find me gluten free cream cheeses").queries() == ("gluten free cream cheeses",)


def test_a_text_says_a_share_of_the_wanted_words():
    wish = parse("Find me candles with soy wax for living room")
    assert wish.said_by(stems("Scented Candle of Soy")) == pytest.approx(2 / 5)
    assert wish.said_by(wish.stems) == 1
    assert parse("Find me").said_by(frozenset()) == 0
