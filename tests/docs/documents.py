"""What the documents show a user: commands, programs, presets; and the table that plays them."""

import dataclasses
import importlib
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eef_jax.errors import ConfigError

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "WORKSPACE.md", *sorted((ROOT / "docs").glob("**/*.md")))
# The languages of fenced blocks: what a user types, types and reads, runs, or only looks at.
SHELL, CONSOLE, PROGRAM, SHOWN = "bash", "console", "python", ("json", "text")
REASONS = (
    "downloads from outside",
    "needs a cloud account",
    "trains over 10 minutes",
)
MOST_NOT_RUN = 12

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One command or program of a document.

    Attributes:
        place: file and line of its block.
        text: a command on one line without its comment, or a program as it stands.
    """

    place: str
    text: str

    @property
    def document(self) -> str:
        """The file."""
        return self.place.partition(":")[0]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How the table plays a command.

    Attributes:
        text: the command as documented; "" for a preset that no document runs.
        play: the command that is played, where that is another than `text` with `small`.
        small: names of lists of flags that are appended.
        flags: further flags that are appended.
        words: replacements in the text, for what a document leaves to the reader.
        environment: variables to set.
        makes: files that must exist afterwards.
        prints: a regular expression that the output must match.
        not_run: why it is not played: one of `REASONS`; "" if it is.
    """

    text: str = ""
    play: str = ""
    small: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    makes: tuple[str, ...] = ()
    prints: str = ""
    not_run: str = ""


def blocks() -> Iterator[tuple[str, str, str]]:
    """Place, language and content of every fenced block."""
    for file in DOCUMENTS:
        text = file.read_text("utf-8")
        for found in _BLOCK.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{file.relative_to(ROOT)}:{line}", found[1], found[2]


def commands() -> list[Shown]:
    """Every command of the documents."""
    return [
        Shown(place=place, text=text)
        for place, language, block in blocks()
        if language in (SHELL, CONSOLE)
        for text in typed(block, prompt="$ " if language == CONSOLE else "")
    ]


def programs() -> list[Shown]:
    """Every Python program of the documents, and the cells of every notebook as one."""
    shown = [Shown(place=place, text=text) for place, language, text in blocks()
             if language == PROGRAM]  # fmt: skip
    for file in sorted((ROOT / "examples").glob("**/*.ipynb")):
        cells = json.loads(file.read_text("utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        shown.append(Shown(place=str(file.relative_to(ROOT)), text="\n".join(code)))
    return shown


def typed(block: str, *, prompt: str = "") -> Iterator[str]:
    """The commands in a block, each on one line without comments.

    Args:
        block: lines; a backslash at the end continues a line.
        prompt: what stands before a command; other lines are output.
    """
    for line in block.replace("\\\n", " ").splitlines():
        if line.startswith(prompt):
            words = line.removeprefix(prompt).partition(" # ")[0]
            if command := " ".join(words.split()):
                yield command


def presets() -> list[str]:
    """Every shipped preset as `--config` takes it.

    The template has none: docs/configs.md runs a copy of it.
    """
    found = []
    for file in sorted((ROOT / "configs").glob("*.py")):
        module = importlib.import_module(f"eef_jax.configs.{file.stem}")
        if not hasattr(module, "get_config"):
            continue
        try:
            module.get_config("?")
        except ConfigError as error:
            names = str(error).rpartition("known: ")[2].split(", ")
            found += [f"configs/{file.name}:{name}" for name in names]
    return found


def preset_of(command: str) -> str:
    """The preset that a command of `eef_jax.main` plays from expert to report; "" for others."""
    words = shlex.split(command)
    if "eef_jax.main" not in words or any(word.startswith("--stages") for word in words):
        return ""
    name = next(word.partition("=")[2] for word in words if word.startswith("--config="))
    if ":" in name:
        return name
    own = [preset for preset in presets() if preset.startswith(f"{name}:")]
    if not own:
        return ""
    get_config = importlib.import_module(name.removesuffix(".py").replace("/", ".")).get_config
    default = get_config().to_dict()
    return next(p for p in own if get_config(p.partition(":")[2]).to_dict() == default)


def _table() -> dict[str, Any]:
    with open(Path(__file__).with_name("commands.toml"), "rb") as file:
        return tomllib.load(file)


def table() -> tuple[list[Row], dict[str, list[str]]]:
    """The rows of `commands.toml`, and its lists of flags by name."""
    content, rows = _table(), []
    for row in content["command"]:
        lists = {name: tuple(row[name]) for name in ("small", "flags", "makes") if name in row}
        rows.append(Row(**{**row, **lists}))
    return rows, content["small"]


def played_program(shown: Shown) -> str:
    """The program that is played: as shown, but for the words that the table replaces."""
    text = shown.text
    for row in _table()["program"]:
        if shown.document == row["document"]:
            for word, replacement in row["words"].items():
                text = text.replace(word, replacement)
    return text


def unused_words() -> list[str]:
    """What the table replaces in programs that do not say it."""
    found = programs()
    return [
        f"{row['document']}: {word}"
        for row in _table()["program"]
        for word in row["words"]
        if not any(shown.document == row["document"] and word in shown.text for shown in found)
    ]


def played(row: Row, small: dict[str, list[str]]) -> str:
    """The command that is played for a row."""
    text = row.play or row.text
    for word, replacement in row.words.items():
        if word not in text:
            raise ConfigError(f"the command has no {word!r} to replace: {text}")
        text = text.replace(word, replacement)
    added = [flag for name in row.small for flag in small[name]] + list(row.flags)
    return shlex.join([*shlex.split(text), *added]) if added else text
