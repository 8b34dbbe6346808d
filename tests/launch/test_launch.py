"""The launchers: the commands of their dry runs, and how they handle failures of the cloud.

Small scripts on the PATH stand in for the clouds' commands and record their arguments.
"""

import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
RUN = ["--config=configs/webshop.py:tiny", "--config.method.name=rft"]
TPU = ["--name=eef", "--zone=here", "--type=v5litepod-16", "--workdir=gs://b/run"]
XPK = ["--cluster=c", "--image=i:tpu", *TPU]


def launch(script, *arguments, path=None, **environment):
    """Exit code, lines of output as words, and errors of a launcher."""
    done = subprocess.run(
        ["bash", str(LAUNCH / script), *arguments],
        capture_output=True,
        text=True,
        cwd=path,
        env=os.environ | environment | ({"PATH": f"{path}:{os.environ['PATH']}"} if path else {}),
        timeout=60,
    )
    return done.returncode, [shlex.split(line) for line in done.stdout.splitlines()], done.stderr


def stub(folder, name, body="exit 0"):
    """Put a command on the PATH that writes its arguments into `calls`, then does `body`."""
    file = folder / name
    file.write_text(
        f"#!/usr/bin/env bash\nprintf '%q ' {name} \"$@\" >>calls; echo >>calls\n{body}\n"
    )
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def calls(folder):
    return [shlex.split(line) for line in (folder / "calls").read_text().splitlines()]


def test_local_processes_know_of_each_other():
    code, lines, _ = launch("local.sh", "--dry-run", "--processes=3", "--", *RUN)
    assert code == 0 and len(lines) == 3
    for number, words in enumerate(lines):
        assert words[1:3] == ["-m", "eef_jax.main"] and words[-1] == "&"
        assert {"--coordinator=127.0.0.1:8476", "--processes=3", *RUN} < set(words)
        assert f"--process={number}" in words


def test_local_fails_with_its_processes(tmp_path):
    for body, code in (("exit 0", 0), ("exit 3", 1)):
        stub(tmp_path, "python-stub", body)
        got, _, _ = launch("local.sh", "--", *RUN, path=tmp_path, PYTHON="python-stub")
        assert got == code
    assert len(calls(tmp_path)) == 4


def test_tpu_vm_creates_sets_up_and_runs_on_all_workers():
    code, lines, _ = launch("tpu_vm.sh", "--dry-run", *TPU, "--spot", "--delete", "--", *RUN)
    verbs = [words[4] if words[0] == "gcloud" else words[0] for words in lines]
    assert code == 0 and verbs == ["create", "git", "scp", "ssh", "ssh", "delete"]
    assert {"--spot", "--accelerator-type=v5litepod-16", "--zone=here"} < set(lines[0])
    last = lines[4]
    assert "--worker=all" in last
    command = shlex.split(last[-1].removeprefix("--command="))
    assert command[:6] == ["cd", "eef", "&&", ".venv/bin/python", "-m", "eef_jax.main"]
    assert command[6:] == ["--cluster", "--workdir=gs://b/run", *RUN]


# A slice whose first run is broken off by a preemption.
PREEMPTED = """
case "$4" in
  describe) [ -e slice ] && cat slice || exit 1 ;;
  create) echo READY >slice ;;
  delete) rm slice ;;
  ssh) case "$*" in *eef_jax.main*)
    [ -e once ] || { touch once; echo PREEMPTED >slice; exit 1; } ;; esac ;;
esac
"""


def test_tpu_vm_goes_on_after_a_preemption(tmp_path):
    stub(tmp_path, "gcloud", PREEMPTED)
    code, _, errors = launch("tpu_vm.sh", *TPU, "--", *RUN, path=tmp_path)
    assert code == 0 and "was preempted: attempt 2" in errors
    verbs = [words[4] for words in calls(tmp_path) if words[4] != "describe"]
    assert verbs == ["create", "scp", "ssh", "ssh", "delete", "create", "scp", "ssh", "ssh"]


def test_tpu_vm_does_not_repeat_a_run_that_fails(tmp_path):
    stub(
        tmp_path, "gcloud", 'case "$*" in *describe*) echo READY ;; *eef_jax.main*) exit 1 ;; esac'
    )
    code, _, errors = launch("tpu_vm.sh", *TPU, "--", *RUN, path=tmp_path)
    assert code == 1 and "the run failed while eef was READY" in errors
    assert sum("ssh" in words for words in calls(tmp_path)) == 2


def test_xpk_builds_pushes_and_creates_a_workload():
    code, lines, _ = launch("gke_xpk.sh", "--dry-run", *XPK, "--build", "--slices=2", "--", *RUN)
    assert code == 0 and [words[:2] for words in lines] == [
        ["docker", "build"],
        ["docker", "push"],
        ["xpk", "workload"],
    ]
    assert "--target=tpu" in lines[0] and "--num-slices=2" in lines[2]
    command = shlex.split(lines[2][-1].removeprefix("--command="))
    assert command == [
        *("python", "-m", "eef_jax.main", "--cluster", "--workdir=gs://b/run"),
        *RUN,
    ]


@pytest.mark.parametrize(("script", "given"), [("tpu_vm.sh", TPU), ("gke_xpk.sh", XPK)])
def test_what_is_missing_or_unknown_is_named(script, given):
    code, _, errors = launch(script, "--dry-run", *given[:-1])
    assert code == 2 and "--workdir is missing" in errors
    code, _, errors = launch(script, "--dry-run", *given, "--spto")
    assert code == 2 and "unknown option --spto" in errors


def test_slurm_runs_a_task_a_gpu():
    code, lines, _ = launch("slurm.sbatch", "--dry-run", "--workdir=/shared/run", *RUN)
    assert code == 0 and lines == [
        [
            *("srun", "--kill-on-bad-exit=1", ".venv/bin/python", "-m", "eef_jax.main"),
            *("--cluster", "--workdir=/shared/run", *RUN),
        ]
    ]
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", read("slurm.sbatch"), re.MULTILINE))
    assert options["ntasks-per-node"] == options["gpus-per-node"]


def test_skypilot_starts_a_process_a_node(tmp_path):
    task = yaml.safe_load(read("skypilot.yaml"))
    assert task["num_nodes"] == 2 and {"WORKDIR", "FLAGS"} == set(task["envs"])
    (tmp_path / ".venv/bin").mkdir(parents=True)
    stub(tmp_path / ".venv/bin", "python")
    given = {
        "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
        "SKYPILOT_NUM_NODES": "2",
        "SKYPILOT_NODE_RANK": "1",
        "WORKDIR": "gs://b/run",
        "FLAGS": " ".join(RUN),
    }
    subprocess.run(
        ["bash", "-euc", task["run"]], cwd=tmp_path, env=os.environ | given, check=True, timeout=60
    )
    (words,) = calls(tmp_path)
    assert words[1:] == [
        *("-m", "eef_jax.main", "--coordinator=10.0.0.1:8476", "--processes=2", "--process=1"),
        *("--workdir=gs://b/run", *RUN),
    ]


def test_docker_copies_what_is_there_and_names_real_extras():
    text, root = read("Dockerfile"), LAUNCH.parent
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        assert all((root / name).exists() for name in line.split()[:-1])
    targets = re.findall(r"^FROM source AS (\w+)$", text, re.MULTILINE)
    assert targets == ["tpu", "cuda", "cpu"]
    extras = {name for found in re.findall(r"\.\[([\w,]+)\]", text) for name in found.split(",")}
    declared = (root / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = ", declared, re.MULTILINE) for extra in extras)


def test_flags_of_the_launchers_exist():
    done = subprocess.run(
        [sys.executable, "-m", "eef_jax.main", "--helpfull"], capture_output=True, text=True
    )
    for flag in ("cluster", "coordinator", "processes", "process", "workdir"):
        assert re.search(rf"--(\[no\])?{flag}:", done.stdout)


@pytest.mark.parametrize("script", ["local.sh", "tpu_vm.sh", "gke_xpk.sh", "slurm.sbatch"])
def test_every_script_parses(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)


def read(name):
    return (LAUNCH / name).read_text()
