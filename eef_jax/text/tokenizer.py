"""A tokenizer from a Hugging Face folder: text to ids, ids to text, and its chat template.

It reads `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja` with the libraries
`tokenizers` and `jinja2` alone: `transformers` is slow to import and its AutoTokenizer loads torch
where torch is installed.
"""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers

from eef_jax.errors import DataError, PolicyError
from eef_jax.storage import files

_FILES = ("*.json", "*.jinja", "*.model", "*.txt")  # of a model folder, without its weights
_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


class Tokenizer:
    """Encodes text and decodes ids, and renders the chat template.

    Attributes:
        fingerprint: hash of vocabulary, merges and template; equal ids are equal text under it.
        vocab_size: number of ids, added tokens included.
        eos_id: id of the end-of-sequence token, None without one.
        special_ids: ids of special tokens, which plain text never encodes to.
        special_text: texts of the special tokens.
        stop_ids: ids at which the generation config ends a message, in addition to `eos_id`.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        template: str,
        special: Mapping[str, str] | None = None,
        stop_ids: Sequence[int] = (),
    ):
        """Wrap a backend.

        Args:
            backend: the `tokenizers` object.
            template: Jinja source of the chat template.
            special: from names such as `bos_token`, which templates use, to the token's text.
            stop_ids: ids that end a generation according to the generation config.
        """
        self._backend = backend
        # Padding and truncation stored in tokenizer.json would silently change ids.
        backend.no_padding()
        backend.no_truncation()
        self._special = dict(special or {})
        self._template = _environment().from_string(template)
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self.special_text = tuple(token.content for token in added.values() if token.special)
        self.stop_ids = tuple(stop_ids)
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        eos = self._special.get("eos_token")
        self.eos_id = backend.token_to_id(eos) if eos else None
        content = json.dumps(
            [json.loads(backend.to_str()), template, sorted(self._special.items())]
        )
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
        # Observations repeat among the forks of one trajectory.
        self.encode = functools.lru_cache(maxsize=8192)(self._encode)

    def _encode(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Encode text.

        Args:
            text: any text.
            special: whether special tokens spelled out in `text` become their ids. False for text
                of users and simulators: a page that contains `<|end|>` must not end a message.
        """
        self._backend.encode_special_tokens = not special
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids to text without the special tokens."""
        return self._backend.decode(list(ids), skip_special_tokens=True)

    def template(self, messages: Sequence[Mapping[str, str]], *, generate: bool) -> str:
        """Render a conversation with the chat template.

        Args:
            messages: dictionaries with `role` and `content`.
            generate: whether to end with the generation prompt of the assistant's turn.

        Raises:
            PolicyError: the template refuses the conversation.
        """
        try:
            return self._template.render(
                messages=list(messages), add_generation_prompt=generate, **self._special
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise PolicyError(
                f"the chat template refuses a conversation of the roles ({roles}): {error}; "
                "change the environment's prompt or the model"
            ) from error


def load(path: str | Path) -> Tokenizer:
    """Read a Hugging Face tokenizer folder.

    Args:
        path: folder, local or on gs://, with `tokenizer.json`, `tokenizer_config.json`,
            `chat_template.jinja` unless the config has a `chat_template`, and optionally
            `generation_config.json`.

    Raises:
        DataError: a file is missing or damaged, or there is no chat template.
    """
    folder = files.local_copy(path, only=_FILES)
    config = _json(folder / "tokenizer_config.json")
    source = folder / "tokenizer.json"
    if not source.is_file():
        raise DataError(
            f"{source} is missing: save the tokenizer in its fast form (tokenizer.json)"
        )
    try:
        backend = tokenizers.Tokenizer.from_file(str(source))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{source} cannot be read as a tokenizer: {error}") from error
    special = {name: _content(config[name]) for name in _SPECIAL if config.get(name)}
    stops = _stop_ids(folder / "generation_config.json", backend)
    template = _chat_template(folder, config)
    return Tokenizer(backend, template=template, special=special, stop_ids=stops)


def _stop_ids(file: Path, backend: tokenizers.Tokenizer) -> tuple[int, ...]:
    """The ids that end a generation: the config names one id or several."""
    if not file.is_file():
        return ()
    named = _json(file).get("eos_token_id")
    stops = named if isinstance(named, list) else [] if named is None else [named]
    for stop in stops:
        if not isinstance(stop, int) or backend.id_to_token(stop) is None:
            raise DataError(
                f"{file} names the stop token {stop!r} (eos_token_id), which the tokenizer does "
                "not have: both files must be of one model, copy them again"
            )
    return tuple(stops)


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); a Hugging Face tokenizer folder is expected"
        ) from error


def _content(token: str | Mapping[str, str]) -> str:
    return token if isinstance(token, str) else token["content"]


def _chat_template(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if not template:
        raise DataError(
            f"{folder} has no chat template (neither chat_template.jinja nor `chat_template` in "
            "tokenizer_config.json): take an instruction-tuned model's folder or add the file"
        )
    return template


def _environment() -> jinja2.Environment:
    """The Jinja dialect in which Hugging Face chat templates are written."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    environment.globals["raise_exception"] = _refuse
    # A fixed date: the current one would give the same input other ids every day.
    environment.globals["strftime_now"] = lambda format: "1 Jan 2025"
    return environment


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


class _Generation(jinja2.ext.Extension):
    """The `{% generation %}` block of some templates only annotates text: render it unchanged."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads it from the class)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
