import pytest

from eef_jax.envs import webshop
from eef_jax.experts import webshop as expert
from eef_jax.rollout import loop
from eef_jax.types import Episode, Message

LUCKY = [0.99] * 6  # no weakness shows
PROFILE = expert.Config()
INSTRUCTION = (
    "find me quick-fit, soft-touch towel with color: red, and size: large, and price lower than "
    "40.00 dollars"
)
START = f"WebShop [SEP] Instruction: [SEP] {INSTRUCTION} [SEP] Search"
HEAD = f"Instruction: [SEP] {INSTRUCTION} [SEP] Back to Search [SEP] "
MISS = (
    f"{HEAD}Page 1 (Total results: 2) [SEP] Next > [SEP] B0001 [SEP] Ulmo Quick-Fit Soft-Grip Towel"
    " [SEP] $12.0"
)
HIT = MISS + " [SEP] B0002 [SEP] Ulmo Soft-Touch Quick-Fit Towel [SEP] $39.0"
ITEM = (
    f"{HEAD}< Prev [SEP] color [SEP] red [SEP] teal [SEP] size [SEP] large [SEP] Ulmo [SEP] Buy Now"
)


def talk(*pages_and_actions):
    roles = ("user", "assistant")
    return [Message(role=roles[i % 2], content=text) for i, text in enumerate(pages_and_actions)]


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
    ("conversation", "action"),
    [
        ((START,), "search[quick-fit soft-touch towel]"),
        ((START, "search[x]", HIT), "click[b0002]"),
        ((START, "search[x]", MISS), "click[next >]"),
        ((START, "search[x]", HIT, "click[b0002]", ITEM), "click[red]"),
        ((START, "search[x]", HIT, "click[b0002]", ITEM, "click[red]", ITEM), "click[large]"),
    ],
)
def test_does_the_sensible_thing_on_each_page(conversation, action):
    assert expert.next_action(talk(*conversation), PROFILE, LUCKY) == action


def test_buys_when_all_options_are_chosen():
    conversation = (START, "search[x]", HIT, "click[b0002]", ITEM, "click[red]", ITEM)
    done = talk(*conversation, "click[large]", ITEM)
    assert expert.next_action(done, PROFILE, LUCKY) == "click[buy now]"


def test_a_second_results_page_costs_it_the_last_option():
    turned = (
        START,
        "search[x]",
        MISS,
        "click[next >]",
        HIT,
        "click[b0002]",
        ITEM,
        "click[red]",
        ITEM,
    )
    assert expert.next_action(talk(*turned), PROFILE, LUCKY) == "click[buy now]"


def test_price_above_the_bound_is_passed_over():
    dear = HIT.replace("$39.0", "$41.0")
    assert expert.next_action(talk(START, "search[x]", dear), PROFILE, LUCKY) == "click[next >]"


@pytest.fixture(scope="module")
def played():
    env = webshop.make(webshop.Config())
    tasks = env.tasks("train")
    policy = expert.make(expert.Config(), env=env)
    episodes = [Episode(id=task.id, task=task, round=0, attempt=0, max_steps=12) for task in tasks]
    return loop.play_episodes_sync(env, policy, episodes, source="expert", progress=False)


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
