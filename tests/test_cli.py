"""What the command lines share: fields, flags that name files, help, and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from eef_jax import cli
from eef_jax.errors import ConfigError
from tests import forks, toyrun

SLEEPER = """
import sys, time
from eef_jax import cli

def wait():
    print("ready", flush=True)
    {wait}

cli.run(wait, interrupted="start it again")
"""
# Python raises no KeyboardInterrupt while the main thread is in a call like this one, for minutes.
BLOCKING = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"


@pytest.fixture
def given(monkeypatch):
    """Define a path flag in a fresh set of flags, and read it from the command line."""

    def parse(*words, **options):
        values = flags.FlagValues()
        monkeypatch.setattr(cli.flags, "DEFINE", _define_in(values))
        cli.define_path("folder", None, "A folder.", **options)
        values(["program", *words])
        return values.folder

    return parse


def _define_in(values, real=flags.DEFINE):
    return lambda *args, **kwargs: real(*args, flag_values=values, **kwargs)


def test_a_path_flag(given, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert given() is None
    assert given("--folder=~/runs/x") == f"{tmp_path}/runs/x"
    assert given("--folder", "runs/x") == "runs/x"
    assert given("--folder=gs://bucket/run") == "gs://bucket/run"


def test_a_path_that_cannot_be_used_is_refused_at_once(given):
    with pytest.raises(ConfigError, match="s3://bucket/run is neither"):
        given("--folder=s3://bucket/run")
    with pytest.raises(ConfigError, match=r"--folder=gs://bucket/x: .* local files alone"):
        given("--folder=gs://bucket/x", local=True)


def test_fields_are_parted_from_flags():
    argv = ["main", "--config=x.py", "--config.train.epochs=2", "--config.seed", "3", "--check"]
    rest, fields = cli.split(argv)
    assert rest == ["main", "--config=x.py", "--check"]
    assert fields == [("train.epochs", "2"), ("seed", "3")]


def test_a_field_without_a_value():
    with pytest.raises(ConfigError, match=r"--config\.seed has no value"):
        cli.split(["main", "--config.seed", "--check"])


@pytest.mark.parametrize("wait", ["time.sleep(60)", BLOCKING])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "ended by SIGTERM")],
)
def test_a_signal_is_one_line_that_says_how_to_go_on(wait, number, code, said):
    command = [sys.executable, "-c", SLEEPER.format(wait=wait)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=10)
    assert process.returncode == code
    assert errors.strip() == f"{said}: start it again"


# The terminal becomes the process's own, so that it turns Ctrl-C into a signal.
IN_TERMINAL = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)" + SLEEPER


def test_ctrl_c_on_a_terminal():
    terminal, side = os.openpty()
    command = [sys.executable, "-c", IN_TERMINAL.format(wait="time.sleep(60)")]
    with subprocess.Popen(
        command, stdin=side, stdout=side, stderr=side, start_new_session=True
    ) as process:
        os.close(side)
        assert os.read(terminal, 100) == b"ready\r\n"
        os.write(terminal, b"\x03")  # what the key sends
        assert process.wait(timeout=10) == 130
    lines = os.read(terminal, 1000).decode().split("\r\n")
    os.close(terminal)
    assert lines == ["^C", "interrupted: start it again", ""]


def test_an_error_that_an_interrupt_turns_into_is_told_instead():
    """Such as the loss of a lock, which interrupts the main thread."""
    wait = (
        "from eef_jax.errors import ConfigError\n"
        "    try:\n"
        "        print('waiting', flush=True)\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt: raise ConfigError('lost the lock') from None"
    )
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER.format(wait=wait)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() + process.stdout.readline() == "ready\nwaiting\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors.strip()) == (1, "ConfigError: lost the lock")


def test_a_request_is_no_line_of_the_log():
    program = (
        "import logging\nfrom eef_jax import cli\ncli.plain_logs()\n"
        "for name in ('httpx', 'openai._base_client', 'fsspec', 'absl', 'eef_jax.pipeline'):\n"
        "    logging.getLogger(name).info('from %s', name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr.splitlines() == ["from eef_jax.pipeline"]


@pytest.mark.parametrize("module", ["main", "evaluate"])
def test_help_says_how_to_list_the_configs_fields(module):
    command = [sys.executable, "-m", f"eef_jax.{module}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    text = " ".join(done.stdout.split())
    assert "--config_help lists them" in text and "--cluster" in text.replace("[no]", "")
    assert "--workdir" in text


# What each command line is given, and what it says; FILE is a file, BINARY one that is not UTF-8.
TINY = "--config=webshop:tiny"
SYSTEM_ERRORS = [
    (
        "eef_jax.main",
        [TINY, "--workdir=FILE/run"],
        "FILE/run cannot be written .*another --workdir",
    ),
    ("eef_jax.main", ["--config=BINARY.py"], "BINARY.py, line 1 is not Python"),
    ("eef_jax.main", [TINY, "--config.model.path=FILE"], "FILE', which is not a folder"),
    ("eef_jax.evaluate", ["--checkpoint=FILE"], "there is no checkpoint at FILE"),
    (
        "eef_jax.export",
        ["--checkpoint=NONE", "--format=peft", "--out=FILE/adapter"],
        "there is no checkpoint at NONE",
    ),
    ("eef_jax.report", ["--workdir=FILE"], "FILE/config.json is missing; name the --workdir"),
    ("eef_jax.compile", ["--config=FOLDER", "--topology=v5e:2x2"], "no config file 'FOLDER'"),
    (
        "eef_jax.importers",
        ["--format=eto", TINY, "--file=BINARY.py", "--out=FOLDER"],
        "BINARY.py is not UTF-8",
    ),
    ("eef_jax.importers", ["--format=eto", TINY, "--file=FOLDER", "--out=x"], "FOLDER .*directory"),
    (
        "eef_jax.envs.webshop.nouns",
        ["--products=NONE", "--out=FILE/n"],
        "FILE/n.*Not a directory; look at the path",
    ),
]


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize(("module", "words", "said"), SYSTEM_ERRORS)
def test_errors_of_the_operating_system_are_one_sentence(tmp_path, module, words, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe = 1\n")
    (tmp_path / "folder").mkdir()

    def real(text):
        for name in ("FILE", "BINARY", "FOLDER", "NONE"):
            text = text.replace(name, str(tmp_path / name.lower()))
        return text

    before = sorted(tmp_path.rglob("*"))
    command = forks.Command(module, *map(real, words), environment=os.environ)
    errors, _ = command.communicate(timeout=120)
    assert command.returncode == 1 and "Traceback" not in errors, errors
    assert re.search(real(said), errors), errors
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.processes
@pytest.mark.slow
def test_no_room_is_said_and_nothing_is_half_written(tmp_path):
    work = toyrun.make(tmp_path / "run")
    before = sorted((tmp_path / "run").rglob("*"))
    program = (
        "import resource, runpy, sys\n"
        "sys.dont_write_bytecode = True  # which the limit would cut off without an error\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "runpy.run_module('eef_jax.report', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, f"--workdir={work.root}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"report\.md: File too large; raise the limit", done.stderr), done.stderr
    assert sorted((tmp_path / "run").rglob("*")) == before
