"""The error vocabulary: one class for each border that bad input can cross.

A message names the value that was got, what was expected, and the next action (the flag to set, the
extra to install, the near names). Nothing here knows where a message is shown.
"""

import difflib
from collections.abc import Iterable


class EefError(Exception):
    """Base of all errors a user can cause and mend; command lines print it without a traceback."""


class ConfigError(EefError):
    """A config value, flag, preset, plug-in name or work folder that cannot be used."""


class EnvError(EefError):
    """An environment that could not be made, reset or stepped (never the policy's fault)."""


class DivergedError(EnvError):
    """A replay that showed something else than the first time: the simulator is not what it was."""


class PolicyError(EefError):
    """A policy (local engine or remote server) that could not answer a request."""


class DataError(EefError):
    """A file (trajectories, TFRecords, checkpoint, model folder) that is missing or damaged."""


def near(name: str, known: Iterable[str]) -> str:
    """Describe what `name` may have meant: the close matches among `known`, else all of them."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}? " * bool(close) + f"known: {', '.join(options)}"
