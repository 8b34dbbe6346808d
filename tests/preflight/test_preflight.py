"""Each check refuses what would fail later, in words; several failures are reported together."""

import dataclasses
import json
import os
import shutil

import pytest
from etils import epath

from eef_jax import config as config_lib
from eef_jax import preflight, starting
from eef_jax.errors import ConfigError, DataError, EefError, EnvError, PolicyError
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.preflight import model
from eef_jax.preflight.start import spread
from eef_jax.rollout import play
from eef_jax.storage.stages import Schedule
from eef_jax.storage.trajectories import write_trajectories
from tests import toybase
from tests.toygame import Corridor


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return toybase.make(tmp_path_factory.mktemp("base"))


@pytest.fixture
def start(base, tmp_path):
    """Makes the start of a run with fields changed."""

    def make(*overrides, stages=("expert", "explore", "select", "tune", "evaluate"), **fields):
        config = toybase.config(base, *overrides)
        made = starting.plan(config, str(tmp_path / "run"), stages=stages)
        return dataclasses.replace(made, **fields)

    return make


def test_a_good_start_passes_and_writes_nothing(start, tmp_path):
    preflight.check(start())
    assert not (tmp_path / "run").exists()


def test_several_failures_are_reported_together(start):
    bad = start(("train.batch_size", "3"), ("engine.max_context", "25"), ("env.dev_tasks", "2"))
    with pytest.raises(ConfigError) as error:
        preflight.check(bad)
    text = str(error.value)
    assert text.startswith("2 checks failed")
    assert "a batch of 3 rows" in text and "raise config.engine.max_context to" in text


def test_one_failure_is_raised_as_it_is(start):
    with pytest.raises(ConfigError, match=r"^a batch of 3 rows"):
        preflight.check(start(("train.batch_size", "3")))


def test_checks_are_those_of_the_stages_to_run(start):
    preflight.check(start(("train.batch_size", "3"), stages=("expert",)))
    preflight.check(start(("model.path", "/nowhere"), stages=("expert",)))
    everything = start(("model.path", "/nowhere"))
    preflight.check(
        dataclasses.replace(everything, schedule=Schedule(done=(), todo=(), left_out=()))
    )
    with pytest.raises(EefError, match="/nowhere"):
        preflight.check(everything)


def test_a_model_folder_that_is_not_there_is_one_failure(start):
    with pytest.raises(
        ConfigError, match=r"^config\.model\.path is 'nowhere', which is not a folder"
    ):
        preflight.check(start(("model.path", "nowhere")))


@pytest.mark.parametrize(("devices", "fits"), [(8, True), (16, False)])
def test_a_batch_is_checked_against_the_planned_devices(start, devices, fits):
    planned = start(("mesh.data", "-1"), devices=devices)
    if fits:
        return preflight.check(planned)
    with pytest.raises(ConfigError, match="multiple of 16"):
        preflight.check(planned)


def test_a_tokenizer_with_more_ids_than_the_model_has_rows(start, base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text())
    token = dict(raw["added_tokens"][0], id=100_000, content="<|more|>", special=False)
    raw["added_tokens"].append(token)
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match=r"has \d+ ids from \d+ to \d+ for which"):
        model.check_vocabulary(start(("model.path", str(folder))))


def test_rows_too_short_for_one_message(start):
    with pytest.raises(ConfigError, match=r"config\.train\.seq_len to \d+ or more \(it is 20\)"):
        model.check_lengths(start(("train.seq_len", "20")))


def test_a_template_that_refuses_the_prompt(start, base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(base, folder)
    path = folder / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    refuse = "{% if messages|length > 3 %}{{ raise_exception('too many roles') }}{% endif %}"
    path.write_text(json.dumps({**raw, "chat_template": refuse + raw["chat_template"]}))
    with pytest.raises(PolicyError, match="too many roles"):
        model.check_template(start(("model.path", str(folder))))


def test_a_split_without_tasks(start):
    class Empty(Corridor):
        def tasks(self, split):
            return () if split == "test" else super().tasks(split)

    with pytest.raises(ConfigError, match=r"'test' has no task.*evaluated.*with tasks: train, dev"):
        preflight.check(start(env=Empty()))


def test_tasks_that_cannot_be_started(start):
    class Broken(Corridor):
        def game(self):
            raise OSError("no Java here")

    with pytest.raises(EnvError, match=r"8 of 8 tasks[\s\S]*8 x env_error: OSError: no Java here"):
        preflight.check(start(env=Broken(), stages=("expert",)))


def test_an_expert_that_cannot_answer(start, monkeypatch):
    def fail(request):
        raise IndexError("no action in the prompt")

    broken = ScriptedPolicy(fail, name="broken")
    monkeypatch.setattr("eef_jax.experts.webshop.make", lambda *_, **__: broken)
    with pytest.raises(PolicyError, match=r"2 x policy_error: .*IndexError: no action in the"):
        preflight.check(start(stages=("expert",)))


def test_an_expert_whose_messages_hold_no_action(start):
    class Deaf(type(start().env)):
        def parse(self, message):
            return None

    deaf = start(stages=("expert",))
    deaf.env.__class__ = Deaf
    with pytest.raises(ConfigError, match="messages holds an action that webshop reads"):
        preflight.check(deaf)


def test_a_served_expert_is_asked_for_one_message(start, monkeypatch):
    asked = []
    module = "eef_jax.experts.webshop.check_server"
    monkeypatch.setattr(module, lambda options: asked.append(options), raising=False)
    one = start(stages=("expert",))
    preflight.check(one)
    assert asked == [one.config.expert.options]


@pytest.fixture(scope="module")
def played(base):
    """The expert's trajectories on the six train tasks."""
    config = toybase.config(base)
    env = config_lib.make("env", config.env)
    expert = config_lib.make("expert", config.expert, env=env)
    episodes = play.from_start(env.tasks("train"), 4, prefix="e")
    return play.play(env, expert, episodes, config.rollout, label="", source="expert")


def of_file(start, tmp_path, trajectories):
    folder = epath.Path(tmp_path / "experts")
    folder.mkdir()
    write_trajectories(folder, trajectories)
    return start(("expert.trajectories", os.fspath(folder)), stages=("expert",))


def test_the_experts_file_fits(start, tmp_path, played):
    preflight.check(of_file(start, tmp_path, played))


def test_a_file_of_another_catalogue_is_refused_with_both_goals(start, tmp_path, played):
    first = played[0]
    other = dataclasses.replace(first, task=dataclasses.replace(first.task, goal="a green hat"))
    with pytest.raises(DataError, match="1 of 6 trajectories") as error:
        preflight.check(of_file(start, tmp_path, [other, *played[1:]]))
    assert "a green hat" in str(error.value) and first.task.goal[:50] in str(error.value)


def test_a_file_of_other_observations_is_refused_with_both(start, tmp_path, played):
    first = played[0]
    step = dataclasses.replace(first.steps[0], observation="a page of another shop")
    other = dataclasses.replace(first, steps=(step, *first.steps[1:]))
    with pytest.raises(DataError, match="there is 'a page of another shop'; here it is 'WebShop"):
        preflight.check(of_file(start, tmp_path, [other, *played[1:]]))


def test_a_file_of_another_environment_is_refused(start, tmp_path, played):
    others = [
        dataclasses.replace(t, task=dataclasses.replace(t.task, id=f"corridor/{n}"))
        for n, t in enumerate(played)
    ]
    with pytest.raises(DataError, match=r"none of the 6.*corridor/0.*webshop/train/0"):
        preflight.check(of_file(start, tmp_path, others))


def test_a_work_folder_that_cannot_be_written(start, tmp_path):
    (tmp_path / "file").write_text("")
    bad = start(root=epath.Path(tmp_path / "file/run"))
    with pytest.raises(ConfigError, match=r"file/run cannot be written.*another --workdir"):
        preflight.check(bad)


def test_a_folder_of_something_else_is_left_as_it_is(start, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.jpg").write_text("")
    with pytest.raises(ConfigError, match=r"cat\.jpg.*not the folder of a run"):
        preflight.check(start(root=epath.Path(folder)))
    assert [path.name for path in folder.iterdir()] == ["cat.jpg"]


def test_memory_is_counted_by_device(start):
    eight, one = (model.memory(start(("mesh.data", str(n)), devices=n)) for n in (8, 1))
    assert eight.training == one.training > 0  # copies, not parts
    assert one.rollouts == 0 < eight.cache


def test_a_run_that_does_not_fit_a_device(start, monkeypatch):
    monkeypatch.setattr("eef_jax.analysis.micro_batch.memory_limit", lambda _: 1000)
    with pytest.raises(ConfigError, match=r"on a device of 0\.00 GiB"):
        model.check_memory(start())


@pytest.mark.parametrize(
    ("count", "places"), [(0, []), (1, [0]), (3, [0, 1, 2]), (9, [0, 3, 5, 8])]
)
def test_tasks_are_sampled_from_the_first_to_the_last(count, places):
    assert spread(list(range(count)), 4) == places


def test_the_disk_holds_the_checkpoints_and_the_saves_of_one_training(start):
    def needed(*overrides):
        return model.checkpoint_bytes(start(*overrides))

    none = needed(("train.save_every_s", "0"))
    adapter = none / 2  # of two tune stages
    saves = needed() - none
    # Three at a time, of the adapter and of Adam's two moments.
    assert saves == pytest.approx(9 * adapter, rel=0.01)
    assert needed(("train.save_every_s", "0"), ("train.save_every_steps", "5")) == needed()
