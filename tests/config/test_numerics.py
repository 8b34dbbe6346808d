"""Numerics that a run records: open ones are filled, others must be the same."""

import pytest
from etils import epath

from eef_jax import config as config_lib
from eef_jax.config import numerics
from eef_jax.errors import ConfigError, DataError

FOUND = {"mesh.data": 4, "engine.num_pages": 100, "engine.attention": "pages"}


def config(*changes):
    values = config_lib.new(env="webshop", expert="webshop").to_dict()
    return config_lib.override(values, changes)


def test_every_numerics_field_is_chosen_or_open():
    fields = config_lib.of_kind(config(), "numerics")
    open_fields = set(numerics.open_fields(config()))
    assert open_fields | set(numerics.chosen(config())) == set(fields)
    assert open_fields == {
        *("mesh.data", "rollout_mesh.tensor", "model.attention", "train.micro_batch"),
        *("engine.max_num_seqs", "engine.num_pages", "engine.attention"),
    }


def test_open_values_are_filled_and_others_stay():
    filled = numerics.fill(config(("engine.num_pages", "50")), FOUND | {"engine.page_size": 8})
    assert (filled.mesh.data, filled.engine.attention) == (4, "pages")
    assert (filled.engine.num_pages, filled.engine.page_size) == (50, 64)


def test_another_value_is_refused_and_names_the_flag():
    same = config(("mesh.data", "4"), ("train.epochs", "9"))
    numerics.check(same, FOUND, "runs/x")
    other = config(("mesh.data", "8"), ("engine.num_pages", "7000"), ("engine.page_size", "32"))
    with pytest.raises(ConfigError) as error:
        numerics.check(other, FOUND, "runs/x")
    text = str(error.value)
    assert "mesh.data: 4 recorded, 8 asked" in text and "num_pages: 100 recorded" in text
    assert "page_size" not in text and "--new_numerics" in text


def test_the_record_is_read_back_and_checked(tmp_path):
    folder = epath.Path(tmp_path)
    assert numerics.read(folder) is None
    numerics.write(folder, numerics.Record(values=FOUND))
    written = (tmp_path / numerics.FILE).stat().st_mtime_ns
    numerics.write(folder, numerics.Record(values=FOUND))
    assert (tmp_path / numerics.FILE).stat().st_mtime_ns == written
    assert numerics.read(folder) == numerics.Record(values=FOUND)
    (tmp_path / numerics.FILE).write_text("{}")
    with pytest.raises(DataError, match="bring it back from a copy, or move it away and add --new"):
        numerics.read(folder)


def test_new_values_keep_the_earlier_ones_of_a_stage_that_was_begun():
    record = numerics.Record(values={"mesh.data": 4}).renewed("round_1/tune")
    assert record.values == {}
    now = {"mesh.data": 8}
    assert record.of_stage("round_1/tune", now) == [{"mesh.data": 4}, now]
    assert record.of_stage("round_1/evaluate", now) == [now]
    assert numerics.NOTHING.renewed("expert") == numerics.NOTHING
