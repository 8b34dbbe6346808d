"""A run in the terminal: the list and its filters, the chain of states, tokens, hostile text."""

import dataclasses
import functools
import io
import re

import numpy as np
import pytest
from absl import flags
from rich.cells import cell_len
from rich.console import Console

from eef_jax.data import tfrecord
from eef_jax.errors import ConfigError
from eef_jax.methods.sft_positive import SftPositive
from eef_jax.storage.trajectories import write_trajectories
from eef_jax.types import Example, Outcome
from eef_jax.view import __main__ as view
from eef_jax.view import screen
from tests import toyrun

HOSTILE = "\x1b[31m\x1b]0;owned\x07 [bold]b[/bold] [link=file:///x]l[/] :smile: \u202e\r\nforged ]"

DEFINE = {name: getattr(flags, name) for name in dir(flags) if name.startswith("DEFINE")}


@pytest.fixture
def show(monkeypatch):
    """Runs the command with flags; returns what it prints, 80 columns wide."""

    def shown(root, *, colour=False, **given):
        values = flags.FlagValues()
        for name, real in DEFINE.items():
            monkeypatch.setattr(flags, name, functools.partial(real, flag_values=values))
        monkeypatch.setattr(flags, "FLAGS", values)
        out = io.StringIO()
        options = {"force_terminal": True, "color_system": "truecolor"} if colour else {}
        console = Console(
            file=out, width=80, markup=False, emoji=False, highlight=False, _environ={}, **options
        )
        monkeypatch.setattr(screen, "console", lambda: console)
        words = [f"--{name}={value}" for name, value in given.items()]
        monkeypatch.setattr(view.cli, "run", lambda main: (values(["view", *words]), main()))
        view.run()
        return out.getvalue()

    return lambda root, **given: shown(root, workdir=root, **given)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The toy run, with two examples of round 2 as tokens."""
    work = toyrun.make(tmp_path_factory.mktemp("view") / "run")
    stage = work.stage("round_2/select")
    examples = [
        Example(
            id=f"one/{task}",
            tokens=np.array([5, 6, 7, 8], np.int32),
            weights=np.array([0, 0, *weights], np.float32),
            provenance=dict.fromkeys(tfrecord.PROVENANCE, "") | {"task": task},
        )
        for task, weights in {"toy/train/1": (1, 1), "toy/train/2": (0.25, 0)}.items()
    ]
    tfrecord.write(stage.folder / "dataset", examples)
    stage.commit(stage.manifest()["counts"], toyrun.PROVENANCE)
    return work.root


def listed(shown):
    return re.findall(r"^ (toy/train/\d)", shown, re.MULTILINE)


def test_the_list_of_tasks(show, root):
    shown = show(root)
    assert listed(shown) == [f"toy/train/{n}" for n in range(4)]
    row = next(line for line in shown.splitlines() if "toy/train/1" in line)
    assert row.split() == ["toy/train/1", "failed", "○●○●", "s₀", "s₂", "★", "hard", "goal", "1"]
    assert "4 tasks, round 2." in shown
    assert "won from s₀" not in shown and "○ failed" in shown


def test_filters_of_the_list(show, root):
    hard = ["toy/train/1", "toy/train/3"]
    for name in ("through_failure", "recovery", "harmful"):
        assert listed(show(root, **{name: True})) == hard, name
    assert listed(show(root, trained_on=True)) == [f"toy/train/{n}" for n in range(4)]
    assert listed(show(root, tag="hard")) == hard
    assert listed(show(root, outcome="failed")) == hard
    assert listed(show(root, search="GOAL 3")) == ["toy/train/3"]
    none = show(root, search="nothing")
    assert none.strip() == "0 of 4 tasks, round 2. --task=ID shows one."
    with pytest.raises(ConfigError, match="--tag is 'hrd': did you mean hard"):
        show(root, tag="hrd")


def test_filters_are_of_the_list_alone(show, root):
    for given in ({"task": "toy/train/1"}, {"tokens": True}):
        with pytest.raises(ConfigError, match="--tag filters the list of tasks"):
            show(root, tag="hard", **given)
        with pytest.raises(ConfigError, match="--recovery filters the list of tasks"):
            show(root, recovery=True, **given)


def test_the_list_of_an_earlier_round(show, root):
    row = next(line for line in show(root, round=0).splitlines() if "toy/train/0" in line)
    assert row.split() == ["toy/train/0", "won", "expert", "easy", "goal", "0"]
    with pytest.raises(ConfigError, match="--round is 7: rounds 0 to 2"):
        show(root, round=7)


def test_the_chain_of_states_with_its_reasons(show, root):
    shown = show(root, task="toy/train/1")
    assert "s₀:0/1 ━━ s₁:1/1 ╳╳ s₂:0/1 ━━ s₃:1/1 ┄┄ lost\n" in shown
    assert "In round 2 (--round=1 for another):\n" in shown
    said = " ".join(shown.split())
    assert "1 search[thing] kept for s₀: kept, it leads from a state the policy failed" in said
    assert "for s₂: masked, context before the important state, not learned" in said
    assert "masked: the policy won from before it and failed after it" in said
    assert "not used: no state after it was explored" in said
    assert "It failed after a state that passed: it needs recovery." in said
    assert "Winning continuation: the expert's beneficial action 3, then the policy's own" in said
    assert said.endswith("failed after 4 actions, reward 0.25")


def test_a_round_without_rollouts_from_an_attempt(show, root):
    assert "No round has" not in show(root, task="toy/train/0", round=1)
    shown = show(root, task="toy/train/1", round=0)
    assert "Round 0 played nothing from it and selected nothing of it." in shown
    assert "click[buy now]" in shown


def test_kinds_have_colours(show, root):
    shown = show(root, task="toy/train/1", colour=True)
    assert "\x1b[32msearch[thing]\x1b[0m" in shown  # kept: green
    assert "\x1b[31mclick[next >]\x1b[0m" in shown  # harmful: red
    assert "\x1b[" not in show(root, task="toy/train/1")


def test_a_held_out_task_has_the_attempts_of_each_policy(show, root):
    shown = show(root, task="toy/test/3")
    assert [line.partition(", ")[0] for line in shown.splitlines() if "The attempt" in line] == [
        *["The attempt of policy: failed after 3 actions"] * 2,
        "The attempt of policy: won after 3 actions",
    ]


def test_an_unknown_task_has_near_names(show, root):
    with pytest.raises(ConfigError, match=r"'toy/train/11', .* did you mean toy/train/1 or "):
        show(root, task="toy/train/11")


def test_tokens_of_the_first_batch(show, root):
    shown = show(root, tokens=True)
    assert "The first batch of round 2 as trained" in shown
    assert "2 examples, 8 tokens, 3 of them learned" in shown.replace("\n", " ")
    assert "⟦weight 0.25⟧ ⟦weight 1⟧" in shown
    assert len(re.findall("⟦", shown)) == 4 and "one/toy/train/2" in shown
    assert "Round 1 has no training examples." in show(root, tokens=True, round=1)
    coloured = show(root, tokens=True, colour=True)
    strong, weak = ("48;2;0;110;45m⟦", "48;2;0;56;23m⟦")
    assert strong in coloured and weak in coloured


def test_tokens_of_a_task(show, root):
    shown = show(root, tokens=True, task="toy/train/1")
    assert "toy/train/1 in round 2: 1 example, 4 tokens, 2 of them learned." in shown
    assert "one/toy/train/2" not in shown
    nothing = show(root, tokens=True, task="toy/train/3")
    assert nothing == "Round 2 trains on nothing of toy/train/3.\n"


def test_hostile_text_stays_text(show, tmp_path):
    work = toyrun.make(tmp_path / "run", until="round_1/select")
    stage = work.stage("expert")
    task = dataclasses.replace(toyrun.tasks("train")[0], goal=HOSTILE, tags=(HOSTILE,), id=HOSTILE)
    played = toyrun.attempt(task, [HOSTILE, "x" * 300], False, source="expert", id=HOSTILE)
    provenance = {"reason": HOSTILE}
    played = dataclasses.replace(
        played, agent=HOSTILE, outcome=Outcome.ENV_ERROR, provenance=provenance
    )
    write_trajectories(stage.folder, [*toyrun.experts(), played])
    stage.commit(toyrun.counts([*toyrun.experts(), played]), toyrun.PROVENANCE)
    for given in ({}, {"task": HOSTILE}):
        shown = show(work.root, **given)
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", shown)
        assert not any(line.startswith("forged") for line in shown.splitlines())
    assert "[bold]b[/bold] [link=file:///x]l[/] :smile: \\u202e" in " ".join(shown.split())


def test_every_line_fits_80_columns(show, tmp_path):
    sft = toyrun.CONFIG | {"method": {"name": "sft_positive"}}
    works = [
        toyrun.make(tmp_path / "eef"),
        toyrun.make(tmp_path / "sft", config=sft, method=SftPositive()),
        toyrun.make(tmp_path / "none", until="expert"),
    ]
    for work in works:
        shown = [show(work.root, colour=False), show(work.root, tokens=True)]
        if work is not works[2]:
            shown += [show(work.root, task=f"toy/train/{n}") for n in range(4)]
        assert max(cell_len(line) for text in shown for line in text.splitlines()) <= 80
    assert shown[0].strip() == "0 tasks, round 0. --task=ID shows one."


def test_no_workdir(show):
    with pytest.raises(ConfigError, match="no --workdir"):
        show("")
