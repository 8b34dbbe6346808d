"""Reading tokenizer folders: a round trip, templates as transformers renders them, damage."""

import json

import pytest
import tokenizers
import transformers
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from eef_jax.errors import DataError
from eef_jax.text import tokenizer as tokenizer_lib
from eef_jax.text.tokenizer import Tokenizer, without_surrogates
from tests.properties import TEXTS, holds
from tests.text import toys

TEXT = "you see a red door, click[buy now] — 42"


@pytest.fixture
def folder(tmp_path):
    toys.tokenizer(toys.CHATML)._backend.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_loads_and_round_trips(folder):
    loaded = tokenizer_lib.load(folder)
    assert loaded.encode(TEXT) == toys.tokenizer().encode(TEXT)
    assert loaded.decode(loaded.encode(TEXT)) == TEXT
    assert loaded.eos_id in loaded.special


def test_the_template_file_comes_before_the_config(folder):
    by_config = tokenizer_lib.load(folder).fingerprint
    (folder / "chat_template.jinja").write_text(toys.NANO)
    loaded = tokenizer_lib.load(folder)
    assert loaded.template([{"role": "user", "content": "x"}], generate=False) == "<|user|>x<|end|>"
    assert loaded.fingerprint != by_config


def test_a_date_is_the_same_every_day():
    written = toys.tokenizer("{{ strftime_now('%d %b %Y') }}").template(
        [{"role": "user", "content": "x"}], generate=False
    )
    assert written == "1 Jan 2025"


def test_no_tools_are_none_as_in_transformers():
    template = "{{ 'none' if tools is none else 'some' }}"
    said = [{"role": "user", "content": "x"}]
    assert toys.tokenizer(template).template(said, generate=False) == "none"


@pytest.mark.parametrize(
    ("text", "same"), [("a\ud83d b", "a\ufffd b"), ("\ude00\ud83d\ude00", "\ufffd\U0001f600")]
)
def test_half_an_emoji_is_a_replacement_character(text, same):
    tokenizer = toys.tokenizer()
    assert tokenizer.encode(text) == tokenizer.encode(same)
    assert tokenizer.decode(tokenizer.encode(text)) == same


def test_spaces_before_punctuation_are_kept():
    tokenizer = toys.tokenizer()
    assert tokenizer.decode(tokenizer.encode("go left . now , ok")) == "go left . now , ok"


@pytest.mark.parametrize(("named", "stops"), [(7, (7,)), ([7, 2], (7, 2)), (None, ())])
def test_stop_tokens_come_from_the_generation_config(folder, named, stops):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    assert tokenizer_lib.load(folder).stop_ids == stops


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("tokenizer_config.json", "{", "cannot be read as a tokenizer"),
        ("chat_template.jinja", None, "no chat template"),
        ("generation_config.json", '{"eos_token_id": [1, 99999]}', "stop token 99999"),
        ("generation_config.json", "{", "generation_config.json"),
        ("tokenizer.json", None, "cannot be read as a tokenizer"),
        ("tokenizer.json", "{}", "cannot be read as a tokenizer"),
    ],
)
def test_damaged_folders_are_named(folder, file, content, what):
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(DataError, match=what) as raised:
        tokenizer_lib.load(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_git_lfs_pointer_is_no_damaged_tokenizer(folder, name):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(DataError, match=rf"{name} is a git-lfs pointer.*git lfs pull"):
        tokenizer_lib.load(folder)


def test_a_folder_that_is_missing_is_not_looked_for_elsewhere(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        tokenizer_lib.load(tmp_path / "org" / "name")


def whole_words(model):
    """A vocabulary of whole texts, special tokens among them."""
    names = ["<unk>", *toys._SPECIAL, *map(chr, range(32, 127))]
    ids = {name: i for i, name in enumerate(names)}
    made = {
        "word level": lambda: models.WordLevel(ids, unk_token="<unk>"),
        "unigram": lambda: models.Unigram([(name, -1.0) for name in names], unk_id=0),
        "bpe": lambda: models.BPE(ids, [], unk_token="<unk>", ignore_merges=True),
    }[model]()
    backend = tokenizers.Tokenizer(made)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if model != "unigram" else None
    backend.decoder = decoders.Fuse()
    return Tokenizer(
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend,
            chat_template=toys.NANO,
            eos_token="<|end|>",
            unk_token="<unk>",
            additional_special_tokens=[t for t in toys._SPECIAL if t != "<|end|>"],
        )
    )


TOKENIZERS = {
    **{name: whole_words(name) for name in ("word level", "unigram", "bpe")},
    "byte-level": toys.tokenizer(),
}


@pytest.mark.parametrize("name", ["word level", "unigram", "bpe"])
def test_special_tokens_that_are_words_stay_text(name):
    tokenizer = TOKENIZERS[name]
    text = "x <|end|> </s> <|end|>"
    assert tokenizer.special.keys() & tokenizer.find(text, special=False)
    assert not tokenizer.special.keys() & tokenizer.encode(text)
    assert tokenizer.special.keys() & tokenizer.encode(text, special=True)


@holds(
    st.sampled_from(sorted(TOKENIZERS)),
    st.lists(st.sampled_from(toys._SPECIAL) | TEXTS | st.just(" "), max_size=6).map("".join),
    few=100,
)
def test_no_text_is_a_special_token(name, text):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text)
    assert not tokenizer.special.keys() & ids
    if name == "byte-level":
        assert tokenizer.decode(ids) == without_surrogates(text)
