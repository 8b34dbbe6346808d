import random

import pytest

from eef_jax.envs import webshop
from pretrain import exercises
from pretrain.pieces import Piece
from pretrain.vocabulary import ASSISTANT, END, USER


def rngs(count):
    return [random.Random(seed) for seed in range(count)]


def test_items_fit_exactly_when_they_are_made_to():
    for rng in rngs(300):
        goal = exercises.make_goal(rng)
        assert exercises.fits(goal, exercises.make_item(rng, goal, True))
        assert not exercises.fits(goal, exercises.make_item(rng, goal, False))


def test_pages_read_like_the_environments_own():
    env = webshop.make(train_tasks=20)
    for task in env.tasks("train"):
        game = env.game()
        start = game.reset(task)
        goal = exercises.Goal("", ("", ""), (), None, task.goal)
        assert start == exercises.start_page(goal)
        for page, action in enumerate(("search[towel]", "click[next >]"), start=1):
            seen = game.step(action).observation
            total = int(seen.split("Total results: ")[1].split(")")[0])
            assert seen.startswith(exercises.results_head(goal, page, total))
        asin = seen.split(" [SEP] ")[6 if "< Prev" in seen else 5]
        item = game.step(f"click[{asin.lower()}]").observation
        product = next(p for p in env.dataset.products if p.asin == asin)
        line = exercises.Item(asin, product.title, ("", "", ""), 0, None)
        expected = exercises.item_page(goal, line, product.options)
        assert item == expected.replace("$0.0", product.price_text)


@pytest.mark.parametrize("kind", ["options", "keywords"])
def test_questions_are_answered_last_and_learned(kind):
    for rng in rngs(30):
        *_, role, answer = getattr(exercises, kind)(rng)
        assert answer.weight == 1.0 and answer.text.endswith(END)
        assert role == Piece(ASSISTANT)


def test_which_names_the_first_fitting_item_of_the_last_page():
    for rng in rngs(50):
        *before, answer = exercises.which(rng, 2)
        said = answer.text.removesuffix(END)
        page = before[-2].text
        assert said == "none" or f"[SEP] {said.upper()} [SEP]" in page


def test_marks_say_at_each_place_what_a_reader_knows_there():
    for rng in rngs(50):
        goal = exercises.make_goal(rng)
        items = exercises.make_page(rng, goal, 0.7)
        page = exercises.results(goal, 2, items, rng.choice(("", "which?")))
        marks = iter(page.marks)
        found = "no"
        for item in items:
            for word in item.title.split():
                mark = next(marks)
                assert page.text[: mark.at + 1].endswith(word)
                assert (mark.says == "yes") == (word.lower() in (*goal.attributes, goal.noun))
            price, verdict, first = next(marks), next(marks), next(marks)
            assert page.text[price.at] == str(item.price)[0]
            assert (price.says == "yes") == (goal.upper is None or item.price <= goal.upper)
            assert page.text[: verdict.at + 1].endswith(item.price_text)
            assert verdict.says == (item.asin.lower() if exercises.fits(goal, item) else "no")
            assert page.text[first.at] in "[|"  # a separator, or the end of the message
            found = verdict.says if found == "no" else found
            assert first.says == found
        assert next(marks, None) is None


def test_walks_take_legal_actions():
    for rng in rngs(50):
        shown = ""
        for piece in exercises.walk(rng, 9):
            if piece.text.startswith(USER):
                shown = piece.text.lower()
            elif piece.weight:
                verb, _, rest = piece.text.removesuffix(END).rstrip("]").partition("[")
                words = [rest] if verb == "click" else rest.split()
                assert all(word in shown.replace(",", " ").replace(":", " ") for word in words)


def test_draws_depend_on_the_generator_alone():
    assert exercises.draw(random.Random(5), ["a", "b"], True, 0.1) == exercises.draw(
        random.Random(5), ["a", "b"], True, 0.1
    )
