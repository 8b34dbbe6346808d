"""The work folder on a local disk and in a bucket: commits, clearing, configs."""

import json
import os
import sys
import tempfile

import pytest
from etils import epath
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eef_jax.errors import ConfigError, DataError
from eef_jax.storage import files, manifest, provenance
from eef_jax.storage.workdir import Stage, open_workdir, read_workdir
from tests import object_store
from tests.properties import JSON, TEXTS, holds_through

CONFIG = {"seed": 0, "method": {"name": "eef", "states": 5}, "mesh": [1, 1]}


@pytest.fixture(params=["local", "gs"])
def root(request, tmp_path):
    if request.param == "local":
        return epath.Path(tmp_path / "run")
    return epath.Path(f"{request.getfixturevalue('bucket')}/run")


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_stage_is_done_when_its_manifest_is_written(root):
    with open_workdir(root, CONFIG) as workdir:
        stage = workdir.stage("round_1/explore")
        assert not stage.done()
        folder = stage.start()
        files.write_text(folder / "a.txt", "hello")
        (folder / "sub").mkdir()
        files.write_bytes(folder / "sub" / "b.bin", b"\0" * 10)
        assert not stage.done()
        origin = provenance.collect_provenance(CONFIG, seed=3)
        manifest = stage.commit({"won": 1, "failed": 2}, origin)
        assert stage.done()
        assert stage.manifest() == manifest
        assert manifest["counts"] == {"won": 1, "failed": 2}
        assert {name: entry["bytes"] for name, entry in manifest["files"].items()} == {
            "a.txt": 5,
            "sub/b.bin": 10,
        }
        assert manifest["provenance"]["seed"] == 3
        assert manifest["provenance"]["config_hash"] == provenance.config_hash(CONFIG)
        stage.verify()


def test_a_stage_that_starts_again_is_empty(root):
    with open_workdir(root, CONFIG) as workdir:
        stage = workdir.stage("expert")
        files.write_text(stage.start() / "half.jsonl", "{")
        assert not stage.done()
        assert names(stage.start()) == []
        files.write_text(stage.folder / "whole.jsonl", "{}")
        stage.commit({})
        stage.start()
        assert not stage.done()


def test_a_stage_goes_on_from_what_it_keeps(root):
    with open_workdir(root, CONFIG) as workdir:
        stage = workdir.stage("round_0/tune")
        (stage.start() / "training").mkdir()
        for name in ("training/saved", "metrics.jsonl", "other"):
            files.write_text(stage.folder / name, name)
        stage.commit({})
        stage.start(keep=("training", "metrics.jsonl", "never there"))
        assert not stage.done()
        assert names(stage.folder) == ["metrics.jsonl", "training"]
        assert (stage.folder / "training/saved").read_text() == "training/saved"


def test_the_content_of_a_stage_is_that_of_its_files(root):
    with open_workdir(root, CONFIG) as workdir:
        stage = workdir.stage("expert")
        found = []
        for text, counts in (("a", {}), ("a", {"seconds": 1}), ("b", {})):
            files.write_text(stage.start() / "file", text)
            stage.commit(counts)
            found.append(stage.content())
        assert found[0] == found[1] != found[2]


def test_changed_files_are_found(root):
    with open_workdir(root, CONFIG) as workdir:
        stage = workdir.stage("expert")
        for name in ("changed", "missing", "same"):
            files.write_text(
                stage.start() / name if name == "changed" else stage.folder / name, name
            )
        stage.commit({})
        files.write_text(stage.folder / "changed", "else")
        files.write_text(stage.folder / "new", "new")
        (stage.folder / "missing").unlink()
        with pytest.raises(DataError) as error:
            stage.verify()
        for text in ("missing is missing", "new is not in the manifest", "changed was changed"):
            assert text in str(error.value)
        assert "same" not in str(error.value)


def test_the_manifest_is_the_last_upload(monkeypatch):
    bucket = object_store.install(monkeypatch)
    stage = Stage(name="expert", folder=epath.Path("gs://bucket/run/expert"))
    files.write_text(stage.start() / "a", "a")
    bucket.fail_on = "manifest.json"
    with pytest.raises(ConnectionError):
        stage.commit({})
    assert not stage.done()
    bucket.fail_on = None
    stage.commit({})
    assert stage.done()
    assert bucket.uploads[-1] == "gs://bucket/run/expert/manifest.json"


def test_a_changed_config_is_refused_and_nothing_is_deleted(root):
    with open_workdir(root, CONFIG) as workdir:
        workdir.stage("expert").start()
        workdir.stage("expert").commit({})
    path = root / "config.json"
    path.write_text(path.read_text().replace('"states": 5', '"states": 6'))
    for attempt in (lambda: read_workdir(root), lambda: open_workdir(root, CONFIG).__enter__()):
        with pytest.raises(DataError, match=r"config\.json was changed .* from a copy"):
            attempt()
    assert workdir.stage("expert").done()


def test_the_same_config_continues(root):
    for _ in range(2):
        with open_workdir(root, CONFIG | {"mesh": (1, 1)}) as workdir:
            stage = workdir.stage("expert")
            if not stage.done():
                stage.start()
                stage.commit({"tries": 1})
    assert read_workdir(root).config == CONFIG
    assert read_workdir(root).stage("expert").manifest()["counts"] == {"tries": 1}


def test_another_config_is_refused_by_its_differing_keys(root):
    with open_workdir(root, CONFIG) as workdir:
        workdir.stage("expert").start()
        workdir.stage("expert").commit({})
    other = {"seed": 0, "method": {"name": "rft", "states": 5, "rollouts": 6}, "mesh": [1, 1]}
    with pytest.raises(ConfigError) as error, open_workdir(root, other):
        pass
    text = str(error.value)
    assert "method.name: 'eef' there, 'rft' now" in text
    assert "method.rollouts: '(absent)' there, 6 now" in text
    assert "states" not in text and "seed" not in text
    assert "--overwrite" in text and "another --workdir" in text
    assert f"--config.expert.trajectories={root}/expert" in text
    assert read_workdir(root).config == CONFIG
    assert read_workdir(root).stage("expert").done()


def test_overwrite_starts_afresh(root):
    with open_workdir(root, CONFIG) as workdir:
        files.write_text(root / "report.md", "old")
        workdir.stage("round_1/tune").start()
        workdir.stage("round_1/tune").commit({})
    with open_workdir(root, CONFIG | {"seed": 1}, overwrite=True) as workdir:
        assert not workdir.stage("round_1/tune").done()
        assert names(root) == ["config.json", "lock"]
    assert read_workdir(root).config["seed"] == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_left_alone(root, overwrite):
    root.mkdir(parents=True, exist_ok=True)
    files.write_text(root / "thesis.tex", "years of work")
    error = pytest.raises(ConfigError, match=r"thesis\.tex.*not the folder of a run")
    with error, open_workdir(root, CONFIG, overwrite=overwrite):
        pass
    assert names(root) == ["thesis.tex"]


def test_a_file_is_no_work_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"), open_workdir(tmp_path / "file", {}):
        pass


def test_reading_where_no_run_is(tmp_path):
    with pytest.raises(DataError, match=r"config\.json is missing"):
        read_workdir(tmp_path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    files.write_json(path, {"old": True})

    def broken(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {"new": True})
    assert files.read_json(path, remedy="") == {"old": True}
    assert names(tmp_path) == ["file.json"]


def test_provenance_is_json_and_knows_the_commit():
    origin = provenance.collect_provenance(CONFIG, seed=0)
    assert json.loads(json.dumps(origin)) == origin
    assert origin["versions"]["python"] == sys.version.split()[0]
    assert origin["commit"] is None or len(origin["commit"].rstrip("+")) == 40
    reordered = dict(reversed(CONFIG.items()))
    assert provenance.config_hash(reordered) == origin["config_hash"]
    assert provenance.config_hash(CONFIG | {"seed": 1}) != origin["config_hash"]


def test_a_work_folder_in_use_is_refused(root):
    with open_workdir(root, CONFIG):
        with pytest.raises(ConfigError) as error, open_workdir(root, CONFIG):
            pass
        assert f"process {os.getpid()}" in str(error.value)
        assert "another --workdir" in str(error.value)
    with open_workdir(root, CONFIG):
        pass


def test_parts_outlive_a_start_and_are_no_part_of_a_committed_stage(root):
    stage = Stage(name="expert", folder=root / "expert")
    for _ in range(2):
        stage.start(keep=(manifest.PARTS,))
        (stage.parts / "episodes").mkdir(parents=True, exist_ok=True)
        (stage.parts / "episodes/a").write_text("kept")
        (stage.folder / "other").write_text("not kept")
    stage.start(keep=(manifest.PARTS,))
    assert (stage.parts / "episodes/a").read_text() == "kept"
    assert not (stage.folder / "other").exists()
    assert stage.commit({})["files"] == {}
    assert not stage.parts.exists()


class Stages(RuleBasedStateMachine):
    """Stages that start, are interrupted, committed, damaged and started again."""

    def __init__(self):
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.stages = {
            name: Stage(name=name, folder=epath.Path(self.root.name) / name)
            for name in ("expert", "round_0/select")
        }
        self.files = {name: {} for name in self.stages}  # what is in the folders
        self.committed = {}  # what was there at the commit

    def teardown(self):
        self.root.cleanup()

    names = st.sampled_from(["expert", "round_0/select"])

    @rule(name=names)
    def start(self, name):
        self.stages[name].start()
        self.files[name] = {}
        self.committed.pop(name, None)

    @rule(name=names, file=st.sampled_from(["a", "b/c"]), data=st.binary(max_size=3))
    def write(self, name, file, data):
        path = self.stages[name].folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, data)
        self.files[name][file] = data

    @rule(name=names, counts=st.dictionaries(TEXTS, JSON, max_size=2))
    def commit(self, name, counts):
        self.stages[name].folder.mkdir(parents=True, exist_ok=True)
        self.stages[name].commit(counts)
        assert self.stages[name].manifest()["counts"] == counts
        self.committed[name] = dict(self.files[name])

    @rule(name=names)
    def lose_a_file(self, name):
        if self.files[name]:
            file, _ = self.files[name].popitem()
            (self.stages[name].folder / file).unlink()

    @invariant()
    def what_is_done_is_what_was_committed(self):
        for name, stage in self.stages.items():
            assert stage.done() == (name in self.committed)
            if name not in self.committed:
                continue
            if self.files[name] == self.committed[name]:
                stage.verify()
            else:
                with pytest.raises(DataError, match="not as it was written"):
                    stage.verify()


test_stages_are_as_they_were_committed_or_refused = holds_through(Stages)
