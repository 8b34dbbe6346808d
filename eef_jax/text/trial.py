"""A chat template's first rendering, in a child process with limits on time, memory and output.

A template is a program that came with a downloaded folder. The sandbox that renders it keeps it
from files and attributes, but not from running without end or filling the memory.
"""

import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from eef_jax.errors import PolicyError
from eef_jax.text import _trial_child as child

CPU_SECONDS = 10  # a real template renders in milliseconds, and a child starts in tenths
WALL_SECONDS = 120  # a busy machine may give the child little of its processors


def check(template: str, special: Mapping[str, str]) -> None:
    """Render conversations of several lengths in a child process; once for each template.

    Templates that refuse a conversation or have a fault pass: rendering them again tells more.

    Args:
        template: Jinja source.
        special: from names such as `bos_token`, which templates use, to the token's text.

    Raises:
        PolicyError: rendering does not end, needs too much memory, writes too much, or crashes.
    """
    fault = _fault(template, tuple(sorted(special.items())))
    if fault:
        raise PolicyError(
            f"the chat template {fault}, while a usual one renders in milliseconds: it is damaged "
            "or hostile, so it is not used; take the model's folder from its publisher, or another "
            "template"
        )


@functools.lru_cache(maxsize=256)
def _fault(template: str, special: tuple[tuple[str, str], ...]) -> str:
    """What is wrong with a template, as the end of a sentence; "" if nothing is."""
    given = json.dumps({"template": template, "special": dict(special), "seconds": CPU_SECONDS})
    # -P: the folder of the program is no place to import from.
    command = [sys.executable, "-P", str(Path(child.__file__))]
    try:
        done = subprocess.run(
            command,
            input=given.encode(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=WALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"did not end within {WALL_SECONDS} seconds"
    if done.returncode == child.TOO_LONG:
        return f"writes more than {child.CHARACTERS:,} characters for a short conversation"
    if done.returncode == child.TOO_LARGE:
        return f"needs more than {child.MEMORY >> 30} GiB of memory"
    if done.returncode < 0:
        return f"did not end within {CPU_SECONDS} seconds, or crashed"
    if done.returncode:
        # Not the template's: the child could not start.
        raise PolicyError(
            "the child process that tries the chat template failed: "
            f"{done.stderr.decode(errors='replace').strip()[-500:]}; check that jinja2 is installed"
        )
    return ""
