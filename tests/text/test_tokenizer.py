"""Reading tokenizer folders: a round trip, the parity with transformers, and damaged folders."""

import json

import pytest

from eef_jax.errors import DataError
from eef_jax.text import tokenizer as tokenizer_lib
from tests.text import toys

TEXT = "you see a red door, click[buy now] — 42"


@pytest.fixture
def folder(tmp_path):
    toys.tokenizer()._backend.save(str(tmp_path / "tokenizer.json"))
    config = {
        "eos_token": {"__type": "AddedToken", "content": "<|end|>"},
        "chat_template": toys.CHATML,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_folder_loads_and_round_trips(folder):
    loaded = tokenizer_lib.load(folder)
    assert loaded.encode(TEXT) == toys.tokenizer().encode(TEXT)
    assert loaded.decode(loaded.encode(TEXT)) == TEXT
    assert loaded.eos_id in loaded.special_ids


def test_the_template_file_comes_before_the_config(folder):
    by_config = tokenizer_lib.load(folder).fingerprint
    (folder / "chat_template.jinja").write_text(toys.NANO)
    loaded = tokenizer_lib.load(folder)
    assert loaded.template([{"role": "user", "content": "x"}], generate=False) == "<|user|>x<|end|>"
    assert loaded.fingerprint != by_config


def test_blocks_of_hugging_face_templates_render(folder):
    marked = (
        "{% for m in messages %}{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}"
    )
    (folder / "chat_template.jinja").write_text(marked)
    assert (
        tokenizer_lib.load(folder).template([{"role": "user", "content": "x"}], generate=True)
        == "x"
    )


def test_ids_equal_those_of_transformers(folder):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    messages = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "go left"}]
    ours = tokenizer_lib.load(folder)
    rendered = ours.template(messages, generate=True)
    assert rendered == theirs.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    assert list(ours.encode(rendered, special=True)) == theirs.encode(rendered)


@pytest.mark.parametrize(("named", "stops"), [(7, (7,)), ([7, 2], (7, 2)), (None, ())])
def test_stop_tokens_come_from_the_generation_config(folder, named, stops):
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": named}))
    assert tokenizer_lib.load(folder).stop_ids == stops


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("tokenizer_config.json", None, "tokenizer_config.json"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
        ("tokenizer_config.json", "{}", "no chat template"),
        ("generation_config.json", '{"eos_token_id": [1, 99999]}', "stop token 99999"),
        ("generation_config.json", "{", "generation_config.json"),
        ("tokenizer.json", None, "is missing"),
        ("tokenizer.json", "{}", "cannot be read"),
    ],
)
def test_damaged_folders_are_named(folder, file, content, what):
    (folder / file).unlink(missing_ok=True)
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(DataError, match=what):
        tokenizer_lib.load(folder)
