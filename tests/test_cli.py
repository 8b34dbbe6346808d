"""The command line: flags that name files and folders."""

import pytest
from absl import flags

from eef_jax import cli
from eef_jax.errors import ConfigError


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
