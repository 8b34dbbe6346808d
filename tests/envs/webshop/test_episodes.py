"""All recorded outputs of the original, replayed as `python -m tests.parity.webshop` does."""

import collections
import json

import pytest

from tests.envs.webshop import golden
from tests.parity import webshop as parity

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


def test_a_difference_is_found_and_named(tmp_path, findings):
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
