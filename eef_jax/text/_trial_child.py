"""The program that `trial` runs in a child process: renders a chat template, and counts.

It imports jinja2 alone, so that it starts in a fraction of a second. Its environment names what
transformers' has; how faithfully it renders does not matter, only how much and for how long.
"""

import contextlib
import json
import resource
import sys
from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

MEMORY = 1 << 30  # bytes of address space
CHARACTERS = 1_000_000  # of one rendered conversation
TOO_LONG, TOO_LARGE = 3, 4  # exit codes
# Short conversations as `frames` renders them, and one that is as long as an episode.
TURNS = (1, 2, 3, 4, 5, 101)


class _Generation(jinja2.ext.Extension):
    """The `{% generation %}` block of some templates only annotates text."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 reads it from the class)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _environment() -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, **options)
    environment.globals |= {"raise_exception": _refuse, "strftime_now": lambda form: form}
    return environment


def _conversations() -> list[list[dict[str, str]]]:
    roles = ["user", "assistant"] * max(TURNS)
    whole = [{"role": role, "content": "hello"} for role in roles]
    system = {"role": "system", "content": "hello"}
    return [start + whole[:turns] for start in ([], [system]) for turns in TURNS]


def _render(template: jinja2.Template, messages: Sequence[dict[str, str]], **known: Any) -> None:
    """Render one conversation.

    Raises:
        OverflowError: its text is longer than `CHARACTERS`.
    """
    written = 0
    for part in template.generate(messages=messages, tools=None, documents=None, **known):
        written += len(part)
        if written > CHARACTERS:
            raise OverflowError(written)


def main() -> int:
    """Render the template of standard input's JSON; return an exit code.

    It has `template`, its source, `special`, the texts of special tokens by the names that
    templates use, and `seconds`, the processor time that rendering may take.
    """
    with contextlib.suppress(ValueError, OSError):  # macOS has no limit of address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    given = json.load(sys.stdin)
    # A killed process, as an exception would be one that templates' own code could outlast.
    resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"]))
    try:
        template = _environment().from_string(given["template"])
    except Exception:  # the caller renders it again, and says what is wrong
        return 0
    for messages in _conversations():
        for generate in (False, True):
            try:
                _render(template, messages, add_generation_prompt=generate, **given["special"])
            except OverflowError:
                return TOO_LONG
            except MemoryError:
                return TOO_LARGE
            except Exception:  # a template may refuse some roles, or have a fault: as above
                break
    return 0


if __name__ == "__main__":
    sys.exit(main())
