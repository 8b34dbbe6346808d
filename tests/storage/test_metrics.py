"""Scalars to JSON lines, locally and in an object store."""

import json

import numpy as np
from etils import epath

from eef_jax.storage.metrics import MetricsWriter
from tests import object_store


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_line_is_there_at_once_and_a_file_is_continued(tmp_path):
    path = epath.Path(tmp_path / "deep" / "metrics.jsonl")
    with MetricsWriter(path) as metrics:
        metrics.log(1, {"loss": np.float32(0.5), "tokens": 7})
        assert rows(path) == [{"step": 1, "loss": 0.5, "tokens": 7}]
    with MetricsWriter(path) as metrics:
        metrics.log(2, {"loss": float("nan")})
    assert rows(path)[1:] == [{"step": 2, "loss": "nan"}]
    metrics.close()


def test_an_object_store_gets_them_at_the_end(monkeypatch):
    object_store.install(monkeypatch)
    path = epath.Path("gs://bucket/run/metrics.jsonl")
    for step in (1, 2):
        with MetricsWriter(path) as metrics:
            metrics.log(step, {"loss": 1.0})
    assert [row["step"] for row in rows(path)] == [1, 2]
