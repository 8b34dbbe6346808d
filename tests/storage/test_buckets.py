"""Buckets: conditional writes, local copies, and what a user is told where something is missing."""

import pytest
from google.api_core import exceptions
from google.auth import exceptions as auth_exceptions

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import buckets, files
from eef_jax.storage.workdir import find_checkpoint, open_workdir, read_workdir


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/eef_jax"


def put(folder, **contents):
    for name, content in contents.items():
        files.write_text(f"{folder}/{name.replace('__', '/')}.txt", content)


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_an_object_is_replaced_only_as_it_was_read(bucket):
    path = f"{bucket}/x"
    assert buckets.read(path) == buckets.ABSENT
    first = buckets.replace(path, b"one", generation=0)
    assert buckets.replace(path, b"two", generation=0) is None
    assert buckets.read(path) == buckets.Versioned(data=b"one", generation=first)
    second = buckets.replace(path, b"two", generation=first)
    assert buckets.replace(path, b"three", generation=first) is None
    assert buckets.read(path) == buckets.Versioned(data=b"two", generation=second)


def test_a_local_folder_is_its_own_copy(tmp_path, monkeypatch):
    assert files.local_copy(tmp_path) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.local_copy("~/model") == tmp_path / "model"


def test_a_bucket_is_copied_once_for_each_content(bucket, cache):
    put(f"{bucket}/model", a="1", sub__b="2")
    copy = files.local_copy(f"{bucket}/model")
    assert names(copy) == ["a.txt", "sub/b.txt"] and (copy / "sub/b.txt").read_text() == "2"
    before = copy.stat()
    assert files.local_copy(f"{bucket}/model/").stat() == before
    put(f"{bucket}/model", a="3")  # as long as before
    assert (files.local_copy(f"{bucket}/model") / "a.txt").read_text() == "3"


def test_only_what_is_needed_is_copied(bucket):
    put(f"{bucket}/model", config="1", weights="2")
    put(f"{bucket}/model-2", config="other")
    assert names(files.local_copy(f"{bucket}/model", only=["conf*"])) == ["config.txt"]


def test_an_interrupted_copy_is_not_taken_for_a_whole_one(bucket, cache, monkeypatch):
    put(f"{bucket}/model", a="1", b="2")
    with monkeypatch.context() as broken:
        broken.setattr(buckets.pathlib.Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            files.local_copy(f"{bucket}/model")
    assert names(files.local_copy(f"{bucket}/model")) == ["a.txt", "b.txt"]


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("folder", "only", "complaint"),
    [
        ("{bucket}/nothing", ["*"], "gs://.*/nothing holds nothing: is it the right folder"),
        ("{bucket}/model", ["*.json"], r"gs://.*/model holds none of \*.json"),
        ("gs://no-such-bucket/model", ["*"], "does the bucket exist"),
    ],
)
def test_a_wrong_folder_is_named(bucket, folder, only, complaint):
    put(f"{bucket}/model", a="1")
    with pytest.raises(DataError, match=complaint):
        files.local_copy(folder.format(bucket=bucket), only=only)


def test_the_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(buckets, "_MODULES", ("no_such_package.storage",))
    buckets.set_up.cache_clear()
    try:
        with pytest.raises(ConfigError) as error:
            files.to_path("gs://bucket/run")
    finally:
        buckets.set_up.cache_clear()
    assert str(error.value) == "paths on gs:// need the extra 'gcs': pip install -e '.[gcs]'"


def test_other_stores_are_refused():
    with pytest.raises(ConfigError, match="s3://bucket/run is neither on a local disk nor on gs"):
        files.to_path("s3://bucket/run")


def test_a_process_sees_what_another_one_writes(bucket):
    # Without listings that are kept: gcsfs keeps them for ever.
    folder = files.to_path(f"{bucket}/stage")
    put(folder, a="1")
    assert [p.name for p in folder.iterdir()] == ["a.txt"]
    buckets.replace(f"{bucket}/stage/b.txt", b"2", generation=0)
    assert [p.name for p in folder.iterdir()] == ["a.txt", "b.txt"]
    assert (folder / "b.txt").exists()


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (exceptions.NotFound("no"), "gs://bucket/run is not there: does the bucket exist"),
        (exceptions.Forbidden("no access"), "cannot be reached .*no access.*: are you logged in"),
        (auth_exceptions.RefreshError("expired\nand more"), r"cannot be reached \(expired\)"),
    ],
)
@pytest.mark.parametrize("open_run", [find_checkpoint, read_workdir, lambda p: enter(p)])
def test_a_bucket_that_cannot_be_used_is_one_sentence(monkeypatch, error, complaint, open_run):
    class Client:
        def list_blobs(self, *_, **__):
            raise error

    monkeypatch.setattr(buckets, "client", Client)
    with pytest.raises(DataError, match=complaint):
        open_run("gs://bucket/run")


def enter(path):
    with open_workdir(path, {}):
        pass
