"""Where a config comes from: names of those that ship, and files."""

import re
from pathlib import Path

import pytest

from eef_jax import config as config_lib
from eef_jax.config import source
from eef_jax.errors import ConfigError


def refuse(name):
    with pytest.raises(ConfigError) as error:
        config_lib.load(name)
    return str(error.value)


def test_a_name_is_a_config_that_ships_from_any_folder(tmp_path, monkeypatch):
    file = config_lib.load("configs/webshop.py:tiny")
    monkeypatch.chdir(tmp_path)
    assert config_lib.load("webshop:tiny") == file
    assert set(source.shipped()) == {"scienceworld", "template", "textworld_express", "webshop"}


def test_an_unknown_name_lists_the_near_ones():
    assert "no config 'websop' ships: did you mean webshop" in refuse("websop:tiny")
    assert "no preset 'tinny'" in refuse("webshop:tinny")
    assert "or the name of one that ships: scienceworld, " in refuse("webshop.py")


@pytest.mark.parametrize("content", [b"\xff\xfe = 1", b"def get_config(:"])
def test_a_file_that_is_not_python_is_named(tmp_path, content):
    (tmp_path / "mine.py").write_bytes(content)
    assert re.search(r"mine\.py, line 1 is not Python", refuse(f"{tmp_path}/mine.py"))


def test_a_file_imports_its_neighbours_by_their_folder(tmp_path, monkeypatch):
    folder = tmp_path / "mine_and_neighbour"
    folder.mkdir()
    (folder / "base.py").write_text(
        "from eef_jax.configs import webshop\ndef tasks(): return 7\n"
        "def get_config(preset): return webshop.tiny()\n"
    )
    (folder / "run.py").write_text(
        "from mine_and_neighbour import base\n"
        "def get_config(preset):\n"
        "    config = base.get_config(preset)\n"
        "    config.env.train_tasks = base.tasks()\n"
        "    return config\n"
    )
    monkeypatch.chdir("/")
    assert config_lib.load(str(folder / "run.py")).env.options.train_tasks == 7


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no config file"),
        ("x = 1", "no function get_config"),
        (
            "from eef_jax import config\n"
            "def get_config(preset):\n"
            "    made = config.new(method='eef')\n"
            "    made.train.epoch = 3\n"
            "    return made\n",
            "epochs",
        ),
    ],
)
def test_a_file_that_is_not_a_config_says_so(tmp_path, content, message):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    assert message in refuse(str(path))


def test_a_config_file_is_found_from_another_folder(tmp_path, monkeypatch):
    file = Path("configs/webshop.py").resolve()
    monkeypatch.chdir(tmp_path)
    assert config_lib.load(f"{file}:tiny").env.options.train_tasks == 40
