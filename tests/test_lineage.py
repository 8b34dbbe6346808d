"""What stages were made from, and what is said of one that no longer is."""

import shutil

import pytest
from etils import epath

from eef_jax import config as config_lib
from eef_jax import lineage, report
from eef_jax.errors import DataError
from eef_jax.lineage import Lineage
from eef_jax.storage.stages import stage_names
from eef_jax.storage.workdir import read_workdir
from tests import toygame, toyrun

NAMES = stage_names(2)


def made(path, *, env=None, config=None):
    """The toy run, whose manifests say what the stages were made from."""
    work = toyrun.make(path)
    commit_again(work, NAMES, Lineage(work, config, env=env, outside=True))
    return work


def commit_again(work, names, origin):
    for name in names:
        stage = work.stage(name)
        counts = stage.manifest()["counts"]
        stage.commit(counts, toyrun.PROVENANCE, made_from=origin.inputs(name))


def settings(**changes):
    return config_lib.read({**toyrun.CONFIG, **changes})


def test_nothing_is_stale_when_nothing_changed(tmp_path):
    env, config = toygame.Corridor(), settings()
    work = made(tmp_path / "run", env=env, config=config)
    Lineage(work, config, env=env, outside=True).check(NAMES)
    report.write(read_workdir(tmp_path / "run"))


def test_a_stage_that_was_made_again_otherwise_makes_later_ones_stale(tmp_path):
    work = made(tmp_path / "run")
    stage = work.stage("round_1/explore")
    (stage.folder / "more").write_text("x")
    commit_again(work, [stage.name], Lineage(work))
    with pytest.raises(DataError) as error:
        report.table(read_workdir(tmp_path / "run"))
    text = str(error.value)
    assert "round_1/select: round_1/explore\n" in text
    assert "round_2/evaluate: round_2/tune\n" in text
    assert "round_0" not in text and "move the folders of these stages away" in text


def test_equal_content_keeps_later_stages(tmp_path):
    work = made(tmp_path / "run")
    stage = work.stage("expert")
    stage.commit({"seconds": 5.0}, {"commit": "another"}, made_from={})
    Lineage(work).check(NAMES)
    tune = work.stage("round_0/tune")
    for content, stale in (("a", True), ("", False)):  # its own hash in place of its files'
        tune.commit({}, content=content, made_from=tune.manifest()["made_from"])
        assert ("round_0/evaluate" in Lineage(work).stale(NAMES)) == stale


def test_a_folder_of_another_run_is_refused(tmp_path):
    here = made(tmp_path / "here", config=settings())
    there = made(tmp_path / "there", config=settings(seed=8))
    shutil.rmtree(tmp_path / "here/round_1/select")
    shutil.copytree(there.stage("round_1/select").folder, here.stage("round_1/select").folder)
    stale = Lineage(here, settings()).stale(NAMES)
    assert stale["round_1/select"] == ["config.seed"]
    assert "round_1/explore" not in stale and "expert" not in stale


def test_a_stage_that_is_away_is_not_compared(tmp_path):
    work = made(tmp_path / "run")
    shutil.move(work.stage("expert").folder, tmp_path / "away")
    Lineage(work).check(NAMES[1:])


def test_other_data_or_another_prompt_makes_what_reads_them_stale(tmp_path, monkeypatch):
    env, config = toygame.Corridor(), settings()
    work = made(tmp_path / "run", env=env, config=config)
    for name, value in (("dataset_id", "corridor-2"), ("prompt", lambda task: ())):
        with monkeypatch.context() as patch:
            patch.setattr(env, name, value)
            stale = Lineage(work, config, env=env).stale(NAMES)
        assert all(stale[stage][0] == name for stage in ("expert", "round_0/evaluate"))
        assert stale["round_0/tune"] == ["round_0/select"]
    assert lineage.described({"expert": ["dataset_id"]}) == "  expert: the environment's data"


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("expert.jsonl", {"expert"}),
        ("adapter/adapter_config.json", {"explore", "tune", "evaluate"}),
        ("base/tokenizer.json", {"explore", "select", "tune", "evaluate"}),
    ],
)
def test_a_file_of_the_user_that_changed(tmp_path, file, stages):
    for name in ("expert.jsonl", "adapter/adapter_config.json", "base/tokenizer.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    model = {"path": str(tmp_path / "base"), "adapter": str(tmp_path / "adapter")}
    expert = {"name": "webshop", "trajectories": str(tmp_path / "expert.jsonl")}
    config = settings(model=model, expert=expert)
    work = made(tmp_path / "run", config=config)
    (tmp_path / "base/notes.md").write_text("not read")
    assert not Lineage(work, config, outside=True).stale(NAMES)
    (tmp_path / file).write_text("another")
    stale = Lineage(work, config, outside=True).stale(NAMES)
    label = {"expert": "trajectories", "adapter": "adapter", "base": "base"}[
        file.partition("/")[0].partition(".")[0]
    ]
    assert {name.rpartition("/")[2] for name, why in stale.items() if label in why} == stages
    assert not Lineage(work, config).stale(NAMES)  # the report does not look outside
    shutil.move(tmp_path / file.partition("/")[0], tmp_path / "away")
    assert not Lineage(work, config, outside=True).stale(NAMES)


@pytest.mark.parametrize("root", ["", "run", None], ids=["in it", "relative", "absolute"])
def test_stages_behind_a_checkpoint(tmp_path, caplog, monkeypatch, root):
    env = toygame.Corridor()
    work = made(tmp_path / "run", env=env, config=settings())
    monkeypatch.chdir(tmp_path / "run" if root == "" else tmp_path)
    folder = epath.Path(tmp_path / "run" if root is None else root) / "round_1/tune/checkpoint"
    lineage.warn_of_stale(folder, env=env)
    for other in ("elsewhere/checkpoint", "run/best/tune/checkpoint", "run/checkpoint"):
        lineage.warn_of_stale(epath.Path(tmp_path / other))
    work.stage("round_2/select").commit({}, content="another")  # of a later round
    lineage.warn_of_stale(folder)
    assert not caplog.text
    work.stage("round_1/select").commit({}, content="another")
    lineage.warn_of_stale(folder)
    assert "what differs:\n  round_1/tune: round_1/select" in caplog.text
    assert list(lineage.of_checkpoint(folder)) == ["round_1/tune"]
