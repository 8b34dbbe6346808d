"""The packed trajectories: forks as prefix and rest, and a stated sample of a large run."""

import base64
import gzip
import json

import pytest

from eef_jax.report.judged import Fact
from eef_jax.report.page import attempts
from eef_jax.report.run import read
from tests import toyrun


def unpacked(text):
    return json.loads(gzip.decompress(base64.b64decode(text)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read(toyrun.make(tmp_path_factory.mktemp("attempts") / "run"))


def records(viewer):
    """Index and record of every attempt, by stage and id."""
    index, chunks = unpacked(viewer.index), [unpacked(chunk) for chunk in viewer.chunks]
    rows = index["rows"]
    return {
        (index["stages"][rows["stage"][n]], rows["id"][n]): (
            {name: column[n] for name, column in rows.items()},
            chunks[rows["chunk"][n]]["records"][rows["place"][n]],
            chunks[rows["chunk"][n]]["texts"],
        )
        for n in range(len(rows["id"]))
    }


def test_all_attempts_are_there_and_a_fork_has_only_the_steps_after_it(run):
    viewer = attempts.pack([run], ["eef"])
    found = records(viewer)
    assert viewer.shown == "All 36 trajectories are here." and len(found) == 36
    row, record, texts = found["round_1/explore", "round_1/toy/train/1/expert/toy/train/1@3/0"]
    assert [texts[step[1]] for step in record["steps"]] == ["click[own1]"]
    assert record["parent"] == found["expert", "expert/toy/train/1"][0]["number"]
    assert row["length"] == 4 and row["fork"] == 3
    assert row["actions"].split(" → ")[-1] == "click[own1]"
    assert record["verdicts"][0]["role"] == "recovery"


def test_equal_texts_are_stored_once(run):
    (chunk,) = attempts.pack([run], ["eef"]).chunks
    texts = unpacked(chunk)["texts"]
    assert len(texts) == len(set(texts)) and "page" in texts


def test_of_a_large_run_experts_selected_and_a_sample_are_shown(run):
    viewer = attempts.pack([run], ["eef"], most=3)
    found = records(viewer)
    stages = [stage for stage, _ in found]
    assert stages.count("expert") == 4
    others = [row for row, _, _ in found.values() if row["parent"] < 0 or not row["facts"] & 1]
    assert viewer.shown.startswith(f"{len(found)} of 36 trajectories are here: every expert's")
    assert all(row["number"] >= 0 for row in others)
    again = attempts.pack([run], ["eef"], most=3)
    assert again == viewer
    selected = {s["trajectory"] for n in range(3) for s in run.selections(n)}
    assert selected <= {name for _, name in found}
    assert len(found) == len(selected | {f"expert/toy/train/{n}" for n in range(4)}) + 3


def test_a_page_that_is_large_enough_gets_no_more_of_the_others(run):
    viewer = attempts.pack([run], ["eef"], most_bytes=-1)
    rows = [row for row, _, _ in records(viewer).values()]
    assert all(row["facts"] & Fact.SELECTED or row["agent"] == "expert" for row in rows)
    assert len(rows) == 16
