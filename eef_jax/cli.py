"""What all command lines share: flags, the config, log lines, and errors as one message."""

import functools
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags

from eef_jax import config as config_lib
from eef_jax.cluster import stopping
from eef_jax.errors import ConfigError, sentence
from eef_jax.storage import files
from eef_jax.untrusted import LogFormatter, printable, show

_overrides: list[config_lib.Override] = []


def define_config(default: str | None = None) -> None:
    """Define the flags `--config=NAME[:PRESET]` and `--config_help`.

    Fields of the config (`--config.SECTION.FIELD=VALUE`) are read by `run`, before absl reads the
    flags that are left.

    Args:
        default: the config to take where none is given.
    """
    flags.DEFINE_string(
        "config",
        default,
        "A config that ships, or a file, with a preset after a colon: webshop:tiny, "
        "my_config.py:large. Every field of it is a flag as well: --config.train.epochs=2 "
        "(--config_help lists them).",
    )
    flags.DEFINE_bool("config_help", False, "Print every field of the config and exit.")


def define_path(
    name: str,
    default: str | None,
    help: str,
    *,
    local: bool = False,
    required: bool = False,
    multi: bool = False,
) -> Any:
    """Define a flag that names a file or folder, local or on gs://; `~` is the home folder.

    Args:
        name: of the flag.
        default: where it is not given.
        help: what it names, as a sentence.
        local: refuse gs://, because the command opens files by name or maps them into memory.
        required: whether the flag must be given.
        multi: whether it may be given several times; its value is then a list.

    Returns:
        absl's holder of the flag.
    """
    parser, serializer = _PathParser(name, local=local), flags.ArgumentSerializer[str]()
    if multi:
        return flags.DEFINE_multi(parser, serializer, name, default, help)
    holder = flags.DEFINE(parser, name, default, help, serializer=serializer)
    if required:
        flags.mark_flag_as_required(name)
    return holder


class _PathParser(flags.ArgumentParser[str]):
    def __init__(self, name: str, *, local: bool):
        self._name, self._local = name, local

    def flag_type(self) -> str:
        return "path"

    def parse(self, argument: str) -> str:
        if self._local and not files.is_local(argument):
            raise ConfigError(
                f"--{self._name}={argument}: this command works on local files alone; copy between "
                "disk and bucket with `gcloud storage cp --recursive`"
            )
        return files.expand(argument)


def read_config() -> config_lib.Config | None:
    """The config that the flags name; None where none is given.

    Raises:
        ConfigError: naming everything that is wrong with it.
    """
    if flags.FLAGS.config is None:
        return None
    config = config_lib.load(flags.FLAGS.config, _overrides)
    if flags.FLAGS.config_help:
        from eef_jax.config import reference

        show(reference.text(config))
        sys.exit(0)
    return config


def overrides() -> tuple[config_lib.Override, ...]:
    """The fields that flags gave, for a config that does not come from a file."""
    return tuple(_overrides)


def split(argv: Sequence[str]) -> tuple[list[str], list[config_lib.Override]]:
    """Part the command line into absl's arguments and the config's fields.

    Args:
        argv: program and arguments; a field is `--config.PATH=VALUE` or `--config.PATH VALUE`.

    Raises:
        ConfigError: a field without a value.
    """
    rest, fields = [], []
    words = iter(argv)
    for word in words:
        name = word[1:] if word.startswith("--config.") else word
        if not name.startswith("-config."):
            rest.append(word)
            continue
        path, given, value = name.removeprefix("-config.").partition("=")
        if not given:
            value = next(words, "")
            if not value or value.startswith("--"):
                raise ConfigError(f"{word} has no value: expected {word}=VALUE")
        fields.append((path, value))
    return rest, fields


def plain_logs() -> None:
    """Log messages to stderr as they are."""
    # absl puts its own handler, which adds a prefix, before every message; force removes it.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # jax tells of backends that it did not find; openai and httpx log requests, fsspec each file,
    # matplotlib the fonts of a machine.
    for chatty in ("jax", "matplotlib", "openai", "httpx", "httpx2", "httpcore", "fsspec"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Orbax logs the traceback of an error that it raises, too.
    logging.getLogger("absl").setLevel(logging.CRITICAL)


def run(command: Callable[[], None], *, interrupted: str = "nothing was kept") -> None:
    """Parse the flags and run a command.

    An error of this package or of the operating system is printed as one sentence, and the exit
    code is 1; after Ctrl-C it is 130, after SIGTERM 143.

    Args:
        command: what to run.
        interrupted: what is left after such a signal, and how to go on.
    """
    ended = threading.Event()
    end = functools.partial(_end, left=interrupted, ended=ended)
    stopping.install(end, ended)

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise ConfigError(f"unexpected arguments {argv[1:]}: every setting is a --flag=value")
        plain_logs()
        command()

    show_in_help(command)
    if os.getcwd() not in sys.path:  # plug-ins of the current folder, as `python -m` finds them
        sys.path.append(os.getcwd())
    try:
        rest, _overrides[:] = split(sys.argv)
        app.run(main, argv=rest)
    except KeyboardInterrupt as error:
        end(error.signal if isinstance(error, stopping.Stopped) else signal.SIGINT)
    except Exception as error:
        ended.set()
        sys.exit(printable(sentence(error) or "".join(traceback.format_exception(error))))


def show_in_help(command: Callable[[], None]) -> None:
    """Show all of the package's flags in --help, and what the command's own file says it does."""
    program = sys.modules["__main__"]  # of a console command: a file without a docstring
    program.__doc__ = program.__doc__ or sys.modules[command.__module__].__doc__
    for module, defined in flags.FLAGS.flags_by_module_dict().items():
        if module.startswith("eef_jax"):
            for flag in defined:
                flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def _end(number: signal.Signals, left: str, ended: threading.Event) -> NoReturn:
    """Say in one line what is left, and end the process."""
    ended.set()
    sys.stdout.flush()
    if logging.getLogger("eef_jax").level <= logging.INFO:  # else the run's lead says it for all
        said = "interrupted" if number is signal.SIGINT else f"ended by {number.name}"
        show(f"\n{said}: {left}", file=sys.stderr)
    stopping.farewell()
    # Without the handlers of the interpreter's end, which wait for the device. Stages are committed
    # by their last file, and locks of dead processes are taken over: this is as safe as a crash.
    os._exit(stopping.Stopped(number).exit_code)
