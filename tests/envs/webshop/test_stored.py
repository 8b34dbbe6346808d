"""A stored dataset holds what the files say, is shared, and is refused when it is not whole."""

import concurrent.futures
import json
import multiprocessing
import pathlib
import random
import re
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from benchmarks.webshop import catalogues
from eef_jax.envs import webshop
from eef_jax.envs.webshop import analyzer, columns, importer, json_stream, postings, stored
from eef_jax.envs.webshop.catalogue import sample_prices
from eef_jax.envs.webshop.columns import (
    ArrayWriter,
    KeyIndex,
    KeyIndexWriter,
    RowReader,
    RowWriter,
    open_array,
)
from eef_jax.envs.webshop.goals import human_goals, synthetic_goals
from eef_jax.envs.webshop.search import SearchIndex
from eef_jax.envs.webshop.splits import SplitPlan
from eef_jax.errors import ConfigError, DataError
from tests import emulator
from tests.envs.webshop import golden

FILES = {
    "products": str(golden.PRODUCTS),
    "attributes": str(golden.ATTRIBUTES),
    "title_nouns": str(golden.NOUNS),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("stored") / "dataset"
    importer.import_dataset(importer.Sources(**FILES, seed=7), out)
    return out


def test_a_dataset_in_a_bucket(folder, bucket, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remote = stored.load(emulator.upload(folder, f"{bucket}/shop"), SplitPlan())
    local = stored.load(folder, SplitPlan())
    assert remote.dataset_id == local.dataset_id and tuple(remote.goals) == tuple(local.goals)
    importer.verify_dataset(f"{bucket}/shop")


def test_it_holds_what_the_files_say(folder):
    data = stored.load(folder, SplitPlan())
    products, rng = golden.products(), random.Random(7)
    prices = sample_prices(products, rng)
    assert tuple(data.products) == products
    assert dict(data.prices) == prices
    assert tuple(data.goals) == synthetic_goals(products, prices, rng)
    nouns = json.loads(golden.NOUNS.read_text("utf-8"))
    assert {title: list(words) for title, words in data.nouns.items()} == nouns
    assert "no such title" not in data.nouns and "B0NONE" not in data.prices
    assert data.products[-1] == products[-1] and data.goals[:3] == tuple(data.goals)[:3]
    with pytest.raises(IndexError):
        data.products[len(products)]


def test_human_goals_are_those_of_the_file(tmp_path):
    importer.import_dataset(
        importer.Sources(**FILES, human_instructions=str(golden.HUMAN), seed=7), tmp_path / "human"
    )
    data = stored.load(tmp_path / "human", SplitPlan())
    products, rng = golden.products(), random.Random(7)
    instructions = json.loads(golden.HUMAN.read_text("utf-8"))
    prices = sample_prices(products, rng)
    assert tuple(data.goals) == human_goals(products, prices, instructions, rng)


def test_its_index_finds_what_an_index_in_memory_finds(folder):
    data = stored.load(folder, SplitPlan())
    fresh = SearchIndex.build([p.asin for p in data.products], [p.document for p in data.products])
    for goal in data.goals[::9]:
        assert data.index.search(goal.instruction) == fresh.search(goal.instruction)


def test_an_index_of_many_runs_and_of_long_postings_is_the_same(tmp_path, monkeypatch, folder):
    monkeypatch.setattr(postings, "RUN_SIZE", 500)
    monkeypatch.setattr("eef_jax.envs.webshop.search.SHORT_LIST", 20)
    importer.import_dataset(importer.Sources(**FILES, seed=7), tmp_path / "runs")
    for name in stored.INDEX_ARRAYS:
        whole, merged = (open_array(f, f"index.{name}") for f in (folder, tmp_path / "runs"))
        assert whole.dtype == merged.dtype and (whole == merged).all()
    many, one = (stored.load(f, SplitPlan()) for f in (tmp_path / "runs", folder))
    for goal in one.goals[::9]:
        assert many.index.search(goal.instruction) == one.index.search(goal.instruction)
    assert many.dataset_id == one.dataset_id


def test_equal_files_and_seeds_give_equal_datasets_by_path_or_stored(folder):
    by_path = webshop.make(webshop.Config(**FILES, seed=7))
    imported = webshop.make(webshop.Config(data_dir=str(folder), seed=7))
    assert by_path.dataset_id == imported.dataset_id
    assert by_path.tasks("test") == imported.tasks("test")
    assert webshop.make(webshop.Config(**FILES, seed=8)).dataset_id != imported.dataset_id


def test_it_is_read_through_maps_and_parsed_when_asked_for(folder):
    data = stored.load(folder, SplitPlan())
    maps = pathlib.Path("/proc/self/maps").read_text("utf-8")
    for name in ("products.jsonl", "index.documents.npy", "index.terms.npy", "prices.npy"):
        assert str(folder / name) in maps
    assert data.products[3] is data.products[3]


def test_other_processes_play_on_the_same_files(folder):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        there = pool.submit(_first_page, str(folder)).result(timeout=60)
    assert there == _first_page(str(folder))


def _first_page(folder):
    env = webshop.make(webshop.Config(data_dir=folder))
    game = env.game()
    task = env.tasks("test")[0]
    game.reset(task)
    return game.step(f"search[{task.goal}]").observation


def test_the_manifest_names_sources_and_hashes(folder):
    manifest = json.loads((folder / stored.MANIFEST).read_text())
    assert manifest["sources"]["products"]["name"] == golden.PRODUCTS.name
    assert manifest["seed"] == 7 and manifest["counts"]["goals"] == 451
    assert set(manifest["files"]) == {path.name for path in folder.iterdir()} - {stored.MANIFEST}
    importer.verify_dataset(folder)


def test_what_is_not_whole_is_refused(folder, tmp_path):
    with pytest.raises(DataError, match="import_data --out"):
        webshop.make(webshop.Config(data_dir=str(tmp_path)))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    changed = (copy / "prices.npy").read_bytes()
    (copy / "prices.npy").write_bytes(changed[:-1] + b"?")
    with pytest.raises(DataError, match=r"prices\.npy was changed"):
        importer.verify_dataset(copy)
    (copy / "prices.npy").write_bytes(changed[:-8])
    with pytest.raises(DataError, match=r"prices\.npy.*expected \d+ bytes"):
        webshop.make(webshop.Config(data_dir=str(copy)))
    manifest = json.loads((copy / stored.MANIFEST).read_text())
    (copy / stored.MANIFEST).write_text(json.dumps(manifest | {"format": 0}))
    with pytest.raises(DataError, match="format 0"):
        webshop.make(webshop.Config(data_dir=str(copy)))


def test_a_dataset_is_not_written_over(folder):
    with pytest.raises(ConfigError, match="holds a dataset already"):
        importer.import_dataset(importer.Sources(**FILES), folder)
    with pytest.raises(ConfigError, match="whole dataset"):
        webshop.make(webshop.Config(data_dir=str(folder), products="products.json"))


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            "products",
            [{"name": "x"}],
            "record 0 (line 1) is not a WebShop product: asin is missing",
        ),
        (
            "products",
            [{"asin": "B1", "name": 3, "small_description": ""}],
            "name is 3, expected a text",
        ),
        ("attributes", {"B0OTHER": {"attributes": ["x"]}}, "none of its 1 asins is among the"),
        (
            "attributes",
            {"B0SYN00000": {"attributes": "red"}},
            "attributes is 'red', expected a list",
        ),
        ("attributes", {}, "no goals"),
    ],
)
def test_bad_data_is_named(tmp_path, name, content, complaint):
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(content))
    files = FILES | {name: str(path)}
    with pytest.raises(DataError, match=re.escape(complaint)) as error:
        importer.import_dataset(importer.Sources(**files), tmp_path / "out")
    assert str(path) in str(error.value)
    assert not (tmp_path / "out" / stored.MANIFEST).exists()


def test_an_interrupted_import_is_made_again(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError):
        importer.import_dataset(
            importer.Sources(**FILES | {"title_nouns": str(tmp_path / "missing.json")}), out
        )
    importer.import_dataset(importer.Sources(**FILES), out)
    importer.verify_dataset(out)


def test_command_line(tmp_path):
    command = [sys.executable, "-m", "eef_jax.envs.webshop.import_data", f"--out={tmp_path / 'd'}"]
    flags = [f"--{name}={path}" for name, path in FILES.items()]
    done = subprocess.run([*command, *flags, "--seed=3"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "451 goals" in done.stdout and "env.data_dir" in done.stdout and not done.stderr
    assert stored.read_manifest(tmp_path / "d")["seed"] == 3
    again = subprocess.run([*command, "--verify"], capture_output=True, text=True)
    assert again.returncode == 0 and "is whole" in again.stdout
    lacking = subprocess.run(command, capture_output=True, text=True)
    assert lacking.returncode == 1 and "--products is not given" in lacking.stderr


def test_columns_give_back_what_was_written(tmp_path):
    rows = [["a", 1], ["é\ud83d", {"x": None}], []]
    with RowWriter(tmp_path, "rows") as writer:
        for row in rows:
            writer.append(row)
    with RowWriter(tmp_path, "none"):
        pass
    assert list(RowReader(tmp_path, "rows")) == rows and list(RowReader(tmp_path, "none")) == []
    with ArrayWriter(tmp_path, "array", np.uint16) as array:
        for block in ([], [1, 2], [65535]):
            array.append(block)
    assert open_array(tmp_path, "array").tolist() == [1, 2, 65535]
    assert open_array(tmp_path, "array").dtype == np.uint16
    keys = KeyIndexWriter(tmp_path, "rows")
    for key in ("b", "a", "b"):
        keys.append(key)
    keys.close()
    found = KeyIndex(tmp_path, "rows")
    assert [found.find(key) for key in ("a", "b", "c")] == [[1], [0, 2], []]


@pytest.mark.parametrize("products", [400, pytest.param(1000, marks=pytest.mark.load)])
def test_memory_of_an_import_hardly_grows_with_the_catalogue(tmp_path, monkeypatch, products):
    monkeypatch.setattr(postings, "RUN_SIZE", 1 << 13)
    monkeypatch.setattr(json_stream, "CHUNK", 1 << 14)
    # What is remembered of words is bounded, but not full with so few of them.
    monkeypatch.setattr(postings, "hash_term", columns.hash64)
    monkeypatch.setattr(analyzer, "_term", analyzer._term.__wrapped__)
    peaks = []
    for count in (products, 2 * products):
        folder = tmp_path / str(count)
        catalogues.generate(folder, count)
        paths = {what: str(folder / f"{what}.json") for what in ("products", "attributes")}
        tracemalloc.start()
        importer.import_dataset(importer.Sources(**paths), folder / "data")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] <= 1.3 * peaks[0], peaks
