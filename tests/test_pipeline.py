"""The whole story on a small random model: what it writes, skips, refuses and counts."""

import contextlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tqdm
from etils import epath

from eef_jax import config as config_lib
from eef_jax import export, pipeline, starting
from eef_jax.config import numerics
from eef_jax.data.stored import StoredExamples
from eef_jax.errors import ConfigError, DataError, RolloutError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.storage import lock
from eef_jax.storage.trajectories import read_trajectories
from eef_jax.storage.workdir import LOCK, read_workdir
from eef_jax.text.chat import ChatTokenizer
from tests import hub, toybase


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toybase.make(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def config(base):
    return toybase.config(base)


def changed(config, *overrides):
    return config_lib.override(config_lib.plain(config), overrides)


@pytest.fixture(scope="module")
def bars():
    """The names of all progress bars that runs of this file made so far."""
    made = []

    class Bar(tqdm.tqdm):
        def __init__(self, *args, **kwargs):
            made.append(kwargs["desc"])
            super().__init__(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tqdm, "tqdm", Bar)
        yield made


@pytest.fixture(scope="module")
def finished(config, bars, tmp_path_factory):
    """A finished run and its table."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return workdir, pipeline.run(config, str(workdir))


def test_writes_every_stage_and_a_report(finished):
    workdir, table = finished
    stages = ["expert", "round_0/select", "round_0/tune", "round_0/evaluate"]
    stages += [f"round_1/{kind}" for kind in ("explore", "select", "tune", "evaluate")]
    for stage in stages:
        assert (workdir / stage / "manifest.json").exists()
        read_workdir(workdir).stage(stage).verify()
    assert "expert" in table and (workdir / "report.md").read_text()


def test_each_progress_bar_names_its_stage(finished, bars):
    experts = {"expert", "expert, test tasks"}
    clone, round = ({f"{kind} round {n}" for kind in ("tune", "evaluate")} for n in (0, 1))
    # The check of the start plays without one.
    assert {*bars} - {""} == {*experts, *clone, "explore round 1", *round}


def with_method(base, name, *overrides):
    plain = config_lib.plain(toybase.config(base, *overrides))
    section = config_lib.switched("method", name, plain["method"])
    return config_lib.read({**plain, "method": section})


def first_update(workdir):
    return json.loads((workdir / "round_1/tune/metrics.jsonl").read_text().splitlines()[0])


@pytest.mark.slow
def test_eto_learns_pairs_from_the_clone_on(base, tmp_path):
    chats = tmp_path / "chats.jsonl"
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    chats.write_text(json.dumps({"messages": messages}) + "\n")
    also = [("train.conversations", str(chats)), ("train.observation_weight", "0.1")]
    config = with_method(base, "eto", *also)
    pipeline.run(config, str(tmp_path / "run"))
    selected = StoredExamples(tmp_path / "run/round_1/select/dataset")
    learned = StoredExamples(tmp_path / "run/round_1/tune/dataset")
    assert selected.pairs == learned.pairs == [*sorted([*range(1, len(selected) // 2 + 1)] * 2), 0]
    for left, right in zip(selected, learned, strict=True):
        assert set(right.columns) == {*left.columns, "reference_logps"}
        assert set(np.unique(left.weights)) <= {np.float32(w) for w in (0.0, 0.1, 1.0)}
    first = first_update(tmp_path / "run")
    assert (first["margin"], first["accuracy"]) == (0.0, 0.0)
    counts = read_workdir(tmp_path / "run").stage("round_1/select").manifest()["counts"]
    assert counts["conversations"] == 1
    assert counts["examples"] == 2 * counts["facts"]["pairs"] == len(selected) - 1


@pytest.mark.slow
def test_grpo_learns_sampled_tokens_from_the_policy_that_sampled_them(base, tmp_path):
    config = with_method(base, "grpo", ("explore.temperature", "0.7"))
    section = {"rollouts": 2, "expert_weight": 0.5, "kl": 0.1, "tasks_per_round": 3}
    config = changed(config, *((f"method.{name}", str(value)) for name, value in section.items()))
    pipeline.run(config, str(tmp_path / "run"))
    examples = StoredExamples(tmp_path / "run/round_1/tune/dataset")
    assert {example.provenance["role"] for example in examples} == {"group", "expert_win"}
    for example in examples:
        sampled = example.columns["temperatures"] > 0
        assert sampled.any() == (example.provenance["role"] == "group")
        assert (example.weights[sampled] == 1.0).all()
    first = first_update(tmp_path / "run")
    # Engine and training compute the same distribution, but for the last bits.
    assert first["ratio"] == pytest.approx(1.0, abs=1e-4)
    assert first["clipped"] == 0.0 and first["kl"] > 0


@pytest.mark.slow
def test_the_mark_of_failures_never_reaches_a_policy(base, tmp_path, monkeypatch):
    config, read = with_method(base, "nat"), []
    prompt = ChatTokenizer.prompt

    def spy(self, messages, tokens=None):
        read.append("\n".join(message.content for message in messages))
        return prompt(self, messages, tokens)

    stage = pipeline._MAKERS["evaluate"]

    def evaluate(*args):
        monkeypatch.setattr(ChatTokenizer, "prompt", spy)
        stage(*args)

    monkeypatch.setitem(pipeline._MAKERS, "evaluate", evaluate)
    pipeline.run(config, str(tmp_path / "run"))
    method, path = config.method.options, tmp_path / "run/round_0"
    assert read and all(text.startswith(method.mark) for text in read)
    assert not any(method.failure_mark in text for text in read)
    chat = ChatTokenizer.load(base)
    taught = {e.provenance["role"]: e for e in StoredExamples(path / "select/dataset")}
    for role, mark in (("expert_win", method.mark), ("expert_failure", method.failure_mark)):
        assert mark.lower() in chat.decode(taught[role].tokens.tolist())
    (played, *_) = read_trajectories(path / "evaluate")
    assert method.mark not in played.steps[0].observation


def test_expert_is_kept_with_provenance(finished):
    workdir, _ = finished
    experts = read_trajectories(workdir / "expert")
    assert len(experts) == 6 and {t.source for t in experts} == {"expert"}
    assert experts[0].provenance["config_hash"] and experts[0].agent == "shopper"


def test_explores_the_start_and_states_of_failures(finished, config):
    workdir, _ = finished
    experts = read_trajectories(workdir / "expert")
    played = read_trajectories(workdir / "round_1/explore")
    failed = {t.id for t in experts if not t.win}
    assert failed and {t.parent for t in played if t.fork_step} == failed
    assert {t.task.id for t in played if not t.fork_step} == {t.task.id for t in experts}


def test_data_set_says_why_each_step_was_kept(finished):
    workdir, _ = finished
    folder = workdir / "round_1/select"
    examples = list(StoredExamples(folder / "dataset"))
    verdicts = [json.loads(line) for line in (folder / "selections.jsonl").read_text().splitlines()]
    assert len(examples) == len(verdicts) > 0
    assert all(step["reason"] for verdict in verdicts for step in verdict["steps"])
    assert all(example.weights.any() for example in examples)


def test_started_again_it_does_nothing_but_the_report(finished, config):
    workdir, table = finished
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("manifest.json")}
    assert pipeline.run(config, str(workdir)) == table
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("manifest.json")}


def test_a_stage_that_infrastructure_ended_is_not_kept(config, tmp_path, monkeypatch):
    def search(request):
        if request.task != "webshop/train/0":  # the one that it is tried on
            raise ConnectionError("the server is down")
        return "search[shirt]"

    policy = ScriptedPolicy(search, name="flaky")
    monkeypatch.setattr("eef_jax.preflight.expert.TRIAL_TASKS", 1)
    monkeypatch.setattr("eef_jax.experts.webshop.make", lambda *_, **__: policy)
    with pytest.raises(RolloutError, match=r"of 6 episodes[\s\S]*the server is down"):
        pipeline.run(config, str(tmp_path / "run"), stages=("expert",))
    assert not (tmp_path / "run/expert/manifest.json").exists()


class Server(ScriptedPolicy):
    """A paid expert that stops when all starts together have spent a budget."""

    def __init__(self, budget):
        super().__init__(lambda request: "search[shirt]", name="server")
        self.budget, self.earlier, self.asked = budget, 0, 0

    def charge(self, spent):
        self.earlier += spent.get("asked", 0)

    async def act(self, request):
        if self.earlier + self.asked >= self.budget:
            raise ConnectionError("the budget is spent")
        self.asked += 1
        return await super().act(request)

    def spent(self):
        return {"asked": self.asked}


def test_the_budget_counts_what_all_starts_have_spent(config, tmp_path, monkeypatch):
    monkeypatch.setattr("eef_jax.experts.webshop.PAID", True, raising=False)
    monkeypatch.setattr("eef_jax.preflight.expert.check_plays", lambda start: None)
    asked = []
    for budget in (5, 9, 100):
        server = Server(budget)
        monkeypatch.setattr("eef_jax.experts.webshop.make", lambda *_, server=server, **__: server)
        with contextlib.nullcontext() if budget == 100 else pytest.raises(RolloutError):
            pipeline.run(config, str(tmp_path / "run"), stages=("expert",))
        asked.append(server.asked)
    counts = read_workdir(tmp_path / "run").stage("expert").manifest()["counts"]
    assert asked[:2] == [5, 4] and counts["spent"] == {"asked": sum(asked)}
    assert counts["turns"] == sum(asked)  # no answer was paid for twice


def test_a_changed_file_is_found_before_a_stage_reads_it(finished, config, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished[0], copy)
    shutil.rmtree(copy / "round_1/select")
    changed_file = copy / "expert/trajectories.jsonl"
    changed_file.write_text(changed_file.read_text().replace("a", "e", 1))
    with pytest.raises(DataError, match=r"trajectories\.jsonl was changed; move .*expert away"):
        pipeline.run(config, str(copy))
    assert not (copy / "round_1/select").exists()


def test_a_lost_stage_is_made_again_and_comes_out_the_same(finished, config, tmp_path):
    workdir, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "round_1/evaluate/manifest.json").unlink()
    pipeline.run(config, str(copy))
    name = "round_1/evaluate/scores.json"
    assert (copy / name).read_bytes() == (workdir / name).read_bytes()


def test_an_earlier_stage_made_again_with_equal_content_keeps_the_later_ones(
    config, tmp_path, monkeypatch
):
    work, early = tmp_path / "run", ("expert", "select")
    pipeline.run(config, str(work), stages=early)
    before = (work / "round_0/select/manifest.json").read_bytes()
    shutil.move(work / "expert", tmp_path / "away")
    pipeline.run(config, str(work), stages=early)
    shutil.move(work / "expert", tmp_path / "away_again")
    otherwise = ScriptedPolicy(lambda request: "search[shirt]", name="other")
    monkeypatch.setattr("eef_jax.experts.webshop.make", lambda *_, **__: otherwise)
    for _ in range(2):  # in the start that plays the expert again, and in later ones
        with pytest.raises(DataError, match=r"round_0/select: expert\n.*move the folders of"):
            pipeline.run(config, str(work), stages=early)
    assert (work / "round_0/select/manifest.json").read_bytes() == before


def test_numerics_are_recorded_and_others_taken_with_the_flag_alone(finished, config, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "run")
    recorded = numerics.read(epath.Path(copy)).values
    assert recorded["engine.num_pages"] > 0 and recorded["engine.attention"]
    assert recorded["train.micro_batch"] == 1 and recorded["model.attention"] == "xla"
    made = read_workdir(copy).stage("round_1/tune").manifest()
    assert made["numerics"] == [recorded]
    shutil.move(copy / "round_1/evaluate", tmp_path / "away")
    other = changed(config, ("engine.max_num_seqs", "4"), ("mesh.data", "4"), ("mesh.fsdp", "2"))
    with pytest.raises(ConfigError, match="max_num_seqs: 8 recorded, 4 asked"):
        pipeline.run(other, str(copy))
    pipeline.run(other, str(copy), new_numerics=True)
    record = numerics.read(epath.Path(copy))
    assert record.earlier == ({"stage": "round_1/evaluate", "values": recorded},)
    now = read_workdir(copy).stage("round_1/evaluate").manifest()["numerics"]
    assert now[0] == recorded and now[1]["engine.max_num_seqs"] == 4 and now[1]["mesh.fsdp"] == 2
    pipeline.run(other, str(copy))  # what is recorded now
    (copy / numerics.FILE).unlink()
    with pytest.raises(DataError, match=r"numerics\.json is missing.*--new_numerics"):
        pipeline.run(other, str(copy))


def test_sizes_that_do_not_fit_the_devices_name_the_record(finished, config, tmp_path):
    copy = shutil.copytree(finished[0], tmp_path / "run")
    shutil.move(copy / "round_1/evaluate", tmp_path / "away")
    with pytest.raises(ConfigError, match=r"mesh .* 4 devices[\s\S]*begun with these sizes.*--new"):
        starting.check(config, str(copy), devices=4)


def test_a_stage_that_is_left_out_must_be_there(config, tmp_path):
    with pytest.raises(DataError, match=r"round_0/select.*--stages leaves it out"):
        pipeline.run(config, str(tmp_path / "run"), stages=("expert", "tune"))
    assert not (tmp_path / "run").exists()


def test_an_early_part_of_the_stages_ends_well_and_says_what_is_next(config, tmp_path):
    for _ in range(2):  # also where there is nothing left to do
        text = pipeline.run(config, str(tmp_path / "run"), stages=("expert", "select"))
        assert "finished: expert, round_0 (select)" in text
        assert "next: round_0/tune" in text
    assert not (tmp_path / "run/round_0/tune").exists()


def test_checks_alone_write_nothing_and_tell_what_a_run_does(config, tmp_path):
    text = starting.check(config, str(tmp_path / "run"), source="here")
    assert not (tmp_path / "run").exists()
    assert "round_1/explore   6 to 24 episodes" in text and "here, seed 0" in text


def test_report_alone_tells_what_is_missing(config, tmp_path):
    pipeline.run(config, str(tmp_path / "run"), stages=("report",))
    assert "missing" in (tmp_path / "run/report.md").read_text().lower()


def test_another_config_is_refused_and_names_the_difference(finished, config):
    workdir, _ = finished
    other = changed(config, ("method.states", "3"))
    with pytest.raises(ConfigError, match=r"method\.states: 5 there, 3 now") as error:
        pipeline.run(other, str(workdir))
    assert "--overwrite" in str(error.value)


def test_a_folder_in_use_is_refused(finished, config):
    workdir, _ = finished
    with (
        lock.hold(epath.Path(workdir / LOCK)),
        pytest.raises(ConfigError, match="in use by process"),
    ):
        pipeline.run(config, str(workdir))


@pytest.fixture
def server(tmp_path, monkeypatch):
    with hub.serve() as made:
        hub.use(monkeypatch, made.url, tmp_path / "cache")
        yield made


def test_a_base_on_the_hub_is_checked_before_anything_is_played(config, tmp_path, server):
    there = changed(config, ("model.path", "org/toy"))
    with pytest.raises(DataError, match="org/toy is neither a folder here nor a model on the"):
        pipeline.run(there, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_records_the_commit_of_its_base_and_stays_with_it(base, config, tmp_path, server):
    commit = server.push_folder("org/toy", base)
    there, work = changed(config, ("model.path", "org/toy")), str(tmp_path / "run")
    assert f"org/toy@{commit}: " in starting.check(there, work)
    pipeline.run(there, work, stages=("expert",))
    server.push("org/toy", {"config.json": b"of another model"})
    pipeline.run(there, work, stages=("select", "tune"))
    run = read_workdir(work)
    assert run.config["model"]["path"] == f"org/toy@{commit}"
    for stage in ("expert", "round_0/select", "round_0/tune"):
        assert run.stage(stage).manifest()["provenance"]["base"] == f"org/toy@{commit}"
    with pytest.raises(ConfigError, match=rf"model\.path: 'org/toy@{commit}' there, 'org/toy@"):
        pipeline.run(changed(config, ("model.path", "org/toy@main")), work)
    out = export.export(f"{work}/round_0/tune", tmp_path / "adapter", format="peft")
    written = json.loads((out / "adapter_config.json").read_text())
    assert written["base_model_name_or_path"] == "org/toy" and written["revision"] == commit


def test_free_fields_may_differ_when_a_run_goes_on(finished, config):
    workdir, table = finished
    free = changed(config, ("rollout.env_threads", "2"), ("rollout.env_timeout_s", "30"))
    assert pipeline.run(free, str(workdir)) == table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("method.name", "eff"), "did you mean eef"),
        (("env.name", "webshp"), "did you mean webshop"),
        (("method.explore", "fail"), "failed"),
    ],
)
def test_unknown_names_list_the_near_ones(config, change, message):
    with pytest.raises(ConfigError, match=message):
        changed(config, change)


def test_a_model_folder_without_tensors_names_them_all(base, config, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, "num_hidden_layers": 2}))
    other = changed(config, ("model.path", str(folder)))
    with pytest.raises(DataError, match=r"layers\.1\.self_attn\.q_proj[\s\S]*layers\.1\.mlp"):
        pipeline.run(other, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/webshop.py:dmo"], "did you mean demo"),
        (["--config=configs/webshop.py", "--config.method.name=eff"], "did you mean eef"),
        ([], "no --config"),
    ],
)
def test_command_line_prints_mistakes_without_a_traceback(arguments, message, tmp_path):
    command = [sys.executable, "-m", "eef_jax.main", f"--workdir={tmp_path / 'run'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
