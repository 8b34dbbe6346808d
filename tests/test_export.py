"""Exports of checkpoints: whole folders that load again, or a clear error and nothing written."""

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import tokenizers

from eef_jax import bases, export
from eef_jax.config.sections import LoraConfig
from eef_jax.errors import ConfigError, DataError
from eef_jax.models import build
from eef_jax.models.config import ModelConfig, ModelOptions
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.huggingface import peft
from eef_jax.models.huggingface import safetensors as safetensors_lib
from eef_jax.models.model import content_hash
from eef_jax.storage.workdir import CHECKPOINT
from eef_jax.text.chat import ChatTokenizer
from eef_jax.train import checkpoint
from tests.models.toys import forward, loud, rows

LORA = LoraConfig(rank=2, targets=("v_proj", "up_proj"))
SHAPE = ModelConfig(
    vocab_size=tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json").get_vocab_size(),
    d_model=16,
    n_layers=1,
    n_heads=2,
    n_kv_heads=2,
    head_dim=8,
    d_ff=16,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random base with the shipped tokenizer."""
    made = tmp_path_factory.mktemp("base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(f"{bases.WEBSHOP}/{name}", made)
    hf.save(build.init(SHAPE), made)
    return made


def tuned(folder, stage, lora=LORA, **options):
    """A finished tune stage; returns its folder and the model that was tuned."""
    model = hf.load(folder, ModelOptions(lora=lora, **options))
    model = dataclasses.replace(model, trainable=loud(model.trainable))
    note = checkpoint.Metadata(
        base=str(folder), base_hash=content_hash(model.frozen), lora=lora, **options
    )
    checkpoint.save(stage / CHECKPOINT, model.trainable, note)
    return stage, model


@pytest.fixture(scope="module")
def stage(folder, tmp_path_factory):
    return tuned(folder, tmp_path_factory.mktemp("run") / "tune")


def logits(model):
    return np.asarray(forward(model.decoder)(*rows(2, 6)))


def test_an_adapter_is_exported_and_loads_on_its_base(folder, stage, tmp_path):
    out = export.export(stage[0], tmp_path / "adapter", format="peft")
    model = hf.load(folder, ModelOptions(lora=peft.read_config(out, SHAPE)))
    model = dataclasses.replace(model, trainable=peft.load(out, model))
    np.testing.assert_array_equal(logits(model), logits(stage[1]))
    raw = json.loads((out / peft.CONFIG).read_text())
    assert raw["base_model_name_or_path"] == str(folder)
    assert [file.name for file in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize("quantization", ["", "int8"])
def test_a_merged_model_is_a_whole_folder(folder, tmp_path, quantization):
    stage, model = tuned(folder, tmp_path / "tune", quantization=quantization)
    out = export.export(stage / "checkpoint", tmp_path / "out", format="merged", max_shard=10_000)
    assert (out / safetensors_lib.INDEX).exists()
    np.testing.assert_allclose(logits(hf.load(out)), logits(model), atol=1e-4)
    assert json.loads((out / hf.CONFIG).read_text())["dtype"] == "float32"
    chat, again = ChatTokenizer.load(folder), ChatTokenizer.load(out)
    assert again.fingerprint == chat.fingerprint and again.stop_ids == chat.stop_ids
    generation = json.loads((out / export.GENERATION).read_text())
    assert generation["eos_token_id"] == list(chat.stop_ids)


def test_a_generation_config_that_is_there_is_kept(folder, tmp_path):
    given = shutil.copytree(folder, tmp_path / "base")
    (given / export.GENERATION).write_text('{"eos_token_id": [1], "top_p": 0.9}')
    out = export.export(tuned(given, tmp_path / "tune")[0], tmp_path / "out", format="merged")
    assert (out / export.GENERATION).read_bytes() == (given / export.GENERATION).read_bytes()


def test_all_parameters_tuned_are_exported_without_their_base(folder, tmp_path):
    given = shutil.copytree(folder, tmp_path / "base")
    stage, model = tuned(given, tmp_path / "tune", lora=None)
    (given / safetensors_lib.WEIGHTS).unlink()  # nothing of it is left in the model
    out = export.export(stage, tmp_path / "out", format="merged", dtype="bfloat16")
    stored = safetensors.numpy.load_file(out / safetensors_lib.WEIGHTS)
    assert {value.dtype.name for value in stored.values()} == {"bfloat16"}
    expected = hf.load(out)
    np.testing.assert_allclose(logits(expected), logits(model), atol=0.1)
    with pytest.raises(ConfigError, match="no adapter: use --format=merged"):
        export.export(stage, tmp_path / "adapter", format="peft")


@pytest.mark.parametrize("format", export.FORMATS)
def test_a_checkpoint_of_another_base_is_refused(folder, stage, tmp_path, format):
    other = shutil.copytree(folder, tmp_path / "other")
    hf.save(build.init(SHAPE, seed=1), other)
    with pytest.raises(DataError, match="load the base it names"):
        export.export(stage[0], tmp_path / "out", format=format, base=str(other))
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


def test_what_cannot_be_exported_is_said_before_anything_is_written(stage, tmp_path):
    with pytest.raises(ConfigError, match="--format is 'pefft': did you mean peft"):
        export.export(stage[0], tmp_path / "out", format="pefft")
    with pytest.raises(ConfigError, match="--dtype is 'float8'"):
        export.export(stage[0], tmp_path / "out", format="merged", dtype="float8")
    with pytest.raises(ConfigError, match="exists: name a folder that does not"):
        export.export(stage[0], tmp_path, format="merged")
    with pytest.raises(DataError, match="there is no checkpoint"):
        export.export(tmp_path / "none", tmp_path / "out", format="merged")
    with pytest.raises(DataError, match=r"config\.json is missing"):
        export.export(stage[0], tmp_path / "out", format="peft", base=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_nothing(stage, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr(safetensors_lib, "write_file", broken)
    for format in export.FORMATS:
        with pytest.raises(DataError, match="cannot be written: disk full"):
            export.export(stage[0], tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())


def test_the_command_line_says_what_is_missing():
    command = [sys.executable, "-m", "eef_jax.export", "--format=peft"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("ConfigError: no --checkpoint was given"), done.stderr
