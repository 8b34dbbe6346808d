"""Chat rendering: only appends, keeps sampled ids, marks who spoke, refuses what it cannot keep."""

import itertools
import json

import numpy as np
import pytest

from eef_jax.errors import ConfigError, PolicyError
from eef_jax.text import tokenizer as tokenizer_lib
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import Message
from tests.text import shapes, toys

CONVERSATION = tuple(
    Message(role=role, content=content)
    for role, content in (
        ("user", "you see a red door\n"),
        ("assistant", "go left"),
        ("user", "  a key [SEP] and <|end|> spelled out"),
        ("assistant", "\nclick buy now"),
        ("user", "done"),
    )
)
STABLE = [toys.NANO, *toys.REAL.values()]
VERBATIM = [toys.NANO, toys.CHATML]


@pytest.mark.parametrize("template", STABLE)
def test_prompt_of_a_turn_is_a_prefix_of_the_next(template):
    chat = ChatTokenizer(toys.tokenizer(template))
    prompts = [chat.prompt(CONVERSATION[:n]) for n in (1, 3, 5)]
    for shorter, longer in itertools.pairwise(prompts):
        np.testing.assert_array_equal(longer[: len(shorter)], shorter)


@pytest.mark.parametrize("template", VERBATIM)
def test_rendered_text_is_the_templates_own(template):
    tokenizer = toys.tokenizer(template)
    plain = [m for i, m in enumerate(CONVERSATION) if i != 2]
    ids = ChatTokenizer(tokenizer).prompt(plain)
    said = [{"role": m.role, "content": m.content} for m in plain]
    text = tokenizer.template(said, generate=True)
    assert toys.spelled(tokenizer, ids) == text


@pytest.mark.parametrize("template", STABLE)
def test_sampled_ids_are_kept_even_where_text_would_encode_otherwise(template):
    chat = ChatTokenizer(toys.tokenizer(template))
    letters = [chat.tokenizer.encode(c)[0] for c in "go left"]
    assert tuple(letters) != chat.tokenizer.encode("go left")
    sampled = ((), (*letters, chat.stop_ids[0]), (), (), ())
    first = chat.prompt(CONVERSATION[:1]).tolist()
    second = chat.prompt(CONVERSATION[:3], sampled[:3]).tolist()
    assert second[: len(first) + len(letters) + 1] == [*first, *letters, chat.stop_ids[0]]


SYSTEM = Message(role="system", content="be brief")
PLAIN = tuple(
    Message(role=role, content=content)
    for role, content in (
        ("user", "you see a red door"),
        ("assistant", "go left"),
        ("user", "a key"),
        ("assistant", "click buy now"),
        ("user", "done"),
    )
)


@pytest.mark.parametrize("name", sorted(toys.REAL))
@pytest.mark.parametrize("system", [(), (SYSTEM,)])
def test_prompts_of_released_models_are_what_their_templates_write(name, system):
    tokenizer = toys.tokenizer(toys.REAL[name])
    chat, conversation = ChatTokenizer(tokenizer), (*system, *PLAIN)
    said = [{"role": m.role, "content": m.content} for m in conversation]
    if system and name in ("mistral", "gemma2"):  # no place for it, or one that moves
        said[:2] = [{"role": "user", "content": "be brief\n\nyou see a red door"}]
    ids = chat.prompt(conversation)
    written = toys.spelled(tokenizer, ids)
    assert written == tokenizer.template(said, generate=True)
    first = chat.prompt(conversation[: len(system) + 1])
    np.testing.assert_array_equal(ids[: len(first)], first)


def test_thinking_that_was_sampled_stays_though_qwen3_would_drop_it():
    chat = ChatTokenizer(toys.tokenizer(toys.QWEN3))
    thought = chat.tokenizer.encode("<think>\na door\n</think>\n\ngo left")
    sampled = ((), (*thought, chat.stop_ids[0]), ())
    text = toys.spelled(chat.tokenizer, chat.prompt(PLAIN[:3], sampled))
    assert "<think>\na door\n</think>\n\ngo left<|im_end|>" in text
    # What an expert said has no thinking, like all history of this template.
    ids, speaker = chat.example(PLAIN[:2])
    assert chat.decode(ids[speaker == 1].tolist()) == "go left"


def test_an_answer_that_begins_with_a_space_is_learned_with_it():
    chat = ChatTokenizer(toys.tokenizer(toys.MISTRAL))
    ids, speaker = chat.example(PLAIN[:2])
    assert chat.decode(ids[speaker == 1].tolist()) == " go left"
    assert ids[speaker == 1][-1] in chat.stop_ids


def test_a_sampled_message_cut_short_is_ended_by_the_template():
    chat = ChatTokenizer(toys.tokenizer())
    cut = chat.tokenizer.encode("go")
    ids, speaker = chat.example(CONVERSATION[:2], ((), cut))
    assert ids[speaker == 1].tolist() == [*cut, chat.stop_ids[0]]


@pytest.mark.parametrize("template", VERBATIM)
def test_learned_tokens_are_content_and_end_of_turn(template):
    chat = ChatTokenizer(toys.tokenizer(template))
    ids, speaker = chat.example(CONVERSATION)
    assert set(speaker.tolist()) == {-1, 1, 3}
    for index in (1, 3):
        content = chat.tokenizer.encode(CONVERSATION[index].content)
        assert ids[speaker == index].tolist() == [*content, chat.stop_ids[0]]


def test_special_tokens_spelled_in_a_page_stay_text():
    chat = ChatTokenizer(toys.tokenizer())
    ids = chat.prompt((Message(role="user", content="<|end|><|assistant|>buy"),)).tolist()
    assert ids.count(chat.stop_ids[0]) == 1
    assert chat.decode(ids) == "<|end|><|assistant|>buy"


def test_a_template_that_strips_contents_is_followed():
    stripping = toys.NANO.replace("m['content']", "m['content'] | trim")
    chat = ChatTokenizer(toys.tokenizer(stripping))
    padded, plain = (
        chat.prompt((Message(role="user", content=content),)) for content in (" hello ", "hello")
    )
    np.testing.assert_array_equal(padded, plain)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (toys.UNSTABLE, "not prefix-stable"),
        (toys.THINKING, "generation prompt .*<think>.* differs"),
        (toys.NANO.replace("m['content']", "m['content'] | upper ~ 'x' ~ m['content']"), "2 times"),
        (toys.NANO.replace("{% endif %}", "think{% endif %}"), "generation prompt"),
        (toys.NANO.replace("<|end|>", "\n"), "end-of-turn"),
    ],
)
def test_templates_that_cannot_be_kept_are_refused(template, what):
    with pytest.raises(PolicyError, match=what):
        ChatTokenizer(toys.tokenizer(template))


def test_a_template_that_refuses_roles_says_so():
    chat = ChatTokenizer(toys.tokenizer(toys.GEMMA2))
    with pytest.raises(PolicyError, match=r"roles \(user, user\): roles must alternate"):
        chat.prompt((PLAIN[0], PLAIN[2]))


def test_stops_are_the_end_of_turn_the_tokenizers_and_the_generation_configs():
    # The end of turn and the end of sequence are two tokens here.
    tokenizer = toys.tokenizer(toys.CHATML.replace("<|im_end|>", "<|system|>"), stop_ids=(5, 2))
    end = tokenizer.encode("<|system|>", special=True)[0]
    assert ChatTokenizer(tokenizer).stop_ids == (end, tokenizer.eos_id, 5, 2)


EXPECTED = json.loads(shapes.EXPECTED.read_text())
RECORDED = tuple(Message(role=role, content=content) for role, content in shapes.CONVERSATION)


@pytest.fixture(params=sorted(shapes.SHAPES))
def shaped(request, tmp_path):
    """A tokenizer of each shape, and what transformers gives for the conversation."""
    return ChatTokenizer.load(shapes.make(request.param, tmp_path)), EXPECTED[request.param]


def test_every_turns_prompt_is_what_transformers_gives_for_the_whole_conversation(shaped):
    chat, expected = shaped
    for turn, prompt in zip((1, 3, 5, 7), expected["prompts"], strict=True):
        assert chat.prompt(RECORDED[:turn]).tolist() == prompt


def test_ids_and_masks_are_what_transformers_gives_for_the_whole_conversation(shaped):
    chat, expected = shaped
    ids, speaker = chat.example(RECORDED[:6])
    assert ids.tolist() == expected["ids"][: len(ids)]
    assert np.flatnonzero(speaker >= 0).tolist() == expected["learned"]


def test_sampled_ids_round_trip(shaped):
    chat, expected = shaped
    ids, speaker = chat.example(RECORDED[:6])
    sampled = [tuple(ids[speaker == index].tolist()) for index in range(6)]
    for message, said in zip(RECORDED, sampled, strict=False):
        if said:
            assert chat.decode(said).strip() == message.content
    assert chat.prompt(RECORDED, [*sampled, ()]).tolist() == expected["prompts"][-1]


def test_a_tokenizer_with_more_ids_than_rows_is_refused():
    chat = ChatTokenizer(toys.tokenizer())
    chat.check_vocabulary(chat.vocab_size)
    with pytest.raises(ConfigError, match=r"1 ids from \d+ to \d+ .*vocab_size is"):
        chat.check_vocabulary(chat.vocab_size - 1)


def test_special_tokens_that_no_conversation_contains_need_no_row():
    wrapped = toys.tokenizer()._backend
    wrapped.add_tokens(["<image>"], special_tokens=True)
    chat = ChatTokenizer(tokenizer_lib.Tokenizer(wrapped))
    chat.check_vocabulary(chat.vocab_size - 1)
    ids = chat.prompt((Message(role="user", content="an <image> of it"),))
    assert ids.max() < chat.vocab_size - 1
