"""What all command lines share: plain log lines, and a user's mistakes as one message.

Knows flags' values no more than that positional arguments are a mistake.
"""

import logging
import sys
from collections.abc import Callable

from absl import app

from eef_jax.errors import ConfigError, EefError


def plain_logs() -> None:
    """Log messages to stderr as they are."""
    # absl puts a handler of its own before every message; force takes it away.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    for chatty in ("absl", "jax"):  # the latter tells of backends it did not find
        logging.getLogger(chatty).setLevel(logging.WARNING)


def run(command: Callable[[], None]) -> None:
    """Parse the flags and run a command.

    An `EefError` is printed without a traceback, and the exit code is 1.
    """

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise ConfigError(f"unexpected arguments {argv[1:]}: every setting is a --flag=value")
        plain_logs()
        command()

    try:
        app.run(main)
    except EefError as error:
        sys.exit(f"{type(error).__name__}: {error}")
