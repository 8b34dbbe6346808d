"""The project's own files: citation, changelog, workflow and hooks say what the code says."""

import re
import tomllib
from pathlib import Path

import yaml

import eef_jax

ROOT = Path(__file__).parents[1]


def text(name):
    return (ROOT / name).read_text("utf-8")


def test_citation_and_changelog_name_the_version():
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["version"] == eef_jax.__version__
    assert citation["license"] == tomllib.loads(text("pyproject.toml"))["project"]["license"]
    newest = re.search(r"^## ([\d.]+)", text("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None and newest[1] == eef_jax.__version__


def test_the_workflow_runs_the_script_that_is_all_of_ci():
    (job,) = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    python = next(step for step in job["steps"] if "setup-python" in step.get("uses", ""))
    required = tomllib.loads(text("pyproject.toml"))["project"]["requires-python"]
    assert required == f">={python['with']['python-version']}"  # and that of the parity tests


def test_hooks_are_a_part_of_make_check():
    (local,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"]
    recipe = text("Makefile").split("\ncheck:")[1].split("\n\n")[0]
    tools = {hook["entry"].split()[0].rpartition("/")[2] for hook in local["hooks"]}
    assert tools == set(re.findall(r"\(BIN\)/([\w-]+)", recipe))


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "eef_jax" / "py.typed").exists()


def test_extras_are_told_where_one_installs():
    declared = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    install = text("README.md").split("## Install")[1].split("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", install, re.MULTILINE)
            for name in re.findall(r"`([\w-]+)`", row)}  # fmt: skip
    assert told == set(declared) - {"benchmarks", "check", "docs", "parity", "test"}
