"""Files, folders and paths, on disks and in buckets; what errors of reading JSON say."""

import errno
import os

import pytest
from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import buckets, files


def test_a_json_file_comes_back(tmp_path):
    files.write_json(tmp_path / "x.json", {"é \ud83d": [1, None]})
    assert files.read_json(tmp_path / "x.json", remedy="") == {"é \ud83d": [1, None]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is missing; copy it again"),
        (b"{", "is not valid JSON"),
        (b'["\xff"]', "is not valid JSON"),
        (b"{}", "holds a JSON dict, expected a list; copy it again"),
    ],
)
def test_an_unreadable_file_is_named_with_its_remedy(tmp_path, content, complaint):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        files.read_json(path, list, what="goal numbers", remedy="copy it again")
    assert f"goal numbers: {path}" in str(error.value)
    assert str(error.value).endswith("copy it again")


def test_the_entries_of_a_folder(tmp_path, bucket):
    for root in (tmp_path, files.to_path(bucket)):
        assert files.entries(root / "run") == []
        (root / "run/sub").mkdir(parents=True, exist_ok=True)
        for name in ("a", "sub/b"):
            files.write_text(root / "run" / name, name)
        assert sorted(p.name for p in files.entries(root / "run")) == ["a", "sub"]
    # What Google's console makes for "create folder".
    buckets.replace(f"{bucket}/run/", b"", generation=0)
    assert sorted(p.name for p in files.entries(f"{bucket}/run")) == ["a", "sub"]


def test_a_path_of_a_user(monkeypatch, bucket):
    monkeypatch.setenv("HOME", "/users/me")
    assert files.to_path("~/runs/x") == epath.Path("/users/me/runs/x")
    assert files.expand("runs/~x") == "runs/~x" and files.expand("") == ""
    assert str(files.to_path(f"{bucket}/run/")) == f"{bucket}/run"


def test_the_folders_above_a_path(tmp_path, monkeypatch, bucket):
    above = files.parents(f"{bucket}/run/round_1/tune")
    assert list(map(str, above)) == [f"{bucket}/run/round_1", f"{bucket}/run", bucket]
    monkeypatch.chdir(tmp_path)
    assert list(map(str, files.parents("run/tune")))[:2] == [f"{tmp_path}/run", str(tmp_path)]
    assert str(files.absolute("run")) == f"{tmp_path}/run"
    assert str(files.absolute(f"{bucket}/run")) == f"{bucket}/run"


def test_an_error_while_writing_names_the_file(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as error:
        files.write_bytes(tmp_path / "a", b"data")
    assert error.value.filename == str(tmp_path / "a")
    assert not list(tmp_path.iterdir())
