"""The launchers: the commands of their dry runs, and how they handle failures of the cloud.

Small scripts on the PATH stand in for the clouds' commands and record their arguments.
"""

import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
import tomllib
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


def remote(words):
    """The command that a `gcloud ... ssh` runs in the checkout's folder."""
    command = shlex.split(words[-1].removeprefix("--command="))
    assert command[:3] == ["cd", "eef", "&&"]
    return command[3:]


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
    # The exit code is that of the process that failed by itself, not of the one that lost it.
    bodies = {
        "exit 0": 0,
        "exit 3": 3,
        'case "$*" in *--process=0*) exit 42 ;; *) exit 3 ;; esac': 3,
        'case "$*" in *--process=0*) exit 42 ;; *) exit 143 ;; esac': 143,
        "exit 42": 42,
    }
    for body, code in bodies.items():
        stub(tmp_path, "python-stub", body)
        got, _, _ = launch("local.sh", "--", *RUN, path=tmp_path, PYTHON="python-stub")
        assert got == code, body
    assert len(calls(tmp_path)) == 2 * len(bodies)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_local_passes_a_signal_on_and_waits_for_the_processes(tmp_path, number, code):
    program = (
        "import pathlib, signal, sys, time\n"
        "number = next(word[-1] for word in sys.argv if word.startswith('--process='))\n"
        "mark = pathlib.Path('told')\n"
        "def told(*_): mark.touch()\n"
        "if number == '0':\n"
        "    for name in (signal.SIGINT, signal.SIGTERM):\n"
        "        assert signal.getsignal(name) is not signal.SIG_IGN\n"
        "        signal.signal(name, told)\n"
        "pathlib.Path(f'up{number}').touch()\n"
        "while not mark.exists(): time.sleep(0.05)\n"
        "time.sleep(0.3)\n"
        "pathlib.Path(f'ended{number}').touch()\n"
    )
    (tmp_path / "run.py").write_text(program)
    stub(tmp_path, "python-stub", f'exec {sys.executable} run.py "$@"')
    launcher = subprocess.Popen(
        ["bash", str(LAUNCH / "local.sh"), "--", *RUN],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": "python-stub"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not all((tmp_path / f"up{process}").exists() for process in range(2)):
        time.sleep(0.05)
    launcher.send_signal(number)
    output = launcher.communicate(timeout=30)[0]
    assert (launcher.returncode, output) == (code, "")
    assert all((tmp_path / f"ended{process}").exists() for process in range(2))


def test_tpu_vm_creates_sets_up_and_runs_on_all_workers(tmp_path):
    (tmp_path / "my_data").mkdir()
    options = ["--spot", "--delete", f"--ship={tmp_path / 'my_data'}", "--env=SOME_KEY"]
    code, lines, _ = launch("tpu_vm.sh", "--dry-run", *TPU, *options, "--", *RUN, SOME_KEY="hush")
    verbs = [words[4] if words[0] == "gcloud" else words[0] for words in lines]
    wanted = ["create", "git", "tar", "scp", "ssh", "ssh", "ssh", "ssh", "delete"]
    assert code == 0 and verbs == wanted
    assert {"--spot", "--accelerator-type=v5litepod-16", "--zone=here"} < set(lines[0])
    assert lines[2][-1] == "my_data" and "hush" not in str(lines)
    setup, start, follow = lines[5:8]
    assert "--worker=all" in setup and "--worker=all" in start and "--worker=0" in follow
    assert remote(setup) == ["launch/worker.sh", "setup", "tpu,gcs", *RUN]
    assert remote(start) == [
        *("launch/worker.sh", "start", ".venv/bin/python", "-m", "eef_jax.main"),
        *("--cluster", "--workdir=gs://b/run", *RUN),
    ]


@pytest.mark.parametrize(
    ("type", "version"),
    [
        ("v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-256", "v2-alpha-tpuv6e"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_tpu_vm_takes_the_types_software(type, version):
    code, lines, _ = launch("tpu_vm.sh", "--dry-run", *TPU, f"--type={type}", "--", *RUN)
    assert code == 0 and f"--version={version}" in lines[0]


def test_tpu_vm_refuses_what_it_cannot_do(tmp_path):
    for option, message in {
        "--type=v99-8": "--version is missing: none is known for --type=v99-8",
        "--ship=nowhere": "--ship=nowhere: there is no such file",
        "--env=NOT_SET_HERE": "--env=NOT_SET_HERE: the variable is not set",
    }.items():
        code, _, errors = launch("tpu_vm.sh", "--dry-run", *TPU, option, "--", *RUN)
        assert code == 2 and message in errors


# A slice on which runs end as the file `ends` says, one line a run; PREEMPTED takes the slice away.
SLICE = """
case "$4" in
  describe) [ -e slice ] && cat slice || exit 1 ;;
  create) echo READY >slice ;;
  delete) rm -f slice ended ;;
  ssh) case "$*" in
    *"worker.sh start"*)
      head -n 1 ends >ended; sed -i 1d ends
      if grep -q PREEMPTED ended; then echo PREEMPTED >slice; fi ;;
    *"worker.sh state"*)
      grep -q READY slice && [ -e ended ] || exit 255
      if [ -e broken ]; then rm broken; echo running; else cat ended; fi ;;
    esac ;;
esac
"""


def play(folder, *ends, broken=False):
    """Exit code, verbs of the cloud's command and errors of a launch whose runs end so."""
    stub(folder, "gcloud", SLICE)
    (folder / "ends").write_text("".join(f"{end}\n" for end in ends))
    if broken:
        (folder / "broken").touch()
    code, _, errors = launch("tpu_vm.sh", *TPU, "--", *RUN, path=folder)
    verbs = [
        found[1] if (found := re.search(r"worker.sh (\w+)", words[-1])) else words[4]
        for words in calls(folder)
    ]
    return code, [verb for verb in verbs if verb not in ("describe", "state")], errors


ONCE = ["scp", "ssh", "setup", "start", "follow"]


def test_tpu_vm_goes_on_after_a_preemption(tmp_path):
    code, verbs, errors = play(tmp_path, "PREEMPTED", "ended 0")
    assert code == 0 and "was preempted: attempt 2" in errors
    assert verbs == ["create", *ONCE, "delete", "create", *ONCE]


@pytest.mark.parametrize("end", ["ended 42", "ended 143", "ended 137"])
def test_tpu_vm_starts_again_when_the_exit_code_asks_for_it(tmp_path, end):
    code, verbs, errors = play(tmp_path, end, "ended 0")
    assert code == 0 and "asks for a restart: attempt 2" in errors
    assert verbs == ["create", *ONCE, *ONCE]


def test_tpu_vm_does_not_repeat_a_run_that_fails(tmp_path):
    code, verbs, errors = play(tmp_path, "ended 1")
    assert code == 1 and "the run on eef ended 1" in errors
    assert verbs == ["create", *ONCE]


def test_tpu_vm_follows_again_after_a_broken_connection(tmp_path):
    code, verbs, _ = play(tmp_path, "ended 0", broken=True)
    assert code == 0 and verbs == ["create", *ONCE[:-1], "follow", "follow"]


def test_tpu_vm_only_follows_a_run_that_is_under_way(tmp_path):
    (tmp_path / "slice").write_text("READY")
    (tmp_path / "ended").write_text("ended 0")
    code, verbs, _ = play(tmp_path, broken=True)
    assert code == 0 and verbs == ["follow"]


def worker(folder, *arguments, check=True):
    """Output of `worker.sh` in a folder."""
    return subprocess.run(
        ["bash", str(LAUNCH / "worker.sh"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=check,
    )


def test_a_workers_run_outlives_its_start_and_can_be_followed_twice(tmp_path):
    (tmp_path / "run.env").write_text("SOME_KEY=a b=c\n")
    command = 'echo "$SOME_KEY $1"; until [ -e go ]; do sleep 0.1; done; exit 3'
    worker(tmp_path, "start", "bash", "-c", command, "x", "two words")
    assert worker(tmp_path, "state").stdout == "running\n"
    (tmp_path / "go").touch()
    for _ in range(2):
        done = worker(tmp_path, "follow", check=False)
        assert done.returncode == 3 and done.stdout == "a b=c two words\n"
    assert worker(tmp_path, "state").stdout == "ended 3\n"


def test_a_workers_next_start_ends_the_run_before(tmp_path):
    assert worker(tmp_path, "state").stdout == "none\n"
    worker(tmp_path, "start", "sleep", "100")
    first = int((tmp_path / "run.pid").read_text())
    worker(tmp_path, "start", "true")
    assert worker(tmp_path, "follow").returncode == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(first, 0)


def test_a_killed_run_is_told_apart(tmp_path):
    worker(tmp_path, "start", "sleep", "100")
    os.killpg(int((tmp_path / "run.pid").read_text()), 9)
    while worker(tmp_path, "state").stdout == "running\n":
        pass
    assert worker(tmp_path, "state").stdout == "ended 137\n"
    assert worker(tmp_path, "follow", check=False).returncode == 137


def test_xpk_builds_pushes_and_creates_a_workload():
    options = ["--build", "--slices=2", "--extras=openai,scienceworld", "--env=SOME_KEY"]
    code, lines, _ = launch("gke_xpk.sh", "--dry-run", *XPK, *options, "--", *RUN, SOME_KEY="hush")
    assert code == 0 and [words[:2] for words in lines] == [
        ["docker", "build"],
        ["docker", "push"],
        ["xpk", "workload"],
    ]
    assert {"--target=tpu", "EXTRAS=,openai,scienceworld"} < set(lines[0])
    assert {"--num-slices=2", "--restart-on-exit-codes=42,137,143"} < set(lines[2])
    assert "APT=openjdk-17-jre-headless" in lines[0] and "hush" not in str(lines)
    command = shlex.split(lines[2][-1].removeprefix("--command="))
    assert command == [
        *("exec", "python", "-m", "eef_jax.main", "--cluster", "--workdir=gs://b/run"),
        *RUN,
    ]


def test_xpk_gets_the_names_of_variables_not_their_values(tmp_path):
    stub(
        tmp_path, "xpk", 'for word; do case "$word" in --env-file=*) cat "${word#*=}";; esac; done'
    )
    code, lines, _ = launch(
        "gke_xpk.sh", *XPK, "--env=SOME_KEY", "--", *RUN, path=tmp_path, SOME_KEY="hush"
    )
    assert code == 0 and lines == [["SOME_KEY"]]
    assert "hush" not in (tmp_path / "calls").read_text()


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


@pytest.mark.parametrize(
    ("code", "requeued"), [(0, False), (1, False), (42, True), (137, True), (143, True)]
)
def test_slurm_queues_a_job_again_when_the_exit_code_asks_for_it(tmp_path, code, requeued):
    stub(tmp_path, "srun", f"exit {code}")
    stub(tmp_path, "scontrol")
    got, _, _ = launch("slurm.sbatch", *RUN, path=tmp_path, SLURM_JOB_ID="7")
    assert got == code
    assert (["scontrol", "requeue", "7"] in calls(tmp_path)) == requeued


def test_slurm_tells_the_run_that_its_time_is_up(tmp_path):
    stub(tmp_path, "srun", "trap 'touch told; exit 1' TERM; touch up; while :; do sleep 0.1; done")
    stub(tmp_path, "scontrol")
    job = subprocess.Popen(
        ["bash", str(LAUNCH / "slurm.sbatch"), *RUN],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"},
    )
    while not (tmp_path / "up").exists():
        time.sleep(0.05)
    job.terminate()
    assert job.wait(timeout=30) == 143 and (tmp_path / "told").exists()
    assert ["scontrol", "requeue", "7"] in calls(tmp_path)


def test_skypilot_starts_a_process_a_node(tmp_path):
    task = yaml.safe_load(read("skypilot.yaml"))
    assert task["num_nodes"] == 2 and {"WORKDIR", "FLAGS"} == set(task["envs"])
    # It gives 137 to nodes that it ends because another one failed.
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [42, 143]
    assert set(task["envs"].values()) == {None}  # which SkyPilot refuses, unlike an empty string
    assert "launch/worker.sh setup gpu,gcs $FLAGS" in task["setup"]
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


def test_docker_names_real_extras_and_leaves_the_environment_out():
    text, root = read("Dockerfile"), LAUNCH.parent
    targets = re.findall(r"^FROM source AS (\w+)$", text, re.MULTILINE)
    assert targets == ["tpu", "cuda", "cpu"]
    found = re.findall(r"\.\[([\w,]+)\$EXTRAS\]", text)
    extras = {name for names in found for name in names.split(",")}
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert len(found) == 3 and extras <= set(declared["optional-dependencies"])
    assert {".git", ".venv*", "runs"} <= set((root / ".dockerignore").read_text().split())


def test_flags_of_the_launchers_exist():
    done = subprocess.run(
        [sys.executable, "-m", "eef_jax.main", "--helpfull"], capture_output=True, text=True
    )
    for flag in ("cluster", "coordinator", "processes", "process", "workdir"):
        assert re.search(rf"--(\[no\])?{flag}:", done.stdout)


@pytest.mark.parametrize(
    "script", ["local.sh", "tpu_vm.sh", "worker.sh", "gke_xpk.sh", "slurm.sbatch"]
)
def test_every_script_parses(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)


def read(name):
    return (LAUNCH / name).read_text()
