"""What the command lines share: fields, flags that name files, help, and Ctrl-C."""

import signal
import subprocess
import sys
import time

import pytest
from absl import flags

from eef_jax import cli
from eef_jax.errors import ConfigError

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


def test_a_path_flag(given, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert given() is None
    assert given("--folder=~/runs/x") == "/home/me/runs/x"
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


@pytest.mark.parametrize("module", ["main", "evaluate"])
def test_help_says_how_to_list_the_configs_fields(module):
    command = [sys.executable, "-m", f"eef_jax.{module}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    text = " ".join(done.stdout.split())
    assert "--config_help lists them" in text and "--cluster" in text.replace("[no]", "")
    assert "--workdir" in text
