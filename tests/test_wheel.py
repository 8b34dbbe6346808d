"""The wheel: made from the source distribution, installed apart, used from another folder."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ("LICENSE", "NOTICE", "README.md", "configs", "eef_jax", "pyproject.toml")
pytestmark = [pytest.mark.processes, pytest.mark.slow]


def run(*command, cwd, **environment):
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
    return done.stdout


def pip(*words, cwd):
    offline = ("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", *words, *offline, cwd=cwd)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Made outside the checkout, where the build leaves its folders."""
    folder = tmp_path_factory.mktemp("build")
    for name in (*SOURCES, "requirements.txt"):
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name,
                folder / name,
                symlinks=True,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        else:
            shutil.copy(ROOT / name, folder)
    build = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    run(sys.executable, "-c", build, cwd=folder)
    (sdist,) = folder.glob("dist/*.tar.gz")
    pip("wheel", "--no-build-isolation", "--wheel-dir=dist", str(sdist), cwd=folder)
    (made,) = folder.glob("dist/*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The wheel alone in a folder; its dependencies come from this interpreter."""
    folder = tmp_path_factory.mktemp("site")
    pip("install", "--no-compile", f"--target={folder}", str(wheel), cwd=folder)
    return folder


def test_it_holds_what_a_user_runs_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"eef_jax"}
    tracked = {
        f"eef_jax/{path.relative_to(ROOT / 'eef_jax').as_posix()}"
        for path in (ROOT / "eef_jax").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    configs = {f"eef_jax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    in_package = {name for name in names if name.startswith("eef_jax/")}
    assert in_package == tracked | configs
    assert "eef_jax/bases/scienceworld/model.safetensors" in names
    assert "eef_jax/py.typed" in names


def test_a_shipped_preset_runs_from_another_folder(installed, tmp_path):
    told = run(
        str(installed / "bin" / "eef"),
        "--config=webshop:tiny",
        "--check",
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        XLA_FLAGS="",  # one device, as a user's machine has
    )
    assert "webshop:tiny" in told and "all checks passed" in told
    assert list(tmp_path.iterdir()) == []


def test_every_console_command_says_what_it_does(installed, tmp_path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    commands = sorted(path.name for path in (installed / "bin").iterdir())
    assert commands == sorted(project["scripts"])
    program = (
        "import eef_jax, importlib.metadata as m\n"
        "points = m.distribution('eef-jax').entry_points\n"
        "print(eef_jax.__file__, *(point.load().__name__ for point in points))"
    )
    where, *functions = run(
        sys.executable, "-c", program, cwd=tmp_path, PYTHONPATH=str(installed)
    ).split()
    assert Path(where).is_relative_to(installed)
    assert functions == ["run"] * len(commands)
    for name in ("eef-report", "eef-import", "eef-view"):
        done = subprocess.run(
            [installed / "bin" / name, "--help"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
        )
        assert f"python -m eef_jax.{name.replace('eef-', '')}" in done.stdout


def test_a_plug_in_of_the_current_folder_is_found(installed, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "method.py").write_text(
        "from eef_jax.methods.sft_all import Config as Config, make as make\n"
    )
    told = run(
        str(installed / "bin" / "eef"),
        "--config=webshop:tiny",
        "--config.method.name=mine.method",
        "--check",
        cwd=tmp_path,
        PYTHONPATH=str(installed),
        XLA_FLAGS="",  # one device, as a user's machine has
    )
    assert "all checks passed" in told
