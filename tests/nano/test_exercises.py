import random

import pytest

from eef_jax.envs import webshop
from eef_jax.nano import exercises


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


@pytest.mark.parametrize("kind", ["judge", "options", "keywords"])
def test_questions_are_answered_last_and_learned(kind):
    for rng in rngs(30):
        pieces = getattr(exercises, kind)(rng)
        assert pieces[-1][1] == 1.0 and pieces[-1][0].endswith(exercises.END)
        assert pieces[-2] == (exercises.ASSISTANT, 0.0)


def test_which_names_the_first_fitting_item_of_the_last_page():
    for rng in rngs(50):
        *before, answer = exercises.which(rng, 2)
        said = answer[0].removesuffix(exercises.END)
        page = before[-2][0]
        assert said == "none" or f"[SEP] {said.upper()} [SEP]" in page


def test_draws_depend_on_the_generator_alone():
    assert exercises.draw(random.Random(5), ["a", "b"], True, 0.1) == exercises.draw(
        random.Random(5), ["a", "b"], True, 0.1
    )
