import asyncio
import dataclasses

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop.pages import PageKind
from eef_jax.envs.webshop.prompts import PRESETS
from eef_jax.envs.webshop.views import View
from eef_jax.errors import ConfigError
from eef_jax.experts import webshop as expert
from eef_jax.experts._shopper import Listing, PageView
from eef_jax.rollout import loop
from eef_jax.types import Episode, Outcome
from tests.toygame import Corridor

LUCKY = [0.99] * 6  # no weakness shows
PROFILE = expert.Config()
INSTRUCTION = (
    "find me quick-fit, soft-touch towel with color: red, and size: large, and price lower than "
    "40.00 dollars"
)
START = PageView(
    kind=PageKind.INDEX,
    instruction=INSTRUCTION,
    names=frozenset({"search"}),
    results=(),
    options=(),
    texts=(),
)
MISS = dataclasses.replace(
    START, kind=PageKind.RESULTS, results=(Listing("b0001", "Ulmo Quick-Fit Soft-Grip Towel", 12),)
)
FOUND = Listing("b0002", "Ulmo Soft-Touch Quick-Fit Towel", 39)
HIT = dataclasses.replace(MISS, results=(*MISS.results, FOUND))
ITEM = dataclasses.replace(
    START, kind=PageKind.ITEM, names=frozenset({"red", "teal", "large", "buy now", "< prev"})
)
SEARCH, NEXT, OPEN = ("search", "x"), ("click", "next >"), ("click", "b0002")
RED, LARGE = ("click", "red"), ("click", "large")


def move(page, *said):
    return expert.next_move(page, said, PROFILE, LUCKY).action


def test_reads_an_instruction():
    wish = expert.parse_instruction(INSTRUCTION)
    assert wish.words == ("quick-fit", "soft-touch", "towel")
    assert wish.options == (("color", "red"), ("size", "large"))
    assert wish.upper == 40.0


def test_reads_free_text_of_real_goals():
    wish = expert.parse_instruction("Find me machine wash men's dress shirts with cotton spandex")
    assert wish.options == () and wish.upper is None
    assert {"machine", "wash", "men's", "cotton"} <= set(wish.words)


@pytest.mark.parametrize(
    ("page", "said", "action"),
    [
        (START, (), "search[quick-fit soft-touch towel]"),
        (START, (SEARCH,), "search[quick-fit soft-touch towel red large]"),
        (HIT, (SEARCH,), "click[b0002]"),
        (MISS, (SEARCH,), "click[next >]"),
        (ITEM, (SEARCH, OPEN), "click[red]"),
        (ITEM, (SEARCH, OPEN, RED), "click[large]"),
        (ITEM, (SEARCH, OPEN, RED, LARGE), "click[buy now]"),
        (dataclasses.replace(ITEM, kind=PageKind.SUB), (SEARCH, OPEN), "click[< prev]"),
    ],
)
def test_does_the_sensible_thing_on_each_page(page, said, action):
    assert move(page, *said) == action


def test_a_second_results_page_costs_it_the_last_option():
    assert move(ITEM, SEARCH, NEXT, OPEN, RED) == "click[buy now]"


def test_price_above_the_bound_is_passed_over():
    dear = dataclasses.replace(HIT, results=(*MISS.results, FOUND._replace(price=41)))
    assert move(dear, SEARCH) == "click[next >]"


def play(tasks=None, **settings):
    env = webshop.make(webshop.Config(**settings))
    tasks = env.tasks("train")[:tasks]
    policy = expert.make(expert.Config(), env=env)
    episodes = [Episode(id=task.id, task=task, round=0, attempt=0, max_steps=12) for task in tasks]
    return loop.play_episodes_sync(env, policy, episodes, source="expert", progress=False)


@pytest.fixture(scope="module")
def played():
    return play()


SETTINGS = [
    *(
        {"prompt": prompt, "observation_mode": view}
        for prompt in PRESETS
        for view in map(str, View)
    ),
    {"num_prev_obs": 2, "num_prev_actions": 3},
    {"num_prev_obs": 1, "prompt": "admissible", "observation_mode": "text_rich"},
    {"show_attributes": True},
]


@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values()))
)
def test_acts_alike_with_every_prompt_and_view(settings, played):
    trajectories = play(40, **settings)
    assert all(t.outcome.completed for t in trajectories)
    assert {t.outcome for t in trajectories} >= {Outcome.WON, Outcome.FAILED}
    for trajectory, usual in zip(trajectories, played, strict=False):
        assert [step.action for step in trajectory.steps] == [step.action for step in usual.steps]


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [("react", "Thought: I search"), ("admissible", "<think>I search"), ("action", "search[")],
)
def test_thinks_where_the_prompt_has_thoughts(prompt, begins):
    for trajectory in play(5, prompt=prompt):
        assert trajectory.steps[0].message.startswith(begins)


def test_plays_with_a_prompt_from_a_file(tmp_path, played):
    path = tmp_path / "prompt.json"
    path.write_text('{"messages": [], "thought": "", "marker": "Do: "}')
    (trajectory,) = play(1, prompt=str(path))
    assert trajectory.steps[0].message == f"Do: {played[0].steps[0].action}"


def test_another_environment_is_refused():
    with pytest.raises(ConfigError, match=r"plays webshop only, and env\.name is corridor"):
        expert.make(PROFILE, env=Corridor())


def test_goes_on_from_a_state_that_another_agent_reached(played):
    parent = next(t for t in played if len(t.steps) > 4)
    env = webshop.make(webshop.Config())
    fork = Episode(
        id="fork", task=parent.task, round=0, attempt=0, max_steps=12, parent=parent, fork_step=3
    )
    policy = expert.make(PROFILE, env=env)
    (trajectory,) = loop.play_episodes_sync(env, policy, [fork], source="expert", progress=False)
    assert trajectory.steps[3:] == parent.steps[3:]
    asyncio.run(policy.close())


def test_wins_the_easy_tasks_and_few_hard_ones(played):
    wins = [t for t in played if t.win]
    hard = [t for t in played if "hard" in t.task.tags]
    assert 0.30 <= len(wins) / len(played) <= 0.45
    assert sum(t.win for t in hard) / len(hard) <= 0.05
    assert sum(t.win for t in played if "easy" in t.task.tags) / (len(played) - len(hard)) >= 0.7


def test_most_failures_on_hard_tasks_got_past_the_first_page(played):
    failed = [t for t in played if not t.win and "hard" in t.task.tags]
    turned = [t for t in failed if any(step.action == "click[next >]" for step in t.steps)]
    assert len(turned) >= 0.9 * len(failed)


def test_never_names_the_target_before_it_was_shown(played):
    for trajectory in played:
        seen = ""
        for step in trajectory.steps:
            seen += step.observation.lower()
            name = (step.action or "")[6:-1]
            if name.startswith("b") and name[1:].isdigit():
                assert name in seen
