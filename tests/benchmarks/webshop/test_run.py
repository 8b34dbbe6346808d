"""The benchmark's catalogues can be imported and its probes return figures."""

import json

import pytest

from benchmarks.webshop import catalogues, probe, run
from eef_jax.envs import webshop as env
from eef_jax.envs.webshop import importer
from tests.envs.webshop import golden


@pytest.fixture(scope="module")
def replicated(tmp_path_factory):
    source = tmp_path_factory.mktemp("replicated")
    rows, labels = (
        json.loads(path.read_text("utf-8")) for path in (golden.PRODUCTS, golden.ATTRIBUTES)
    )
    catalogues.replicate(source, rows, labels, 2)
    sources = importer.Sources(
        products=str(source / "products.json"),
        attributes=str(source / "attributes.json"),
        title_nouns=str(golden.NOUNS),
    )
    importer.import_dataset(sources, source / "data")
    return str(source / "data")


def test_a_replicated_catalogue_has_all_products_with_new_ids(replicated):
    shop = env.make(env.Config(data_dir=replicated)).dataset
    rows = json.loads(golden.PRODUCTS.read_text("utf-8"))
    assert len({product.asin for product in shop.products}) == len(shop.products) == 2 * len(rows)
    assert {product.title for product in shop.products} == {row["name"] for row in rows}


def test_generated_catalogues_are_a_function_of_their_seed(tmp_path):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        catalogues.generate(tmp_path / folder, 20, seed=seed)
    first, again, other = ((tmp_path / f / "products.json").read_text() for f in "abc")
    assert first == again != other
    assert probe.import_(str(tmp_path / "a"))["peak_mb"] > 0


def test_probes_measure_a_stored_dataset(replicated, monkeypatch):
    monkeypatch.setattr(probe, "SECONDS", 0.01)
    monkeypatch.setattr(probe, "GAMES", 3)
    assert probe.speed(replicated)["steps_per_s"] > 0
    assert probe.search(replicated)["median_ms"] > 0
    assert probe.games(replicated)["games"] == 3
    found = run.probe("load", run.pathlib.Path(replicated))
    assert found["cpu_s"] > 0 and found["wall_s"] > 0 and found["rss_mb"] > 0


def test_a_measurement_says_whether_it_is_within_its_bound():
    slow = run.Measurement(name="load", value=2, unit="s", bound=1)
    fast = run.Measurement(name="speed", value=6000, unit="/s", bound=5800, at_most=False)
    assert slow.row() == "| load | 2 s | <= 1 s | NO |"
    assert fast.row() == "| speed | 6,000 /s | >= 5,800 /s | yes |"
