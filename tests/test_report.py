"""The report: every section from a hand-made run, and a half-finished run reported as it is."""

import dataclasses
import re
import subprocess
import sys

import pytest

from eef_jax import report
from eef_jax.errors import DataError
from eef_jax.methods.sft_positive import SftPositive
from eef_jax.report import accounting, actions, markdown
from eef_jax.report.run import read
from eef_jax.storage.stages import stage_names
from eef_jax.storage.workdir import read_workdir
from tests import toyrun


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return toyrun.make(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def text(work):
    report.write(work)
    return (work.root / "report.md").read_text()


def section(text, title):
    return text.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def row(text, *cells):
    """The first table row that begins with these cells, as a list of cells."""
    for line in text.splitlines():
        found = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("|") and found[: len(cells)] == list(cells):
            return found
    raise AssertionError(f"no row {cells} in\n{text}")


def test_results_with_intervals_in_all_and_by_tag(text):
    results = section(text, "Results")
    last = row(results, "eef, round 2")
    assert last[1] == "75.0 % [30.1, 95.4]"
    assert last[3].startswith("50.0 %") and last[4].startswith("100.0 %")  # easy, hard
    assert last[5:] == ["10", "3,000", "12", "1.1"]
    assert row(results, "expert")[1].startswith("50.0 %")
    assert row(results, "hard", "sft_positive (clone)")[2] == "0.0 % [0.0, 65.8]"
    assert row(section(text, "Cost"), "in all")[1:6] == ["20", "18", "9,000", "900", "36"]


def test_yield_by_state_beside_the_same_tasks_start(text):
    found = section(text, "Rollout yield by expert state")
    assert row(found, "1", "s_0")[2:5] == ["4", "4", "2"]
    assert row(found, "1", "s_1")[2:5] == ["2", "2", "2"]
    assert row(found, "1", "s_2")[5] == "0.0 % [0.0, 65.8]"
    assert row(found, "2", "expert states, all k >= 1")[2:5] == ["6", "6", "4"]
    assert row(found, "2", "s_0 of their 2 tasks")[2:5] == ["2", "2", "0"]


def test_tasks_solved_and_rollouts_trained_on(text):
    last = row(section(text, "Train tasks solved"), "eef, round 2")
    assert last[1:] == ["4", "4", "2", "2", "2", "20", "6", "30.0 %"]


def test_selections_by_role_and_reason(text):
    found = section(text, "What was selected")
    assert row(found, "recovery")[1:] == ["0", "2", "2"]
    assert row(found, "kept: beneficial expert action")[1:] == ["0", "4", "4"]
    assert row(found, "masked: harmful expert action")[1:] == ["0", "2", "2"]


def test_worked_cases_say_why(text):
    cases = section(text, "Worked cases")
    first = cases.split("**")[2].split("\n\n**")[0]
    assert "from an expert state that needs recovery" in cases.split("**")[1]
    assert row(first, "0")[1:4] == ["`search[thing]`", "expert", "0"]
    assert row(first, "1")[4] == "masked: harmful expert action"
    assert "leads from a state the policy failed from to one it won from" in row(first, "2")[5]
    assert row(first, "3")[2:5] == ["policy", "1", "kept: own win"]


def test_what_got_worse(text):
    worse = section(text, "What got worse")
    assert "Of 4 tasks 2 were gained and 1 lost" in worse
    assert "+25.0 points" in worse
    assert worse.count("**Lost:") == 1 and "toy/test/2" in worse


def test_conserved_counts_and_makers(text):
    assert "**NO**" not in text
    assert row(section(text, "Conservation checks"), "round_1/explore")[1:3] == [
        "10 episodes",
        "4 failed, 6 won; 9 turns",
    ]
    assert "commit abc, config 0123, seed 7; python 3.11" in section(text, "Provenance")
    assert row(section(text, "Time"), "in all")[-1] == "190.5"
    played = row(section(text, "Tokens played"), "eef, round 1", "explore")
    assert played[2:] == ["10", "9", "50", "5", "30"]


def test_lost_episodes_are_shouted_about(work):
    run = read(work)
    counts = dict(run.manifests["expert"]["counts"]) | {"episodes": 5}
    run.manifests["expert"]["counts"].update(counts)
    assert row("\n".join(accounting.conservation_checks(run)), "expert")[3] == "**NO**"


@pytest.mark.parametrize("until", stage_names(2))
def test_a_half_finished_run_names_what_is_missing(tmp_path, until):
    work = toyrun.make(tmp_path / "run", until=until)
    report.write(work)
    text = (work.root / "report.md").read_text()
    left = stage_names(2)[stage_names(2).index(until) :]
    assert f"Missing stages: {', '.join(left)}." in text
    assert f"not finished: {len(left)} stages, the first is {until}" in report.table(work)


def test_the_terminal_table(work, text):
    shown = report.table(work)
    assert "eef on webshop, seed 7, test tasks" in shown
    assert "train tasks solved only through an expert failure: 2" in shown
    assert shown.endswith("report.md")
    lines = shown.splitlines()
    assert len({len(line) for line in lines[2:8]}) == 1  # aligned


def test_a_method_without_rounds(tmp_path):
    config = toyrun.CONFIG | {"method": {"name": "sft_positive"}}
    work = toyrun.make(tmp_path / "run", config=config, method=SftPositive())
    report.write(work)
    text = (work.root / "report.md").read_text()
    assert "missing" not in text.lower()
    assert row(section(text, "Results"), "sft_positive")
    assert "The method plays nothing." in text


def test_kinds_of_action():
    test = toyrun.tasks("test", 20)
    clicks = ["click[next >]"] * 2 + ["click[< prev]"]
    played = [
        toyrun.attempt(task, [f"search[{n}]", *clicks[n : n + 1]], win=False)
        for n, task in enumerate(test)
    ]
    common = actions.common_actions([played])
    assert common == {"click[next >]"}  # 2 of 20 tasks; a query and < prev are on one each
    assert actions.kind("click[next >]", common) == "click[next >]"
    assert actions.kind("click[< prev]", common) == "click ..."
    assert actions.kind("go to shelf 1", common) == "go ..."
    assert actions.kind("look", common) == "look"
    assert actions.kind("[x]", common) == "..."
    assert actions.kind(None, common) == "(no action)"


def test_code_is_safe_in_a_table():
    assert markdown.code("a|b `c`\nd") == "`a\\|b 'c' d`"
    assert markdown.code("x" * 200, limit=10) == "`xxxxxxx...`"


def test_reports_without_an_accelerator_library(work):
    program = (
        "import sys; from eef_jax import report; from eef_jax.storage import workdir; "
        f"print(report.table(workdir.read_workdir({str(work.root)!r}))); "
        "sys.exit(bool({'jax', 'tensorflow', 'torch', 'flax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0


def test_in_a_bucket(bucket):
    work = toyrun.make(f"{bucket}/run")
    report.write(read_workdir(f"{bucket}/run"))
    assert "eef, round 2" in (work.root / "report.md").read_text()


@pytest.mark.parametrize("name", ["selections.jsonl", "trajectories.jsonl", "scores.json"])
def test_a_changed_file_is_not_reported(tmp_path, name):
    work = toyrun.make(tmp_path)
    path = next(path for path in work.root.glob("round_*/*/*") if path.name == name)
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    with pytest.raises(DataError, match=f"{name} was changed; move .* away"):
        report.write(work)


HOSTILE = "<script>alert(1)</script>|`x`|</td>\n# Forged\n| a | b |\n![p](http://x)\x1b[2J\ud83d\0"
UNSAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
BAR = re.compile(r"(?<!\\)(?:\\\\)*\|")


def test_no_text_becomes_markup(tmp_path, monkeypatch, text):
    """The same run, with every text of tasks, agents and provenance hostile."""
    real_tasks, real_attempt = toyrun.tasks, toyrun.attempt

    def tasks(split, count=4):
        return [
            dataclasses.replace(t, id=t.id + HOSTILE, goal=HOSTILE, tags=(*t.tags, HOSTILE))
            for t in real_tasks(split, count)
        ]

    def attempt(task, actions, win, **fields):
        made = real_attempt(task, [f"{action} {HOSTILE}" for action in actions], win, **fields)
        return dataclasses.replace(made, id=made.id + HOSTILE, agent=HOSTILE)

    provenance = {**toyrun.PROVENANCE, "base": HOSTILE, "versions": {"python": HOSTILE}}
    monkeypatch.setattr(toyrun, "tasks", tasks)
    monkeypatch.setattr(toyrun, "attempt", attempt)
    monkeypatch.setattr(toyrun, "PROVENANCE", provenance)
    work = toyrun.make(tmp_path / "run")
    report.write(work)
    hostile = (work.root / "report.md").read_text()
    outside = re.sub(r"`[^`\n]*`", "", hostile.replace("\\`", ""))
    assert "<" not in outside and not re.search(r"(?<!\\)\]\(|!\[", outside)
    headings = [
        [line for line in each.splitlines() if line.startswith("#")][1:] for each in (hostile, text)
    ]
    assert headings[0] == headings[1]
    assert not UNSAFE.search(hostile) and not UNSAFE.search(report.table(work))
    for block in re.findall(r"(?:^\|.*\n)+", hostile, re.MULTILINE):
        assert len({len(BAR.findall(line)) for line in block.splitlines()}) == 1, block


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<b>&lt;", "&lt;b>&amp;lt;"),
        ("a|b\\|", "a\\|b\\\\\\|"),
        ("_x_ y_z s_0", "\\_x\\_ y_z s_0"),
        ("# x", "\\# x"),
        ("1. x", "1\\. x"),
        (1234, "1,234"),
        (None, "-"),
        (markdown.Markup("**x**"), "**x**"),
    ],
)
def test_texts_are_escaped(value, shown):
    assert markdown.text(value) == shown
