"""Trains a nano base's tokenizer on an environment's kind of text; writes its Hugging Face files.

Byte-level BPE on lower-cased text. Digits go in pairs, but an id of the embedded catalogue is one
word, so that naming a product takes one step; a word after a bracket is the same token as after a
space; the fixed furniture of an environment's pages is one token a piece. Any text encodes (bytes
are the fallback). Knows nothing of models.
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
SPECIAL = (PAD, BOS, SYSTEM, USER, ASSISTANT, END)
FURNITURE = (
    "[SEP]",
    "WebShop [SEP] Instruction: [SEP]",
    "[SEP] Search",
    "Instruction: [SEP]",
    "[SEP] Back to Search [SEP] Page",
    "(Total results:",
    ") [SEP] Next > [SEP]",
    ") [SEP] < Prev [SEP] Next > [SEP]",
    "[SEP] Back to Search [SEP] < Prev [SEP]",
    "[SEP] Price:",
    "[SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now",
    "and price lower than",
    ".00 dollars",
)
# In order: cents, the embedded catalogue's ids, a price's or number's pairs, words (an opening
# bracket stays with its verb), the rest.
SPLIT = r"\.\d{1,2}| ?b\d{4}(?![a-z0-9])| ?[a-z$]?\d{1,2}| ?[a-z][a-z'\-]*\[?| ?[^\sa-z0-9]+|\s+"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train(
    texts: Iterable[str], vocab_size: int, furniture: Sequence[str] = FURNITURE
) -> "Tokenizer":
    """Train the tokenizer.

    Args:
        texts: page texts and actions.
        vocab_size: bound on the number of ids, special tokens and furniture included.
        furniture: what is one token a piece, whatever the texts say.
    """
    import tokenizers
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Prepend(" "), normalizers.Replace("[", "[ ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT), "isolated"),
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
        vocab_size=vocab_size - len(furniture),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_without(furniture, texts), trainer)
    tokenizer.add_tokens(
        [AddedToken(f, lstrip=True, rstrip=True, normalized=False) for f in furniture]
    )
    return tokenizer


def _without(furniture: Sequence[str], texts: Iterable[str]) -> Iterable[str]:
    """Cut the furniture out of the texts, as the trained tokenizer will see them."""
    longest_first = sorted(furniture, key=len, reverse=True)
    for text in texts:
        pieces = [text]
        for item in longest_first:
            pieces = [p for piece in pieces for p in piece.split(item)]
        yield from (p.strip() for p in pieces if p.strip())


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
