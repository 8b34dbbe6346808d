"""Scalars to JSON lines, locally and in an object store."""

import json

import numpy as np
import pytest
from etils import epath

from eef_jax.errors import DataError
from eef_jax.storage.metrics import MetricsWriter
from tests import object_store


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def log(path, steps, mark=None):
    with MetricsWriter(path) as metrics:
        metrics.rewind(mark)
        for step in steps:
            metrics.log(step, {"loss": 1.0})
        return metrics.mark()


def steps(path):
    return [row["step"] for row in rows(path)]


def test_each_line_is_there_at_once(tmp_path):
    path = epath.Path(tmp_path / "deep" / "metrics.jsonl")
    with MetricsWriter(path) as metrics:
        metrics.log(1, {"loss": np.float32(0.5), "tokens": 7})
        assert rows(path) == [{"step": 1, "loss": 0.5, "tokens": 7}]
        metrics.log(2, {"loss": float("nan")})
        assert rows(path)[1:] == [{"step": 2, "loss": "nan"}]
    metrics.close()


@pytest.fixture(params=["local", "gs"])
def path(request, tmp_path, monkeypatch):
    if request.param == "local":
        return epath.Path(tmp_path / "metrics.jsonl")
    object_store.install(monkeypatch)
    return epath.Path("gs://bucket/run/metrics.jsonl")


def test_a_file_is_continued_from_a_mark(path):
    mark = log(path, [1, 2])
    log(path, [3, 4], mark)
    assert steps(path) == [1, 2, 3, 4]
    log(path, [3], mark)
    assert steps(path) == [1, 2, 3]
    log(path, [1])
    assert steps(path) == [1]


def test_a_changed_file_is_not_continued(path):
    mark = log(path, [1, 2])
    path.write_text(path.read_text().replace("1.0", "2.0", 1))
    before = path.read_text()
    with (
        MetricsWriter(path) as metrics,
        pytest.raises(DataError, match=r"metrics\.jsonl is not as"),
    ):
        metrics.rewind(mark)
    assert path.read_text() == before


def test_a_writer_that_logs_nothing_leaves_the_file_alone(path):
    log(path, [1])
    with MetricsWriter(path):
        pass
    assert steps(path) == [1]


def test_an_object_store_gets_the_lines_at_a_mark_and_at_the_end(monkeypatch):
    object_store.install(monkeypatch)
    path = epath.Path("gs://bucket/run/metrics.jsonl")
    with MetricsWriter(path) as metrics:
        metrics.log(1, {"loss": 1.0})
        assert not path.exists()
        metrics.mark()
        assert steps(path) == [1]
        metrics.log(2, {"loss": 1.0})
    assert steps(path) == [1, 2]


def test_without_a_path_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mark = log(None, [1, 2])
    log(None, [3], mark)
    assert not list(tmp_path.iterdir())
