"""From files and flags to a `Config`: what is read, and how everything wrong is reported."""

import dataclasses
import json
import re
import subprocess
import sys
import time

import pytest
from hypothesis import strategies as st

from eef_jax import config as config_lib
from eef_jax.config import reading, reference
from eef_jax.config.names import RENAMED
from eef_jax.errors import ConfigError
from eef_jax.storage import buckets
from tests.properties import JSON, TEXTS, holds

TINY = "configs/webshop.py:tiny"


def refuse(*overrides, file=TINY):
    with pytest.raises(ConfigError) as error:
        config_lib.load(file, overrides)
    return str(error.value)


def test_a_preset_says_what_differs_and_flags_come_on_top():
    config = config_lib.load(TINY, [("train.epochs", "4"), ("train.epochs", "5"), ("seed", "3")])
    assert (config.env.name, config.env.options.train_tasks) == ("webshop", 40)
    assert (config.train.epochs, config.seed, config.train.optimizer.name) == (5, 3, "adamw")


def test_a_plug_in_named_by_a_flag_brings_its_fields_whatever_the_order():
    config = config_lib.load(TINY, [("method.rollouts", "6"), ("method.name", "rft")])
    assert (config.method.name, config.method.options.rollouts) == ("rft", 6)
    assert config.method.options.rounds == 1  # what the preset set is kept where the field exists
    assert "there is no field method.recovery" in refuse(
        ("method.name", "rft"), ("method.recovery", "previous")
    )


def test_everything_wrong_is_reported_at_once():
    message = refuse(
        ("train.epochs", "-1"),
        ("train.optimizer.learning_rate", "nan"),
        ("explore.temperature", "-1"),
        ("engine.slots", "4"),
        ("train.init_from", "bse"),
    )
    assert message.splitlines()[0] == "5 problems in the config:"
    assert "train.epochs is -1, expected a whole number, 1 or more" in message
    assert "engine.slots: it is called engine.max_num_seqs now" in message
    assert "train.init_from is 'bse', expected 'auto' or 'base' or 'previous'" in message


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("train.epochs", "0"),
        ("train.epochs", "-1"),
        ("train.batch_size", "0"),
        ("train.batch_size", "-1"),
        ("train.init_from", "bse"),
        ("train.optimizer.learning_rate", "-1"),
        ("train.optimizer.learning_rate", "nan"),
        ("train.optimizer.warmup_ratio", "2"),
        ("train.optimizer.warmup_ratio", "-1"),
        ("train.optimizer.clip_norm", "-1"),
        ("train.optimizer.schedule", "cosin"),
        ("train.optimizer.name", "adamx"),
        ("train.seq_len", "0"),
        ("train.micro_batch", "-1"),
        ("train.remat", "blocks"),
        ("model.dtype", "int32"),
        ("model.lora.rank", "0"),
        ("model.lora.targets", "q_prj"),
        ("model.lora.dropout", "1"),
        ("engine.max_context", "0"),
        ("engine.max_num_seqs", "-1"),
        ("engine.num_pages", "-1"),
        ("env.train_tasks", "-1"),
        ("env.test_tasks", "-1"),
        ("env.splits", "random"),
        ("env.num_prev_obs", "-1"),
        ("explore.temperature", "-1"),
        ("explore.top_p", "0"),
        ("explore.max_new_tokens", "0"),
        ("evaluate.split", "tst"),
        ("rollout.max_steps", "-1"),
        ("rollout.env_threads", "0"),
        ("rollout.concurrency", "-1"),
        ("rollout.env_timeout_s", "0"),
        ("rollout.max_consecutive_invalid", "0"),
        ("expert.lapse", "5"),
        ("expert.patience", "0"),
        ("method.rounds", "-1"),
        ("method.rollouts", "0"),
        ("method.choice", "longest"),
        ("mesh.data", "0"),
        ("seed", "-1"),
    ],
)
def test_no_value_that_cannot_work_is_accepted(path, text):
    message = refuse((path, text))
    assert path.rpartition(".")[2] in message
    assert text.lstrip("-") in message


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("train.lr", "train.optimizer.learning_rate"),
        ("train.epoch", "train.epochs"),
        ("trian.epochs", "train.epochs"),
        ("model.lora.rnk", "model.lora.rank"),
        ("env.train_task", "env.train_tasks"),
        ("rollout.worker", "rollout"),
        ("sede", "seed"),
    ],
)
def test_an_unknown_field_is_answered_with_near_names(path, near):
    assert near in refuse((path, "1"))


def test_unknown_fields_of_a_stored_config_are_refused():
    values = config_lib.plain(config_lib.load(TINY))
    values["train"]["rows"] = 4
    values["extra"] = {"x": 1}
    with pytest.raises(ConfigError, match=r"train\.batch_size[\s\S]*no field extra|no field extra"):
        config_lib.read(values)


def test_contradictions_between_fields_are_found():
    assert "model.tuning is 'full'" in refuse(
        ("model.tuning", "full"), ("model.quantization", "int8")
    )
    assert "only one axis" in refuse(("mesh.fsdp", "-1"))
    assert "engine.max_context is 20, expected more than the 32 tokens" in refuse(
        ("engine.max_context", "20")
    )


def test_a_config_survives_its_work_folder():
    for preset in ("demo", "llama3_8b", "served"):
        config = config_lib.load(f"configs/webshop.py:{preset}")
        stored = json.loads(json.dumps(config_lib.plain(config)))
        assert config_lib.read(stored) == config


def test_every_field_has_help_and_a_kind():
    for preset in ("configs/webshop.py:served", "configs/webshop.py:demo"):
        for path, one, _ in config_lib.walk(config_lib.load(preset)):
            assert one.spec.help or path.endswith(".name"), path
            assert one.spec.kind in ("results", "numerics", "free"), path


def test_old_names_lead_to_fields_that_exist():
    known = {path for path, _, _ in config_lib.walk(config_lib.load("configs/webshop.py"))}
    for old, new in RENAMED.items():
        assert old not in known
        assert any(path.startswith(new.split()[0]) for path in known), (old, new)


def test_the_reference_page_is_what_the_declarations_say():
    with open("docs/config.md", encoding="utf-8") as page:
        assert page.read() == reference.markdown(), "run python -m eef_jax.config > docs/config.md"


def test_config_help_prints_every_field_with_its_value_and_default():
    shown = reference.text(config_lib.load(TINY))
    assert "--config.env.train_tasks=40 (default 0)" in shown
    for path, _, _ in config_lib.walk(config_lib.load(TINY)):
        assert f"--config.{path}=" in shown


def test_sections_are_frozen():
    config = config_lib.load(TINY)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.train.epochs = 3


def test_a_mistyped_field_is_answered_at_once(tmp_path):
    command = [sys.executable, "-m", "eef_jax.main", f"--config={TINY}"]
    command += ["--config.train.lr=1", f"--workdir={tmp_path / 'run'}"]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith("ConfigError: ") and "learning_rate" in done.stderr
    assert not (tmp_path / "run").exists()
    # The bound of the documentation is 2 s; a loaded machine gets some slack.
    assert time.monotonic() - began < 10


def test_reading_needs_no_accelerator_library():
    program = (
        "import sys; from eef_jax import config; config.load('configs/webshop.py'); "
        "sys.exit(bool({'jax', 'tensorflow', 'torch', 'flax'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    assert reading.new(method="eef").seed == 0


def test_a_path_may_begin_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/users/me")
    config = config_lib.load(TINY, [("model.path", "~/base"), ("env.prompt", "~/prompt.txt")])
    assert config.model.path == "/users/me/base"
    assert config.env.options.prompt == "/users/me/prompt.txt"
    assert config_lib.plain(config)["model"]["path"] == "/users/me/base"


def test_a_path_in_a_store_that_cannot_be_read_is_a_problem_like_others(monkeypatch):
    monkeypatch.setattr(buckets, "_MODULES", ("no_such_package.storage",))
    buckets.set_up.cache_clear()
    try:
        message = refuse(("model.path", "gs://bucket/base"), ("expert.trajectories", "s3://x/y"))
    finally:
        buckets.set_up.cache_clear()
    assert message.startswith("2 problems")
    assert "model.path: paths on gs:// need the extra 'gcs': pip install -e '.[gcs]'" in message
    assert "expert.trajectories: s3://x/y is neither" in message


@pytest.mark.parametrize("preset", ["webshop", "scienceworld", "textworld_express"])
def test_every_field_that_names_a_file_is_declared_so(preset):
    words = re.compile(r"\b(file|folder|path|JSON list|JSON object)\b")
    for path, one, value in reading.walk(config_lib.load(f"configs/{preset}.py")):
        if isinstance(value, str) and not path.endswith(".name"):
            assert one.spec.path == bool(words.search(one.spec.help)), path


FIELDS = sorted(path for path, _, _ in reading.walk(config_lib.load(TINY)))
WORDS = st.sampled_from(
    ["", "0", "1", "-1", "2.5", "1e3", "nan", "inf", "true", "none", "(1,2)", "eef"]
)


@holds(st.sampled_from(FIELDS), WORDS | TEXTS, few=40, many=400)
def test_any_text_for_any_field_is_read_or_refused_by_its_name(field, text):
    try:
        config = config_lib.load(TINY, [(field, text)])
    except ConfigError as error:
        assert field.split(".")[0] in str(error)
    else:
        assert config_lib.read(json.loads(json.dumps(config_lib.plain(config)))) == config


@holds(st.dictionaries(st.sampled_from(["seed", "train", "env", "x"]) | TEXTS, JSON), few=20)
def test_any_values_are_read_or_refused(values):
    try:
        config_lib.read(values)
    except ConfigError as error:
        assert str(error)
