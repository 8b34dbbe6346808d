"""Models on a hub: what is downloaded, which commit a name means, and what each failure says."""

import shutil

import pytest

from eef_jax.errors import DataError
from eef_jax.storage import hub
from eef_jax.storage.hub import Repository
from tests import hub as fake

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"[1]",
    "tokenizer_config.json": b"[2]",
    "chat_template.jinja": b"{{ x }}",
    "merges.txt": b"a b",
    "model.safetensors": b"weights",
}
UNNEEDED = {
    ".gitattributes": b"",
    "README.md": b"card",
    "trainer_state.json": b"{}",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"the same again",
    "onnx/model.safetensors": b"the same again",
    "original/config.json": b"{}",
}
TOY = Repository(id="org/toy")


@pytest.fixture
def server(tmp_path, monkeypatch):
    with fake.serve() as made:
        fake.use(monkeypatch, made.url, tmp_path / "cache")
        yield made


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/toy", TOY),
        ("Org-1/toy_2.5-B@v1.0", Repository(id="Org-1/toy_2.5-B", revision="v1.0")),
        ("org/toy@refs/pr/1", Repository(id="org/toy", revision="refs/pr/1")),
        *((text, None) for text in ("", "toy", "./org/toy", "/org/toy", "a/b/c", "nano:webshop")),
        *((text, None) for text in ("gs://bucket/toy", "org/toy@", "~/toy", "../toy")),
    ],
)
def test_names_of_repositories(text, expected):
    assert hub.parse(text) == expected


def test_what_a_model_needs_is_downloaded_and_nothing_else(server):
    commit = server.push("org/toy", FILES | UNNEEDED)
    folder = hub.download(TOY)
    assert names(folder) == sorted(FILES) and folder.name == commit
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert sorted(server.fetched) == sorted(f"org/toy/{name}" for name in FILES)
    assert hub.download(TOY) == folder and len(server.fetched) == len(FILES)


def test_weights_in_several_files_come_with_their_index(server):
    parts = {f"model-0000{i}-of-00002.safetensors": b"part" for i in (1, 2)}
    files = FILES | parts | {"model.safetensors.index.json": b"{}"}
    del files["model.safetensors"]
    server.push("org/toy", files | UNNEEDED)
    assert names(hub.download(TOY)) == sorted(files)


def test_config_and_tokenizer_alone(server):
    server.push("org/toy", FILES)
    assert "model.safetensors" not in names(hub.download(TOY, weights=False))
    assert server.fetched and "org/toy/model.safetensors" not in server.fetched


def test_a_revision_is_a_branch_a_tag_or_a_commit(server):
    first = server.push("org/toy", FILES | {"config.json": b"[1]"}, branch="v1")
    second = server.push("org/toy", FILES)
    for revision, commit in {"": second, "main": second, "v1": first, first: first}.items():
        repository = Repository(id="org/toy", revision=revision)
        assert hub.pinned(repository) == Repository(id="org/toy", revision=commit)
        assert hub.download(repository, weights=False).name == commit


def test_without_a_network_the_cached_copy_is_used(server, tmp_path, monkeypatch):
    commit = server.push("org/toy", FILES)
    online = hub.download(TOY)
    for url, offline in ((server.url, True), ("http://127.0.0.1:9", False)):
        fake.use(monkeypatch, url, tmp_path / "cache", offline=offline)
        assert hub.pinned(TOY).revision == commit
        assert hub.download(TOY) == online


def test_a_copy_that_another_program_made_by_hand_is_used(tmp_path, monkeypatch):
    commit = "0" * 40
    snapshot = tmp_path / "cache" / "models--org--toy" / "snapshots" / commit
    (snapshot.parents[1] / "refs").mkdir(parents=True)
    (snapshot.parents[1] / "refs" / "main").write_text(commit)
    snapshot.mkdir(parents=True)
    for name, content in FILES.items():
        (snapshot / name).write_bytes(content)
    fake.use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=True)
    assert hub.download(TOY) == snapshot


@pytest.mark.parametrize(
    ("revision", "offline", "why"),
    [
        ("", True, "HF_HUB_OFFLINE is set"),
        ("0" * 40, True, "HF_HUB_OFFLINE is set"),
        ("", False, "refused"),
    ],
)
def test_without_network_and_copy(tmp_path, monkeypatch, revision, offline, why):
    fake.use(monkeypatch, "http://127.0.0.1:9", tmp_path / "cache", offline=offline)
    with pytest.raises(DataError, match=rf"org/toy.*cannot be reached \(.*{why}.*hf download"):
        hub.download(Repository(id="org/toy", revision=revision))


def test_a_copy_that_lacks_files_is_not_used(server, tmp_path, monkeypatch):
    server.push("org/toy", FILES)
    folder = hub.download(TOY)
    (folder / "model.safetensors").unlink()
    fake.use(monkeypatch, server.url, tmp_path / "cache", offline=True)
    with pytest.raises(
        DataError, match=r"nor complete in this machine's cache.*hf download org/toy --rev"
    ):
        hub.download(TOY)


def test_unknown_and_private_models(server):
    with pytest.raises(DataError, match=r"org/toy is neither a folder here nor a model on the"):
        hub.download(TOY)


def test_unknown_revisions(server):
    server.push("org/toy", FILES)
    for revision in ("v9", "0" * 40):
        with pytest.raises(DataError, match=rf"org/toy .* has no revision '{revision}'"):
            hub.download(Repository(id="org/toy", revision=revision))


def test_gated_models(server):
    server.push("org/toy", FILES)
    server.gated.add("org/toy")
    with pytest.raises(DataError, match=r"org/toy is gated: accept its terms"):
        hub.download(TOY)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"pytorch_model.bin": b"pickle"}, r"its weights are pytorch_model\.bin"),
        ({"toy.Q4.gguf": b"GGUF", "original/x.pth": b""}, r"are toy\.Q4\.gguf, original/x\.pth"),
        ({}, "its weights are missing"),
        ({"adapter_model.safetensors": b""}, r"is an adapter: name its base .*hf download org/toy"),
    ],
)
def test_models_without_safetensors(server, others, said):
    files = {name: data for name, data in FILES.items() if name != "model.safetensors"}
    server.push("org/toy", files | others)
    with pytest.raises(DataError, match=said):
        hub.download(TOY)
    assert not any(name.endswith(".bin") for name in server.fetched)


def test_a_disk_without_room(server, monkeypatch):
    server.push("org/toy", FILES)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "move", full)
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(DataError, match=r"org/toy.*No space left on device"):
        hub.download(TOY)
