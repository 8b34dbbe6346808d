"""Plug-ins by name: found without a list, from outside the tree, and clear about what is wrong."""

import importlib

import pytest

from eef_jax import config as config_lib
from eef_jax import plugins
from eef_jax.errors import ConfigError, check_at_least


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A package outside the tree, to be filled with modules."""
    package = tmp_path / f"outside_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)

    def add(name, text):
        (package / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return f"{package.name}.{name}"

    return add


def test_names_are_the_modules_of_the_package():
    names = plugins.available("methods")
    assert {"eef", "rft", "sft_all", "sft_positive"} <= set(names)
    assert "base" not in names


@pytest.mark.parametrize("name", plugins.available("methods"))
def test_every_method_is_a_plugin(name):
    module = plugins.load("methods", name)
    method = module.make(module.Config())
    assert method.name == name
    assert method.rounds >= 0


def test_an_unknown_name_lists_the_near_ones():
    with pytest.raises(ConfigError, match=r"no plug-in 'sft_positiv'.*did you mean sft_positive"):
        plugins.load("methods", "sft_positiv")


def test_a_dotted_name_comes_from_outside(outside):
    name = outside(
        "mine",
        "import dataclasses\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Config:\n"
        "    size: int = 1\n"
        "def make(config): return ('made', config.size)\n",
    )
    values = config_lib.plain(config_lib.load("configs/webshop.py:tiny"))
    values["method"] = {"name": name, "size": 4}
    assert config_lib.make("method", config_lib.read(values).method) == ("made", 4)
    values["method"]["sise"] = 4
    with pytest.raises(ConfigError, match=r"no field method\.sise: did you mean method\.size"):
        config_lib.read(values)


def test_a_plug_in_declares_its_section(outside):
    name = outside("bare", "def make(config): return 1")
    with pytest.raises(ConfigError, match="declares no config section"):
        config_lib.override({"method": {"name": "eef"}}, [("method.name", name)])


def test_a_dotted_name_that_is_not_there():
    with pytest.raises(ConfigError, match=r"finds no module 'nowhere_pkg'.*PYTHONPATH"):
        plugins.load("methods", "nowhere_pkg.mine")
    with pytest.raises(ConfigError, match="finds no module"):
        plugins.load("methods", "eef_jax.methods.nothing")


def test_a_missing_package_is_named(outside):
    name = outside("needy", "import surely_not_installed")
    with pytest.raises(ConfigError, match="needs the package 'surely_not_installed'"):
        plugins.load("methods", name)


def test_a_module_without_make(outside):
    with pytest.raises(ConfigError, match="has no function make"):
        plugins.load("methods", outside("empty", ""))


@pytest.mark.parametrize("value", [1.5, "2", True, 0])
def test_at_least(value):
    with pytest.raises(ConfigError, match=r"field is .* 1 or more"):
        check_at_least("field", value, 1)
