"""All recorded outputs of the original, replayed as `python -m tests.parity.webshop` does."""

import collections
import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from eef_jax.envs.webshop import importer, stored
from eef_jax.envs.webshop.splits import SplitPlan
from tests.envs.webshop import golden
from tests.parity import webshop as parity

ROOT = pathlib.Path(__file__).parents[3]
COUNTS = {"prices": 6, "goals": 1314, "rewards": 1165, "searches": 703, "episodes": 202}


@pytest.fixture(scope="module")
def findings():
    return list(parity.check(golden.FOLDER))


def test_nothing_differs_from_the_original(findings):
    lines = []
    assert parity.report(findings, lines.append), "\n".join(lines)
    assert collections.Counter(finding.kind for finding in findings) == COUNTS


def test_only_known_oddities_are_left_out_and_all_of_them_show(findings):
    excepted = {finding.name for finding in findings if finding.excepted}
    assert excepted == set(parity.EXCEPTIONS)
    assert len(excepted) <= 10
    assert all(name.startswith("quirk/") for name in excepted)
    assert all(finding.differs for finding in findings if finding.excepted)


def test_a_difference_is_found_and_named():
    (case,) = [row for row in golden.rows("episodes.jsonl") if row["id"] == 0]
    case["steps"][-1]["reward"] += 0.1
    site = parity.visit(golden.FOLDER, case["config"])
    (differs,) = parity.replay(parity.shopper(golden.FOLDER, case, site), case)
    assert "click[Buy Now]" in differs and "reward" in differs
    lines = []
    assert not parity.report(
        [parity.Finding(kind="episodes", name="x", differs=differs)], lines.append
    )
    assert lines[1].split() == ["episodes", "1", "0", "0", "1"]


def test_a_folder_may_be_gzipped_or_not(tmp_path):
    (tmp_path / "configs").mkdir()
    for name, config in golden.FOLDER.configs.items():
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(config))
    assert golden.Folder(tmp_path).configs == golden.FOLDER.configs
    with pytest.raises(SystemExit, match=r"reward_cases\.jsonl: expected one such file, found 0"):
        golden.Folder(tmp_path).rows("reward_cases.jsonl")


@pytest.mark.parametrize("name", ["syn1k", "human1k"])
def test_an_imported_dataset_plays_the_same(tmp_path, monkeypatch, name):
    human = str(golden.HUMAN) if name == "human1k" else ""
    sources = importer.Sources(
        products=str(golden.PRODUCTS),
        attributes=str(golden.ATTRIBUTES),
        human_instructions=human,
        title_nouns=str(golden.NOUNS),
        seed=golden.config(name)["load_seed"],
    )
    importer.import_dataset(sources, tmp_path / "imported")
    data = stored.load(tmp_path / "imported", SplitPlan())
    monkeypatch.setattr(parity, "load", lambda folder, config: data)
    monkeypatch.setattr(parity, "known", lambda folder, limit: data.index)
    site = parity.visit(golden.FOLDER, name)
    rows = [row for row in golden.rows("episodes.jsonl") if row["config"] == name]
    for row in rows:
        differs = list(parity.replay(parity.shopper(golden.FOLDER, row, site), row))
        assert bool(differs) == (row["tag"] in parity.EXCEPTIONS), differs
    assert len(rows) == {"syn1k": 159, "human1k": 21}[name]


def test_the_command_line_prints_counts_and_fails_on_a_difference(tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(golden.FOLDER.path, folder)
    right = "".join(f"{json.dumps(row)}\n" for row in golden.rows("reward_cases.jsonl")[:20])
    (folder / "reward_cases.jsonl.gz").unlink()
    (folder / "reward_cases.jsonl").write_text(right.replace('"reward": 1.0', '"reward": 0.9'))
    command = [sys.executable, "-m", "tests.parity.webshop", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1, done.stderr
    assert "episodes      202    196         6          0\n" in done.stdout
    assert "different: rewards 0 syn/target/right_options: reward 1.0, not 0.9" in done.stdout
