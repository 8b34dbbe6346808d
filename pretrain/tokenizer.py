"""Trains a nano base's tokenizer; writes its Hugging Face files.

Byte-level BPE on lower-cased text, so that any text encodes. The splitting rules keep what an agent
has to copy short: an id of the embedded catalogue is one token, a word after a bracket is the same
token as after a space, and the fixed phrases of an environment's pages are one token each. Other
digits are split in pairs.
"""

import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PAD, BOS, SYSTEM, USER, ASSISTANT, END = (
    "<|pad|>",
    "<|bos|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
)
SPECIAL_TOKENS = (PAD, BOS, SYSTEM, USER, ASSISTANT, END)
# Alternatives in order: cents; ids of the embedded catalogue, one token each, because an id of two
# tokens would have to be recalled from its first half; pairs of a price's or number's digits; words
# (an opening bracket stays with its verb); everything else.
SPLIT_PATTERN = (
    r"\.\d{1,2}| ?b\d{4}(?![a-z0-9])| ?[a-z$]?\d{1,2}| ?[a-z][a-z'\-]*\[?| ?[^\sa-z0-9]+|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(texts: Iterable[str], vocab_size: int, fixed_phrases: Sequence[str]) -> "Tokenizer":
    """Train the tokenizer.

    Args:
        texts: page texts and actions.
        vocab_size: maximum number of ids, special tokens and fixed phrases included.
        fixed_phrases: phrases that become one token each, however often the texts contain them.
    """
    import tokenizers
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    # The space after an opening bracket makes the word after it the same token as after a space;
    # the decoder removes both spaces again.
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Prepend(" "), normalizers.Replace("[", "[ ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.ByteLevel(),
            decoders.Fuse(),
            decoders.Replace("[ ", "["),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(fixed_phrases),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_remove_phrases(fixed_phrases, texts), trainer)
    tokenizer.add_tokens(
        [AddedToken(p, lstrip=True, rstrip=True, normalized=False) for p in fixed_phrases]
    )
    return tokenizer


def _remove_phrases(fixed_phrases: Sequence[str], texts: Iterable[str]) -> Iterable[str]:
    """Cut the fixed phrases out of the texts, as the trained tokenizer will."""
    longest_first = sorted(fixed_phrases, key=len, reverse=True)
    for text in texts:
        parts = [text]
        for phrase in longest_first:
            parts = [p for part in parts for p in part.split(phrase)]
        yield from (p.strip() for p in parts if p.strip())


def save(tokenizer: "Tokenizer", folder: pathlib.Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json` (with the chat template)."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "bos_token": BOS,
        "eos_token": END,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
