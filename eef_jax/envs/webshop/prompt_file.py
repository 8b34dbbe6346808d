"""Prompts by name or from a file: other people's texts, in a convention that a preset names.

A `.txt` file is the instruction of a preset `react`. A `.json` file is an object with any of

    {"preset": "react", "messages": [{"role": "user", "content": "..."}, ...],
     "instructions": "...", "observation": "...", "listing": "...", "thought": "...",
     "marker": "...", "end": "...", "invalid": "...", "max_steps": 10}

whose fields replace those of the preset (`react` where it names none); see `Preset` for what they
mean.
"""

import dataclasses
import json
from typing import Any

from etils import epath

from eef_jax.envs._prompt import Preset, parse_messages, told
from eef_jax.envs.webshop.prompts import PRESETS
from eef_jax.errors import ConfigError, DataError, did_you_mean

BASE = "react"  # whose fields hold where a file says nothing
# Fields of `Preset` that a file may replace.
FIELDS = (
    *("messages", "instructions", "observation", "listing"),
    *("thought", "marker", "end", "invalid", "max_steps"),
)


def preset(name: str) -> Preset:
    """A preset by name, or the prompt in a file by path.

    Raises:
        ConfigError: there is no preset and no file of that name.
        DataError: the file is not what a prompt file should be.
    """
    if name in PRESETS:
        return PRESETS[name]
    path = epath.Path(name)
    if path.suffix not in (".json", ".txt"):
        raise ConfigError(
            f"unknown webshop prompt {name!r} (env.prompt); {did_you_mean(name, PRESETS)}; or the "
            "path of a .txt or .json file"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"webshop prompt (env.prompt): cannot read {path} ({error.strerror}); give the path of "
            f"a .txt or .json file, or one of {', '.join(PRESETS)}"
        ) from error
    except ValueError as error:
        raise DataError(f"webshop prompt {path} is not UTF-8 text: {error}; save it so") from error
    if path.suffix == ".txt":
        return dataclasses.replace(PRESETS[BASE], messages=told(text.strip()))
    try:
        return _of(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"webshop prompt {path}: {error}; see docs/webshop.md for what a prompt file may say"
        ) from error


def _of(content: Any) -> Preset:
    """A preset from the content of a JSON file.

    Raises:
        TypeError: something is of another type.
        ValueError: something has an unknown name, or messages are in no order to go on from.
    """
    if not isinstance(content, dict):
        raise TypeError(f"a JSON {type(content).__name__}, expected an object")
    fields = dict(content)
    base = fields.pop("preset", BASE)
    if base not in PRESETS:
        raise ValueError(f"unknown preset {base!r}; {did_you_mean(str(base), PRESETS)}")
    for name, value in fields.items():
        if name not in FIELDS:
            raise ValueError(f"unknown field {name!r}; {did_you_mean(name, (*FIELDS, 'preset'))}")
        expected = {"messages": list, "max_steps": int}.get(name, str)
        if not isinstance(value, expected):
            raise TypeError(f"{name} is {value!r}, expected a JSON {expected.__name__}")
    if fields.get("max_steps", 1) < 1:
        raise ValueError(f"max_steps is {fields['max_steps']}, expected at least 1")
    if (thought := fields.get("thought")) and "{thought}" not in thought:
        raise ValueError(f"thought is {thought!r}, expected a text with {{thought}} in it, or ''")
    if "messages" in fields:
        fields["messages"] = parse_messages(fields["messages"])
    return dataclasses.replace(PRESETS[base], **fields)
