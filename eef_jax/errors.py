"""The package's exceptions: one class for each source of bad input.

A message names the value that was found, what was expected, and the next action (the flag to set,
the extra to install, the closest known names).
"""

import difflib
import errno
import os
from collections.abc import Collection, Iterable


class EefError(Exception):
    """Base of all errors that a user can fix; command lines print them without a traceback."""


class ConfigError(EefError):
    """A config value, flag, preset, plug-in name or work folder that cannot be used."""


class EnvError(EefError):
    """An environment that could not be made, reset or stepped (never the policy's fault)."""


class DivergedError(EnvError):
    """A replay whose observations differ from the first time: the episode is not reproducible."""


class PolicyError(EefError):
    """A policy (local engine or remote server) that could not answer a request."""


class RolloutError(EefError):
    """Too many episodes that infrastructure ended: what was played of the stage is not kept."""


class DataError(EefError):
    """A file (trajectories, TFRecords, checkpoint, model folder) that is missing or damaged."""


_NO_ROOM = "make room, and start the same command again"
_NOT_ALLOWED = "name another folder, or mend its permissions"
_NOT_THERE = "look at the path: it, or a folder above it, is missing"
_WRONG_KIND = "look at the path: a file is where a folder is expected, or the other way round"
_REMEDIES = {
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), and start the same command again",
    errno.EROFS: _NOT_ALLOWED,
    errno.EACCES: _NOT_ALLOWED,
    errno.EPERM: _NOT_ALLOWED,
    errno.ENOENT: _NOT_THERE,
    errno.ENOTDIR: _WRONG_KIND,
    errno.EISDIR: _WRONG_KIND,
    errno.EEXIST: _WRONG_KIND,
    errno.ENAMETOOLONG: "name a shorter path",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EPIPE: "what read this command's output has ended",
}


def sentence(error: BaseException) -> str:
    """What a command line says instead of a traceback; "" for an error of the program itself.

    Args:
        error: an error of this package, of the operating system, or a group of such errors.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [sentence(one) for one in error.exceptions]
        return found[0] if all(found) else ""
    if isinstance(error, EefError):
        # Indented, so that no text within it passes for a line of the program's own.
        return f"{type(error).__name__}: {error}".replace("\n", "\n  ")
    if isinstance(error, OSError) and error.strerror:
        where = " ".join(os.fsdecode(x) for x in (error.filename, error.filename2) if x is not None)
        remedy = _REMEDIES.get(error.errno or 0, "mend that, and start the same command again")
        return f"{where or 'the operating system'}: {error.strerror}; {remedy}"
    return ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest what `name` may have meant: its close matches among `known`, then all known names."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}? " * bool(close) + f"known: {', '.join(options)}"


def check_one_of(field: str, value: str, options: Collection[str]) -> None:
    """Check that a config field has one of its allowed values.

    Args:
        field: the field's dotted name, or a flag, as the message shows it.
        value: the field's value.
        options: the allowed values.

    Raises:
        ConfigError: it has another value; the message names the closest allowed ones.
    """
    if value not in options:
        raise ConfigError(f"{field} is {value!r}: {did_you_mean(str(value), options)}")


def check_at_least(field: str, value: int, smallest: int) -> None:
    """Check that a config field is an integer of at least `smallest`.

    Args:
        field: the field's dotted name, as the message shows it.
        value: the field's value.
        smallest: the smallest allowed value.

    Raises:
        ConfigError: it is not; the message names the value and the bound.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise ConfigError(f"{field} is {value!r}, expected a whole number of {smallest} or more")
