import dataclasses

import pytest

from eef_jax.envs import webshop
from eef_jax.envs.webshop.prompts import PRESETS
from eef_jax.envs.webshop.views import View
from eef_jax.errors import ConfigError
from eef_jax.experts import webshop as hurried
from eef_jax.experts import webshop_careful as expert
from eef_jax.experts._wish import parse
from eef_jax.rollout import loop
from eef_jax.types import Episode, Outcome
from tests.experts import goldenshop
from tests.toygame import Corridor

PROFILE = expert.Config()
CAREFUL = expert.without_slips(PROFILE)


def play(profile=PROFILE, tasks=None, **settings):
    env = goldenshop.make(**settings)
    return goldenshop.play_all(env, expert.make(profile, env=env), tasks)


def slipping(**slips):
    return play(dataclasses.replace(CAREFUL, **slips))


def actions(trajectory):
    return [step.action for step in trajectory.steps]


def opened(trajectory):
    return [action for action in actions(trajectory) if action.startswith("click[b0syn")]


@pytest.fixture(scope="module")
def played():
    return play()


@pytest.fixture(scope="module")
def careful():
    return play(CAREFUL)


SETTINGS = [
    *(
        {"prompt": prompt, "observation_mode": view}
        for prompt in PRESETS
        for view in map(str, View)
    ),
    {"num_prev_obs": 2, "num_prev_actions": 3},
    {"show_attributes": True},
]


@pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values()))
)
def test_acts_alike_with_every_prompt_and_view(settings, played):
    for trajectory, usual in zip(play(tasks=20, max_steps=15, **settings), played, strict=False):
        assert actions(trajectory) == actions(usual)


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [("react", "Thought: I search for"), ("admissible", "<think>I search"), ("action", "search[")],
)
def test_thinks_where_the_prompt_has_thoughts(prompt, begins):
    for trajectory in play(tasks=3, prompt=prompt):
        assert trajectory.steps[0].message.startswith(begins)


def test_plays_the_embedded_catalogue_and_what_people_wrote():
    env = webshop.make(webshop.Config())
    trajectories = goldenshop.play_all(env, expert.make(PROFILE, env=env), 40)
    assert {t.outcome for t in trajectories} >= {Outcome.WON, Outcome.FAILED}
    written = goldenshop.golden.HUMAN
    assert all(t.outcome.completed for t in play(human_instructions=str(written)))


def test_another_environment_is_refused():
    with pytest.raises(ConfigError, match=r"plays webshop only, and env\.name is corridor"):
        expert.make(PROFILE, env=Corridor())


def test_does_all_that_a_shopper_does(played):
    done = {action for trajectory in played for action in actions(trajectory)}
    assert done >= {
        *("click[features]", "click[< prev]", "click[next >]"),
        *("click[back to search]", "click[buy now]"),
    }
    assert sum(len(opened(t)) > 1 for t in played) > len(played) / 2


def test_every_action_has_an_effect(played):
    assert all(step.info["valid"] for trajectory in played for step in trajectory.steps)


def test_never_names_a_product_before_it_was_shown(played):
    for trajectory in played:
        seen = ""
        for step in trajectory.steps:
            seen += step.observation.lower()
            if step.action in opened(trajectory):
                assert step.action[6:-1] in seen


def test_goals_that_read_alike_are_played_alike():
    env = goldenshop.make()
    task = env.tasks("train")[0]
    goals = list(env.dataset.goals)
    number = next(n for n, goal in enumerate(goals) if goal.instruction == task.goal)
    # Another target behind the same instruction: the reward may differ, the actions may not.
    goals[number] = dataclasses.replace(goals[number], asin="B0SYN00000", attributes=("x",))
    env.dataset = dataclasses.replace(env.dataset, goals=tuple(goals))
    (other,) = goldenshop.play_all(env, expert.make(PROFILE, env=env), 1)
    (usual,) = play(tasks=1)
    assert actions(other) == actions(usual)


def test_without_slips_it_wins_more(played, careful):
    assert sum(t.win for t in careful) >= 1.5 * sum(t.win for t in played)
    assert CAREFUL.looks == PROFILE.looks and CAREFUL != PROFILE


def test_without_slips_it_chooses_every_option_that_is_offered(careful):
    bought = [t for t in careful if actions(t)[-1] == "click[buy now]"]
    assert len(bought) > len(careful) / 2
    for trajectory in bought:
        last = max(
            n for n, action in enumerate(actions(trajectory)) if action in opened(trajectory)
        )
        since = trajectory.steps[last + 1 :]
        for _, value in parse(trajectory.task.goal).options:
            if any(f"[SEP] {value} [SEP]" in step.observation for step in since):
                assert f"click[{value}]" in [step.action for step in since]


def test_opens_no_more_of_a_page_than_it_has_looks_for():
    for trajectory in play(dataclasses.replace(CAREFUL, looks=1, pages=1)):
        first = [a for a in actions(trajectory)[1:] if a != "click[features]"]
        assert len(opened(trajectory)) < 2 or opened(trajectory)[1] not in first[:2]


def test_in_a_hurry_it_leaves_its_first_results_after_one_product(careful):
    left = {"click[back to search]", "click[next >]"}
    found = 0
    for trajectory, usual in zip(slipping(hurry=1.0), careful, strict=True):
        if actions(trajectory) != actions(usual):
            end = next(n for n, action in enumerate(actions(trajectory)) if action in left)
            assert sum(action in opened(trajectory) for action in actions(trajectory)[:end]) == 1
            found += 1
    assert found > len(careful) / 4


def test_forgets_the_more_options_the_more_it_has_opened():
    always = slipping(forget=1.0)
    wanted = {
        # One product has an option with the name of a button.
        t.task.id: {f"click[{v}]" for _, v in parse(t.task.goal).options if v != "features"}
        for t in always
    }
    assert not any(wanted[t.task.id] & set(actions(t)) for t in always)

    def share(trajectories, few):
        counts = [
            len(wanted[t.task.id] & set(actions(t))) / len(wanted[t.task.id])
            for t in trajectories
            if wanted[t.task.id] and (len(set(opened(t))) == 1) is few
        ]
        return sum(counts) / len(counts)

    sometimes = [t for seed in range(4) for t in slipping(forget=0.4, seed=seed)]
    assert share(sometimes, few=True) > share(sometimes, few=False)


def test_in_doubt_it_walks_away_from_what_fits_but_not_from_its_first(careful):
    doubting = slipping(doubt=1.0)
    assert sum(len(t.steps) for t in doubting) > sum(len(t.steps) for t in careful)
    for trajectory, usual in zip(doubting, careful, strict=True):
        if len(set(opened(usual))) == 1:
            assert actions(trajectory) == actions(usual)


def test_settles_in_time_for_the_best_that_it_has_opened():
    doubting = slipping(doubt=1.0)
    assert sum(t.outcome is Outcome.MAX_STEPS for t in doubting) < len(doubting) / 10
    early = play(dataclasses.replace(CAREFUL, doubt=1.0, reserve=10))
    assert sum(len(t.steps) for t in early) < sum(len(t.steps) for t in doubting)
    for trajectory in doubting:  # once it has gone back to a product, it buys that
        again = [
            action
            for n, action in enumerate(opened(trajectory))
            if action in opened(trajectory)[:n]
        ]
        assert len(again) <= 1


def test_from_another_shoppers_state_it_repeats_neither_searches_nor_products():
    env = goldenshop.make()
    other = goldenshop.play_all(env, hurried.make(hurried.Config(), env=env))
    parents = [t for t in other if len(t.steps) > 4 and opened(t)]
    forks = [
        Episode(
            id=f"fork/{t.id}", task=t.task, round=0, attempt=0, max_steps=15, parent=t, fork_step=4
        )
        for t in parents
    ]
    policy = expert.make(CAREFUL, env=env)
    ours = loop.play_episodes_sync(env, policy, forks, source="expert", progress=False)
    assert ours
    for parent, fork in zip(parents, ours, strict=True):
        before = actions(parent)[:4]
        assert fork.outcome.completed and actions(fork)[:4] == before
        assert not [a for a in actions(fork)[4:] if a.startswith("search[") and a in before]
