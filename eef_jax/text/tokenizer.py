"""A tokenizer as transformers reads it: text to ids, ids to text, and its chat template.

transformers is imported when the first tokenizer is read (seconds), never by importing a module of
this package. It needs no torch; where torch is installed it may get imported.
"""

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eef_jax.errors import DataError, PolicyError
from eef_jax.storage import files, git_lfs
from eef_jax.text import trial

# Of a model folder, without its weights.
_FILES = ("*.json", "*.jinja", "*.model", "*.txt")
# A fixed date: the current one would give the same input other ids every day. As a macro it hides
# transformers' function of this name.
_DATE = "{% macro strftime_now(format) %}1 Jan 2025{% endmacro %}"
_GENERATION = "generation_config.json"
_REPLACEMENT = "\ufffd"
# The names that the fingerprint covers.
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """Encodes text and decodes ids, and renders the chat template.

    Attributes:
        fingerprint: hash of vocabulary, merges and template; equal ids are equal text under it.
        ids: all ids, added tokens included.
        vocab_size: one more than the largest id.
        eos_id: id of the end-of-sequence token, None without one.
        special: from id to text, the tokens that transformers calls special, without the one for
            unknown text.
        added: from id to text, all tokens that are found in text before the vocabulary is used;
            includes `special`.
        stop_ids: ids at which the generation config ends a message, in addition to `eos_id`.
    """

    def __init__(self, backend: Any, *, stop_ids: Sequence[int] = ()):
        """Wrap a tokenizer.

        Args:
            backend: a fast tokenizer of transformers, with a chat template.
            stop_ids: ids that end a generation according to the generation config.

        Raises:
            DataError: it is not a fast tokenizer or has no chat template.
        """
        if not getattr(backend, "is_fast", False):
            raise DataError(
                f"the tokenizer is a {type(backend).__name__}, which has no tokenizer.json: save "
                "it in its fast form"
            )
        self._backend = backend
        self._template = _chat_template(backend)
        self.added = {i: str(token) for i, token in backend.added_tokens_decoder.items()}
        self.special = {
            i: text
            for i, text in self.added.items()
            if (backend.added_tokens_decoder[i].special or i in backend.all_special_ids)
            and i != backend.unk_token_id
        }
        self.stop_ids = tuple(stop_ids)
        self.ids = frozenset(backend.get_vocab().values())
        self.vocab_size = 1 + max(self.ids)
        self.eos_id: int | None = backend.eos_token_id
        self.fingerprint = self._fingerprint()
        # Observations repeat among the forks of one trajectory.
        self.encode = functools.lru_cache(maxsize=8192)(self._encode)
        self.find = functools.lru_cache(maxsize=8192)(self._find)

    def _encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Encode text; halves of surrogate pairs, which are no characters, become U+FFFD.

        Args:
            text: any text.
            special: whether special tokens spelled out in `text` become their ids. Where not, no
                id is a special token's: the text is cut in the middle of one. (Other added tokens
                are always found; `chat` keeps those of the template apart.)
        """
        ids = self.find(text, special=special)
        found = [] if special else [i for i in ids if i in self.special]
        if not found:
            return ids
        parts = cut(without_surrogates(text), self.special[found[0]])
        return tuple(i for part in parts for i in self.encode(part))

    def _find(self, text: str, *, special: bool) -> tuple[int, ...]:
        """The ids that the backend finds: not all vocabularies keep text and special tokens apart.

        Those of whole words (WordLevel, Unigram, BPE that ignores merges) may hold a special
        token's text as one of them.
        """
        encoded = self._backend(
            without_surrogates(text),
            add_special_tokens=False,
            split_special_tokens=not special,
            return_attention_mask=False,
            verbose=False,  # of texts longer than the model's context
        )
        return tuple(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text without the special tokens."""
        # Without transformers' cleaning up, which removes spaces before punctuation.
        return self._backend.backend_tokenizer.decode(list(ids), skip_special_tokens=True)

    def template(self, messages: Sequence[Mapping[str, str]], *, generate: bool) -> str:
        """Render a conversation with the chat template.

        Args:
            messages: dictionaries with `role` and `content`.
            generate: whether to end with the generation prompt of the assistant's turn.

        Raises:
            PolicyError: the template refuses the conversation.
        """
        try:
            return self._backend.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self._template,
                add_generation_prompt=generate,
                tokenize=False,
            )
        except Exception as error:  # a template can raise what any program can
            roles = ", ".join(message["role"] for message in messages)
            raise PolicyError(
                f"the chat template refuses a conversation of the roles ({roles}): {error}; "
                "change the environment's prompt or the model"
            ) from error

    def try_template(self) -> None:
        """Render the template for the first time, in a child process with limits.

        Raises:
            PolicyError: it does not end, needs too much memory, or writes too much.
        """
        trial.check(self._template, self._backend.special_tokens_map)

    def _fingerprint(self) -> str:
        backend = json.loads(self._backend.backend_tokenizer.to_str())
        # These have no part in the ids.
        backend |= {"padding": None, "truncation": None, "post_processor": None}
        named = self._backend.special_tokens_map
        special = sorted((name, named[name]) for name in _NAMED if name in named)
        content = json.dumps([backend, self._template, special])
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def load(path: str | Path) -> Tokenizer:
    """Read a Hugging Face tokenizer folder.

    Args:
        path: folder, local or on gs://, with a tokenizer that transformers reads, a chat template,
            and optionally `generation_config.json`.

    Raises:
        DataError: a file is missing or damaged, or there is no chat template.
        PolicyError: the chat template does not end, or writes too much.
    """
    folder = files.local_copy(path, only=_FILES)
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder: expected a Hugging Face folder with a tokenizer"
        )
    _refuse_pointers(folder)
    with _quiet():
        from transformers import AutoTokenizer
    try:
        backend = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # transformers and tokenizers raise many kinds, bare Exception too
        raise DataError(
            f"{folder} cannot be read as a tokenizer: {error}; a folder with tokenizer.json and "
            "tokenizer_config.json is expected"
        ) from error
    try:
        tokenizer = Tokenizer(backend, stop_ids=_stop_ids(folder, backend))
    except DataError as error:
        raise DataError(f"{folder}: {error}") from error
    tokenizer.try_template()
    return tokenizer


def _refuse_pointers(folder: Path) -> None:
    for file in (one for pattern in _FILES for one in sorted(folder.glob(pattern))):
        with file.open("rb") as opened:
            if git_lfs.is_pointer(opened.read(git_lfs.HEAD_BYTES)):
                raise DataError(git_lfs.explained(file))


def without_surrogates(text: str) -> str:
    """Text with each half of a surrogate pair joined to its other half, or replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def cut(text: str, token: str) -> list[str]:
    """Cut a text so that no part spells a token; a text of one character becomes U+FFFD.

    Args:
        text: is encoded to the token, in whole or in part.
        token: the token's text.
    """
    middle = len(token) // 2
    if middle and token in text:
        first, *others = text.split(token)
        parts = [first, *(token[middle:] + other for other in others)]
        return [part + token[:middle] for part in parts[:-1]] + parts[-1:]
    if len(text) > 1:  # the tokenizer's normalizer makes the token out of another spelling
        return [text[: len(text) // 2], text[len(text) // 2 :]]
    return [] if text == _REPLACEMENT else [_REPLACEMENT]


def _stop_ids(folder: Path, backend: Any) -> tuple[int, ...]:
    """The ids that end a generation: the generation config names one id or several."""
    if not (folder / _GENERATION).is_file():
        return ()
    from transformers import GenerationConfig

    try:
        named = GenerationConfig.from_pretrained(str(folder), local_files_only=True).eos_token_id
    except Exception as error:  # OSError, or what a field's check raises
        raise DataError(f"its {_GENERATION} cannot be read: {error}") from error
    stops = named if isinstance(named, list) else [] if named is None else [named]
    known = frozenset(backend.get_vocab().values())
    for stop in stops:
        if stop not in known:
            raise DataError(
                f"its {_GENERATION} names the stop token {stop!r} (eos_token_id), which the "
                "tokenizer does not have: both files must be of one model, copy them again"
            )
    return tuple(stops)


def _chat_template(backend: Any) -> str:
    try:
        template = backend.get_chat_template()
    except ValueError as error:
        raise DataError(
            "there is no chat template (neither chat_template.jinja nor `chat_template` in "
            "tokenizer_config.json): take an instruction-tuned model's folder or add the file"
        ) from error
    return _DATE + template if "strftime_now" in template else template


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from advising to install torch when it is imported."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
