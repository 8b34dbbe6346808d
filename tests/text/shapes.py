"""Tokenizer folders of the shapes that released models have, made on the spot, and expected ids.

`python -m tests.text.shapes` records, with transformers alone, what it gives for one conversation:
`expected_ids.json`. The vocabularies are made by hand, so that no trainer's version changes them.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers

from tests.text import toys

EXPECTED = Path(__file__).with_name("expected_ids.json")
CONVERSATION = (
    ("user", "you see a red door\n"),
    ("assistant", "go left"),
    ("user", "  a key — [buy now] costs 42 €"),
    ("assistant", "[buy now]"),
    ("user", "you see\n\na  door"),
    ("assistant", "think: a red key\ngo left"),
    ("user", "done"),
)
_WORDS = "you see a red door go left click buy now key user assistant INST costs think".split()
# The shapes of released templates, in our own words. Roles are ordinary text in the first two.
_LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + m['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_ZEPHYR = (
    "{% for m in messages %}\n{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}\n{% endif %}{% endfor %}"
)
_MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + '[/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
_TOOLS = (
    "{% if tools is not none %}You may call functions: {{ tools | tojson }}{% endif %}"
    + toys.CHATML
)
_ENDS = ("<|im_start|>", "<|im_end|>")


def _joined(words: list[str], alphabet: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The alphabet and all beginnings of the words, with the merges that lead to them."""
    merges = list(dict.fromkeys((w[:i], w[i]) for w in words for i in range(1, len(w))))
    return [*alphabet, *dict.fromkeys(a + b for a, b in merges)], merges


def byte_level(*, ends: tuple[str, ...] = _ENDS, special: bool = True) -> tokenizers.Tokenizer:
    """A byte-level BPE, with tokens that begin and end messages."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces, merges = _joined([*("Ġ" + w for w in _WORDS), *_WORDS, "ĊĊ"], alphabet)
    backend = tokenizers.Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(end, special=special, normalized=False) for end in ends])
    return backend


def sentence_piece(*control: str) -> tokenizers.Tokenizer:
    """A BPE as converters make it of SentencePiece's: bytes as tokens, a space before each text."""
    named = ["<unk>", "<s>", "</s>"]
    alphabet = [*(f"<0x{i:02X}>" for i in range(256)), "▁", *map(chr, range(33, 127))]
    pieces, merges = _joined([*("▁" + w for w in _WORDS), *_WORDS, "▁▁"], alphabet)
    vocabulary = {p: i for i, p in enumerate([*named, *pieces])}
    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    backend.add_special_tokens([*named, *control])
    return backend


_SENTENCE_PIECE = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
_LLAMA = {**_SENTENCE_PIECE, "tokenizer_class": "LlamaTokenizer"}
# For each shape: the tokenizer, its config with the template, further files, the end of a turn.
SHAPES: dict[str, tuple[Any, dict[str, Any], dict[str, Any], str]] = {
    "byte-level": (byte_level(), {"chat_template": toys.CHATML}, {}, "<|im_end|>"),
    "template that tests tools": (byte_level(), {"chat_template": _TOOLS}, {}, "<|im_end|>"),
    "several ends": (
        byte_level(ends=(*_ENDS, "<|endoftext|>")),
        {"chat_template": toys.CHATML, "eos_token": "<|endoftext|>"},
        {"generation_config.json": {"eos_token_id": [5, 7]}},
        "<|im_end|>",
    ),
    "added tokens that are not special": (
        byte_level(special=False),
        {"chat_template": toys.CHATML},
        {},
        "<|im_end|>",
    ),
    "special in special_tokens_map alone": (
        byte_level(ends=()),
        {"chat_template": toys.CHATML},
        {
            "special_tokens_map.json": {
                "eos_token": "<|im_end|>",
                "additional_special_tokens": ["<|im_start|>"],
            }
        },
        "<|im_end|>",
    ),
    "end of turn in added_tokens_decoder alone": (
        byte_level(ends=("<|im_start|>",)),
        {
            "chat_template": toys.CHATML,
            "added_tokens_decoder": {
                "9999": {"content": "<|im_end|>", "special": True, "normalized": False}
            },
        },
        {},
        "<|im_end|>",
    ),
    "Llama 2, spaces by the normalizer": (
        sentence_piece(),
        {**_SENTENCE_PIECE, "chat_template": _LLAMA2},
        {},
        "</s>",
    ),
    "Llama 2": (
        sentence_piece(),
        {**_LLAMA, "legacy": False, "chat_template": _LLAMA2},
        {},
        "</s>",
    ),
    "Llama 2, legacy": (
        sentence_piece(),
        {**_LLAMA, "legacy": True, "chat_template": _LLAMA2},
        {},
        "</s>",
    ),
    "TinyLlama": (
        sentence_piece(),
        {**_LLAMA, "legacy": False, "chat_template": _ZEPHYR},
        {},
        "</s>",
    ),
    "TinyLlama, spaces by the normalizer": (
        sentence_piece(),
        {**_SENTENCE_PIECE, "chat_template": _ZEPHYR},
        {},
        "</s>",
    ),
    "Mistral": (
        sentence_piece("[INST]", "[/INST]"),
        {**_LLAMA, "legacy": False, "chat_template": _MISTRAL},
        {},
        "</s>",
    ),
    "no space before a text": (
        sentence_piece(*_ENDS),
        {**_LLAMA, "add_prefix_space": False, "legacy": False, "chat_template": toys.CHATML},
        {},
        "<|im_end|>",
    ),
}


def make(name: str, folder: Path) -> Path:
    """Write the folder of a shape."""
    backend, config, files, _ = SHAPES[name]
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    for file, content in {"tokenizer_config.json": config, **files}.items():
        (folder / file).write_text(json.dumps(content))
    return folder


def record(name: str) -> dict[str, object]:
    """What transformers gives for the conversation: ids, prompts, and what the assistant says."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        tokenizer = AutoTokenizer.from_pretrained(make(name, Path(folder)))
    said = [{"role": role, "content": content} for role, content in CONVERSATION]
    whole = tokenizer.apply_chat_template(said, tokenize=False)
    spans = []
    for turn in (1, 3, 5):
        prompt = tokenizer.apply_chat_template(
            said[:turn], add_generation_prompt=True, tokenize=False
        )
        end = SHAPES[name][-1]
        spans.append((len(prompt), whole.index(end, len(prompt)) + len(end)))
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    learned = [
        any(start < stop and begin < end for start, end in spans)
        for begin, stop in encoded["offset_mapping"]
    ]
    return {
        "prompts": [
            tokenizer.apply_chat_template(
                said[:turn], add_generation_prompt=True, return_dict=False
            )
            for turn in (1, 3, 5, 7)
        ],
        "ids": encoded["input_ids"],
        "learned": [i for i, yes in enumerate(learned) if yes],
    }


if __name__ == "__main__":
    rows = [f"{json.dumps(name)}: {json.dumps(record(name))}" for name in SHAPES]
    EXPECTED.write_text("{\n" + ",\n".join(rows) + "\n}\n")
