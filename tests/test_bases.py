"""Bases by their names: those that ship, folders, and models on a hub at one commit."""

import pytest

from eef_jax import bases
from eef_jax.errors import ConfigError, DataError
from tests import hub


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub.serve() as made:
        hub.use(monkeypatch, made.url, tmp_path / "cache")
        yield made


def test_bases_that_ship_are_found_by_name():
    assert bases.find("") == bases.find("nano:webshop") == bases.WEBSHOP
    with pytest.raises(ConfigError, match=r"'nano:webshap'.* did you mean webshop.*pretrain\.main"):
        bases.find("nano:webshap")


@pytest.mark.parametrize("path", ["", "nano:webshop", "./org/toy", "gs://bucket/toy", "toy"])
def test_only_a_name_on_the_hub_gets_a_commit(path):
    assert bases.pinned(path) == path


def test_an_existing_folder_wins(server, tmp_path, monkeypatch):
    commit = server.push("org/toy", {"config.json": b"{}", "model.safetensors": b""})
    assert bases.find("org/toy").endswith(f"snapshots/{commit}")
    (tmp_path / "org" / "toy").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert bases.find("org/toy") == bases.pinned("org/toy") == "org/toy"


def test_a_run_stays_with_its_commit(server):
    first = server.push("org/toy", {"config.json": b"1"})
    assert bases.pinned("org/toy") == bases.pinned("org/toy@main") == f"org/toy@{first}"
    second = server.push("org/toy", {"config.json": b"2"})
    assert bases.pinned("org/toy", f"org/toy@{first}") == f"org/toy@{first}"
    assert bases.pinned("org/toy@main", f"org/toy@{first}") == f"org/toy@{second}"
    for other in ("", "nano:webshop", f"org/other@{first}", "org/toy"):
        assert bases.pinned("org/toy", other) == f"org/toy@{second}"


def test_a_mistyped_folder_is_looked_for_on_the_hub(server):
    with pytest.raises(DataError, match="runs/model is neither a folder here nor a model on the"):
        bases.find("runs/model")
