"""Conversations and episodes under a real chat model's tokenizer, against transformers.

`EEF_SMOLLM2` names the folder of SmolLM2-135M-Instruct; without it the tests are skipped.
"""

import os
import pathlib

import pytest
import transformers

from eef_jax import config as config_lib
from eef_jax.data.encode import encode
from eef_jax.rollout import loop, play
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import Message, Selection
from tests import toybase
from tests.text import shapes

CONVERSATION = (
    *(Message(role=role, content=content) for role, content in shapes.CONVERSATION),
    Message(
        role="assistant", content="I don't know… [buy now]\n\n    it's 3,50€ — naïve 日本語 🙂"
    ),
    Message(role="user", content="<b>Résumé</b>\r\n\tdef f(x): return x**2  # 12345"),
)
SYSTEM = (Message(role="system", content="Answer in one line."),)


@pytest.fixture(scope="module")
def folder():
    folder = os.environ.get("EEF_SMOLLM2", "")
    if not pathlib.Path(folder, "tokenizer.json").is_file():
        pytest.skip(
            "EEF_SMOLLM2 names no folder of SmolLM2-135M-Instruct: tests/parity/gguf_to_hf.py"
        )
    return folder


@pytest.fixture(scope="module")
def chat(folder):
    return ChatTokenizer.load(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    """The ids that transformers gives for messages, with the generation prompt or without."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def ids(messages, *, generate):
        said = [{"role": m.role, "content": m.content} for m in messages]
        return tokenizer.apply_chat_template(
            said, add_generation_prompt=generate, return_dict=False
        )

    return ids


@pytest.fixture(scope="module")
def episodes():
    """Played episodes of the shop that ships: the expert's, with their prompts."""
    config = toybase.config("", ("env.prompt", "react"))
    env = config_lib.make("env", config.env)
    expert = config_lib.make("expert", config.expert, env=env)
    tasks = env.tasks("train")
    played = loop.play_episodes_sync(env, expert, play.from_start(tasks, 8, prefix="x"), label="")
    assert sum(len(t.steps) for t in played) > 10
    return [(tuple(env.prompt(t.task)), t) for t in played]


def conversation(prompt, trajectory):
    steps = trajectory.steps
    return (
        *prompt,
        *(
            Message(role=role, content=content)
            for step in steps
            for role, content in (("user", step.observation), ("assistant", step.message))
        ),
    )


def check_whole(ids, whole):
    """Ids end with the last turn, after which the template writes a line's end."""
    assert ids.tolist() == whole[: len(ids)] and len(whole) == len(ids) + 1


@pytest.mark.parametrize("system", [(), SYSTEM])
def test_every_turn_of_a_conversation_has_the_ids_of_apply_chat_template(chat, theirs, system):
    messages = (*system, *CONVERSATION)
    for turn in range(len(system) + 1, len(messages) + 1, 2):
        assert chat.prompt(messages[:turn]).tolist() == theirs(messages[:turn], generate=True)
    check_whole(chat.example(messages[:-1])[0], theirs(messages[:-1], generate=False))


def test_every_turn_of_an_episode_has_the_ids_of_apply_chat_template(chat, theirs, episodes):
    for prompt, trajectory in episodes:
        messages = conversation(prompt, trajectory)
        for turn in range(len(prompt) + 1, len(messages), 2):
            assert chat.prompt(messages[:turn]).tolist() == theirs(messages[:turn], generate=True)


def test_sampled_turns_are_appended_as_apply_chat_template_would(chat, theirs, episodes):
    for prompt, trajectory in episodes:
        messages = conversation(prompt, trajectory)
        ids, speaker = chat.example(messages)
        sampled = [tuple(ids[speaker == index].tolist()) for index in range(len(messages))]
        for turn in range(len(prompt) + 1, len(messages), 2):
            grown = chat.prompt(messages[:turn], sampled[:turn]).tolist()
            assert grown == theirs(messages[:turn], generate=True)


def test_an_example_is_the_conversation_of_apply_chat_template(chat, theirs, episodes):
    for prompt, trajectory in episodes:
        count = len(trajectory.steps)
        selection = Selection(
            trajectory=trajectory, weights=(1.0,) * count, reasons=("",) * count, role="expert"
        )
        example = encode(selection, prompt, chat)
        check_whole(example.tokens, theirs(conversation(prompt, trajectory), generate=False))
        learned = example.tokens[example.weights > 0].tolist()
        assert learned.count(chat.stop_ids[0]) == count
