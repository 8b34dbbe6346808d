"""A tune stage that was interrupted: it goes on, or takes what was stored."""

import json

import numpy as np
import pytest
from etils import epath

from eef_jax import config as config_lib
from eef_jax.learner import tuning
from eef_jax.learner.placement import Placement
from eef_jax.storage.workdir import CHECKPOINT
from eef_jax.train import checkpoint, loop
from eef_jax.types import Example
from tests import toybase

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_steps")]

TIMES = ("seconds", "tokens_per_s")


@pytest.fixture(scope="module")
def placement(tmp_path_factory):
    base = toybase.make(tmp_path_factory.mktemp("base"))
    settings = toybase.config(base)
    changes = [("train.batch_size", "8"), ("train.seq_len", "16"), ("train.epochs", "2")]
    changes += [("train.save_every_steps", "1"), ("mesh.data", "8")]
    return Placement(config_lib.override(config_lib.plain(settings), changes))


def tune(placement, folder, *, data="a"):
    tokens, weights = np.arange(1, 9, dtype=np.int32), np.ones(8, np.float32)
    examples = [Example(id=str(n), tokens=tokens + n, weights=weights) for n in range(32)]
    folder.mkdir(exist_ok=True)
    facts = tuning.tune(
        placement,
        examples,
        epath.Path(folder),
        placement._config.train,
        seed=0,
        number=0,
        previous=None,
        config_hash="",
        made_from={"select": data},
    )
    return {name: value for name, value in facts.items() if name not in TIMES}


def arrays(placement, folder):
    like = placement.trained.trainable
    base_hash = placement.base_hash(placement.trained)
    trainable, _ = checkpoint.load_trainable(folder / CHECKPOINT, like, base_hash=base_hash)
    return {name: np.asarray(value) for name, value in checkpoint.named(trainable).items()}


def rows(folder):
    found = [json.loads(line) for line in (folder / tuning.METRICS).read_text().splitlines()]
    return [{name: row[name] for name in row if name not in TIMES} for row in found]


@pytest.fixture(scope="module")
def whole(placement, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return tune(placement, folder), arrays(placement, folder), rows(folder)


def assert_equal(placement, folder, facts, whole):
    assert facts == whole[0]
    assert rows(folder) == whole[2]
    for name, value in arrays(placement, folder).items():
        np.testing.assert_array_equal(value, whole[1][name])
    assert sorted(path.name for path in folder.iterdir()) == [CHECKPOINT, tuning.METRICS]


def test_training_goes_on_after_an_exception(placement, tmp_path, whole, monkeypatch):
    log = tuning.metrics.MetricsWriter.log

    def dies(self, step, scalars):
        log(self, step, scalars)
        if step == 3:
            raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(tuning.metrics.MetricsWriter, "log", dies)
        with pytest.raises(OSError, match="the disk is gone"):
            tune(placement, tmp_path)
    assert (tmp_path / tuning.TRAINING / "2").exists()
    assert_equal(placement, tmp_path, tune(placement, tmp_path), whole)


def test_a_stored_checkpoint_is_taken_and_not_trained_again(
    placement, tmp_path, whole, monkeypatch
):
    tune(placement, tmp_path)
    (tmp_path / tuning.TRAINING).mkdir()  # the process died before it was removed
    with monkeypatch.context() as patch:
        patch.delattr(loop, "fit")
        facts = tune(placement, tmp_path)
    assert_equal(placement, tmp_path, facts, whole)


@pytest.mark.parametrize("harm", ["other data", "damage"])
def test_a_checkpoint_of_other_data_or_a_damaged_one_is_written_again(
    placement, tmp_path, whole, harm
):
    tune(placement, tmp_path, data="b" if harm == "other data" else "a")
    if harm == "damage":
        (tmp_path / CHECKPOINT / "manifest.json").unlink()
    assert_equal(placement, tmp_path, tune(placement, tmp_path), whole)
