"""The manifest of a folder: what it says, and what `verify` notices."""

import pytest
from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage import files, manifest, sealed

HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"


@pytest.fixture
def folder(tmp_path):
    folder = epath.Path(tmp_path / "stage")
    (folder / "sub").mkdir(parents=True)
    files.write_text(folder / "a.txt", "hello")
    files.write_bytes(folder / "sub" / "records", b"\0" * 10)
    return folder


def test_it_lists_sizes_and_hashes_and_keeps_the_facts(folder):
    made = manifest.write(folder, {"stage": "expert"})
    assert made == manifest.read(folder)
    assert made["stage"] == "expert"
    assert made["files"]["a.txt"] == {"bytes": 5, "sha256": HELLO}
    assert list(made["files"]) == ["a.txt", "sub/records"]
    manifest.verify(folder)


def test_changed_missing_and_new_files_are_named(folder):
    manifest.write(folder, {})
    files.write_text(folder / "a.txt", "hellp")
    files.write_text(folder / "new", "new")
    (folder / "sub/records").unlink()
    with pytest.raises(DataError) as error:
        manifest.verify(folder)
    for text in ("a.txt was changed", "sub/records is missing", "new is not in the manifest"):
        assert text in str(error.value)
    assert f"move {folder} away" in str(error.value)


def test_of_skipped_files_the_size_is_checked(folder):
    manifest.write(folder, {})
    records = folder / "sub/records"
    records.write_bytes(b"\1" * 10)
    manifest.verify(folder, skip=["sub/*"])
    records.write_bytes(b"\0" * 9)
    with pytest.raises(DataError, match="sub/records was changed"):
        manifest.verify(folder, skip=["sub/*"])


def test_a_missing_a_changed_and_another_versions_manifest(folder):
    with pytest.raises(DataError, match="is missing"):
        manifest.read(folder)
    sealed.write(folder / manifest.NAME, {"schema": 0, "files": {}})
    with pytest.raises(DataError, match=r"schema 0, .* reads 2; move .* away"):
        manifest.read(folder)
    files.write_text(folder / manifest.NAME, "{")
    with pytest.raises(DataError, match=r"manifest\.json is not valid JSON"):
        manifest.verify(folder)


def test_a_bucket_is_like_a_disk(bucket, folder):
    target = epath.Path(bucket) / "stage"
    for path in manifest.walk(folder):
        (target / path.relative_to(folder)).write_bytes(path.read_bytes())
    assert manifest.write(target, {}) == manifest.write(folder, {})
    manifest.verify(target, skip=["sub/*"])
    (target / "a.txt").write_text("else")
    with pytest.raises(DataError, match=r"a\.txt was changed"):
        manifest.verify(target)
