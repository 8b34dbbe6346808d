"""Sampling and start of training that a method's losses cannot learn from."""

from types import SimpleNamespace

import pytest

from eef_jax import config as config_lib
from eef_jax.errors import ConfigError
from eef_jax.preflight.losses import check_conversations, check_losses


def start(method, *changes):
    names = {"env": "webshop", "expert": "webshop", "method": method}
    base = config_lib.plain(
        config_lib.read({section: {"name": name} for section, name in names.items()})
    )
    config = config_lib.override(base, changes)
    return SimpleNamespace(config=config, method=config_lib.make("method", config.method))


@pytest.mark.parametrize("method", ["eef", "nat", "rwr", "eto", "grpo"])
def test_defaults_pass(method):
    check_losses(start(method))


@pytest.mark.parametrize(
    "change", [("explore.top_p", "0.9"), ("explore.top_k", "20"), ("explore.temperature", "0")]
)
def test_the_policy_gradient_needs_the_whole_distribution(change):
    with pytest.raises(ConfigError, match=r"set explore\.top_p=1, explore\.top_k=0"):
        check_losses(start("grpo", change))
    check_losses(start("eto", change))


@pytest.mark.parametrize("method", ["eto", "grpo"])
def test_a_comparison_with_the_policy_does_not_start_from_the_base(method):
    with pytest.raises(ConfigError, match=r"train\.init_from is 'base'"):
        check_losses(start(method, ("train.init_from", "base")))
    check_losses(start(method, ("train.init_from", "previous")))
    check_losses(start("eef", ("train.init_from", "base")))


def test_chats_are_there(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    here, gone = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    check_conversations(start("eef"))
    check_conversations(start("eef", ("train.conversations", here)))
    with pytest.raises(ConfigError, match=r"names .*b\.jsonl, which is not there"):
        check_conversations(start("eef", ("train.conversations", f"{here}, {gone}")))
