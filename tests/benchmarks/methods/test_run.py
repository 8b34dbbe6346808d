"""The comparison of methods: shared clones, resumption, and the table against figures by hand."""

import concurrent.futures
import copy
import re
import subprocess
import sys

import pytest
from etils import epath

from benchmarks.methods import comparison
from benchmarks.methods import run as run_lib
from eef_jax import config as config_lib
from eef_jax import pipeline, plugins
from eef_jax.errors import ConfigError, DataError
from eef_jax.methods.eef import Eef
from eef_jax.methods.nat import Nat
from eef_jax.methods.sft_positive import SftPositive
from eef_jax.storage import manifest
from eef_jax.storage.files import write_text
from eef_jax.storage.stages import KINDS, kind_of
from eef_jax.storage.workdir import open_workdir, read_workdir
from tests import toyrun

METHODS = {"sft_positive": SftPositive(), "nat": Nat(), "eef": Eef(rounds=2, states=3)}
SHARED = (run_lib.SHARED, *run_lib.CLONE)


@pytest.fixture
def configs():
    return {m: run_lib.configure(toyrun.CONFIG, m, seed=3, split="test") for m in METHODS}


@pytest.fixture
def ran(monkeypatch):
    """Names of the runs that were finished; a run makes what is missing, like the pipeline."""
    names = []

    def run(config, workdir, *, stages=KINDS):
        by = config.method.name
        with open_workdir(workdir, config_lib.plain(config)) as work:
            for name, fill in toyrun.stages_of(METHODS[by]):
                stage = work.stage(name)
                if not stage.done():
                    if kind_of(name) not in stages:
                        return
                    stage.start()
                    counts = fill(stage.folder)
                    if kind_of(name) == "tune":  # a checkpoint has a manifest of its own
                        (stage.folder / "checkpoint").mkdir()
                        write_text(stage.folder / "checkpoint" / manifest.NAME, "{}")
                    stage.commit(counts, toyrun.PROVENANCE | {"by": by})
        if stages == KINDS:
            names.append(by)

    monkeypatch.setattr(pipeline, "run", run)
    return names


def run_seed(configs, tmp_path):
    results = epath.Path(tmp_path / "results")
    results.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        run_lib.run_seed(configs, epath.Path(tmp_path / "seed_3"), results, pool)
    return results


def test_methods_that_learn_the_same_share_the_clone(configs, ran, tmp_path):
    run_seed(configs, tmp_path)
    assert ran == ["sft_positive", "nat", "eef"]
    nat = read_workdir(tmp_path / "seed_3" / "nat")
    by = {name: nat.stage(name).manifest()["provenance"]["by"] for name in SHARED}
    assert by == {"expert": "sft_positive"} | dict.fromkeys(run_lib.CLONE, "nat")
    eef = read_workdir(tmp_path / "seed_3" / "eef")
    assert eef.config["method"]["name"] == "eef" and eef.config["seed"] == 3
    makers = {
        name: eef.stage(name).manifest()["provenance"]["by"]
        for name in (*SHARED, "round_1/explore")
    }
    assert makers.pop("round_1/explore") == "eef"
    assert set(makers.values()) == {"sft_positive"}
    for name in SHARED:
        eef.stage(name).verify()


def test_an_interrupted_comparison_resumes(configs, ran, tmp_path):
    results = run_seed(configs, tmp_path)
    run_seed(configs, tmp_path)
    assert len(ran) == 3
    (results / "test-eef-3.json").unlink()
    run_seed(configs, tmp_path)
    assert ran == ["sft_positive", "nat", "eef", "eef"]


def test_a_clone_of_another_config_is_not_copied(configs, ran, tmp_path):
    run_seed({"sft_positive": configs["sft_positive"]}, tmp_path)
    base = {**toyrun.CONFIG, "env": {**toyrun.CONFIG["env"], "train_tasks": 2}}
    other = {m: run_lib.configure(base, m, seed=3, split="test") for m in METHODS}
    with pytest.raises(ConfigError, match=r"another config.*\n  env.train_tasks"):
        run_seed(other, tmp_path)
    assert not run_lib.is_run_of(epath.Path(tmp_path / "seed_3" / "eef"), other["eef"])
    run_seed({"eef": other["eef"]}, tmp_path)
    expert = read_workdir(tmp_path / "seed_3" / "eef").stage("expert")
    assert expert.manifest()["provenance"]["by"] == "eef"


def test_every_method_and_its_variants_are_compared():
    found = run_lib.variants()
    assert {one["name"] for one in found.values()} == set(plugins.available("methods"))
    assert found["rft_x6"] == {"name": "rft", "rollouts": 6}
    assert list(found)[-1] == "eef"


def test_figures_of_a_run(tmp_path):
    figures = comparison.collect(toyrun.make(tmp_path / "run"), "eef")
    assert (figures.rollouts, figures.tokens, figures.steps) == (20, 9000, 36)
    assert figures.only_through_failure == 2
    assert figures.wins == [1, 1, 0, 1]
    comparison.write(tmp_path / "f.json", figures)
    assert comparison.load(tmp_path / "f.json") == figures
    assert (tmp_path / "f.json").read_text().count("\n") == 1


def test_an_unfinished_run_has_no_figures(tmp_path):
    work = toyrun.make(tmp_path / "run", until="round_2/tune")
    with pytest.raises(DataError, match="round_2/tune, round_2/evaluate are missing"):
        comparison.collect(work, "eef")


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_damaged_figures_are_refused(tmp_path, text):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(DataError, match="move it away"):
        comparison.load(epath.Path(tmp_path / "f.json"))


def figures(method, seed, wins, **fields):
    return comparison.Figures(
        **{
            "method": method,
            "seed": seed,
            "split": "test",
            "commit": "abc",
            "config_hash": "c",
            "setting": "s",
            "rollouts": 100,
            "tokens": 1000 * seed,
            "steps": 10,
            "seconds": 1.0,
            "only_through_failure": None,
            "tasks": [f"t{n}" for n in range(len(wins))],
            "tags": [["hard"] if n % 2 else ["easy"] for n in range(len(wins))],
            "wins": wins,
            "rewards": [None if win is None else float(win) for win in wins],
            "expert": {},
            **fields,
        }
    )


def test_the_table_has_averages_over_seeds_and_paired_differences():
    text = comparison.table(
        [
            figures("rft", 0, [1, 0, 1, 0]),
            figures("rft", 1, [1, 0, 0, 0]),
            figures("eef", 0, [1, 1, 1, 1]),
            figures("eef", 1, [1, 1, 0, 0]),
        ]
    )
    rft = next(line for line in text.splitlines() if line.startswith("| rft | 2 |"))
    assert "37.5 %" in rft and "50.0 25.0" in rft and "| 100 | 500 | 10 | - |" in rft
    difference = text.split("eef minus")[1]
    assert re.search(r"\| rft \| \+37\.5 \[[^|]+\| \+0\.0 \[[^|]+\| \+75\.0 \[", difference)
    assert text.endswith("setting s, commit abc")


def test_infrastructure_failures_are_left_out_of_paired_differences():
    text = comparison.table([figures("rft", 0, [0, 0, 1, 0]), figures("eef", 0, [None, 1, 1, 1])])
    assert "+66.7" in text  # of the three tasks that both completed


@pytest.mark.parametrize(
    ("field", "value"), [("setting", "x"), ("tasks", list("abcd")), ("split", "dev")]
)
def test_figures_of_different_settings_are_refused(field, value):
    one, other = figures("rft", 0, [1] * 4), figures("eef", 0, [1] * 4, **{field: value})
    with pytest.raises(DataError, match=f"differs from rft .* in its {field}"):
        comparison.table([one, other])


def test_matched_rft_matches_the_configs_own_eef():
    config = copy.deepcopy(toyrun.CONFIG)
    config["method"]["rollouts"] = 3
    section = run_lib.configure(config, "rft_matched", 0, "test").method.options
    assert (section.rollouts, section.eef_rollouts) == ("matched", 3)
    assert comparison.setting(
        run_lib.configure(config, "rft_matched", 0, "test")
    ) == comparison.setting(run_lib.configure(config, "eef", 1, "test"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods=eff"], "ConfigError: unknown method 'eff' in --methods: did you mean eef"),
        (["--table", "--results=/nowhere"], "DataError: /nowhere has no figures"),
    ],
)
def test_errors_are_one_message(arguments, message):
    command = [sys.executable, "-m", "benchmarks.methods", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().startswith(message)
