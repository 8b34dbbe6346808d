import random

import pytest

from eef_jax.envs import webshop
from pretrain.segments import Segment
from pretrain.tokenizer import ASSISTANT, END, USER
from pretrain.webshop import exercises, pages
from pretrain.webshop.walks import walk


def rngs(count):
    return [random.Random(seed) for seed in range(count)]


def test_items_fit_exactly_when_they_are_made_to():
    for rng in rngs(300):
        goal = pages.make_goal(rng)
        assert pages.fits(goal, pages.make_item(rng, goal, True))
        assert not pages.fits(goal, pages.make_item(rng, goal, False))


def test_pages_have_the_environments_wording():
    env = webshop.make(webshop.Config(train_tasks=20))
    for task in env.tasks("train"):
        game = env.game()
        start = game.reset(task)
        goal = pages.ShoppingGoal(
            noun="", attributes=("", ""), options=(), price_bound=None, text=task.goal
        )
        assert start == pages.start_page(goal)
        for number, action in enumerate(("search[towel]", "click[next >]"), start=1):
            observation = game.step(action).observation
            total = int(observation.split("Total results: ")[1].split(")")[0])
            assert observation.startswith(pages.results_head(goal, number, total))
        asin = observation.split(" [SEP] ")[6 if "< Prev" in observation else 5]
        item_page = game.step(f"click[{asin.lower()}]").observation
        product = next(p for p in env.dataset.products if p.asin == asin)
        item = pages.Item(asin=asin, title=product.title, words=("", "", ""), price=0, high=None)
        expected = pages.item_page(goal, item, product.options)
        assert item_page == expected.replace("$0.0", product.price_text)


@pytest.mark.parametrize("kind", ["options", "keywords"])
def test_the_last_segment_is_the_answer_and_is_learned(kind):
    for rng in rngs(30):
        *_, role, answer = getattr(exercises, kind)(rng)
        assert answer.loss_weight == 1.0 and answer.text.endswith(END)
        assert role == Segment(ASSISTANT)


def test_which_names_the_first_fitting_item_of_the_last_page():
    for rng in rngs(50):
        *before, answer = exercises.which(rng, 2)
        named = answer.text.removesuffix(END)
        page = before[-2].text
        assert named == "none" or f"[SEP] {named.upper()} [SEP]" in page


def test_auxiliary_labels_say_what_a_reader_knows_at_their_position():
    for rng in rngs(50):
        goal = pages.make_goal(rng)
        items = pages.make_items(rng, goal, 0.7)
        page = pages.results_message(goal, 2, items, rng.choice(("", "which?")))
        labels = iter(page.labels)
        first_fitting = "no"
        for item in items:
            for word in item.title.split():
                label = next(labels)
                assert page.text[: label.index + 1].endswith(word)
                assert (label.text == "yes") == (word.lower() in (*goal.attributes, goal.noun))
            price, verdict, first = next(labels), next(labels), next(labels)
            assert page.text[price.index] == str(item.price)[0]
            affordable = goal.price_bound is None or item.price <= goal.price_bound
            assert (price.text == "yes") == affordable
            assert page.text[: verdict.index + 1].endswith(item.price_text)
            assert verdict.text == (item.asin.lower() if pages.fits(goal, item) else "no")
            assert page.text[first.index] in "[|"  # a separator, or the end of the message
            first_fitting = verdict.text if first_fitting == "no" else first_fitting
            assert first.text == first_fitting
        assert next(labels, None) is None


def test_walks_take_legal_actions():
    for rng in rngs(50):
        page = ""
        for segment in walk(rng, 9):
            if segment.text.startswith(USER):
                page = segment.text.lower()
            elif segment.loss_weight:
                verb, _, rest = segment.text.removesuffix(END).rstrip("]").partition("[")
                words = [rest] if verb == "click" else rest.split()
                assert all(word in page.replace(",", " ").replace(":", " ") for word in words)


def test_exercises_depend_on_the_generator_alone():
    first, again = (exercises.sample(random.Random(5), ["a", "b"], True, 0.1) for _ in range(2))
    assert first == again
