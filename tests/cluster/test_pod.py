"""A pod's run on one machine: two processes, a bucket for model and work folder, a real family.

The preset is the one that a user takes for four chips; only its sizes are set to a small machine's.
One process is killed in the middle and the run is started again.
"""

import json
import os

import pytest
import safetensors.numpy
import tokenizers

from eef_jax import bases, export
from eef_jax.cluster.heartbeat import PEER_DIED
from eef_jax.configs import architectures
from eef_jax.models import build
from eef_jax.models.families.registry import family
from eef_jax.models.huggingface import folder as hf
from eef_jax.storage import files, lock
from tests import emulator
from tests.cluster.processes import finish, pair, start, wait_for

# `test_distributed` has the shorter test of two processes.
pytestmark = [pytest.mark.load, pytest.mark.processes]

SIZES = {
    "env.train_tasks": 3,
    "env.test_tasks": 2,
    "env.max_steps": 6,
    "method.rounds": 1,
    "explore.max_new_tokens": 2,
    "evaluate.max_new_tokens": 2,
    "engine.max_num_seqs": 2,
    "engine.max_context": 2048,
    "engine.page_size": 64,
    "engine.num_pages": 128,
    "train.seq_len": 2048,
    "train.batch_size": 2,
    "train.epochs": 1,
}


def make_model(folder):
    """A Qwen2.5 of one narrow layer with random weights; the shipped tokenizer."""
    size = tokenizers.Tokenizer.from_file(f"{bases.WEBSHOP}/tokenizer.json").get_vocab_size()
    raw = architectures.QWEN2_5_1_5B | {
        "vocab_size": size + 8,  # more rows than ids, as the real one has: its class adds a token
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    hf.save(build.init(family("qwen2").config_from_hf(raw)), folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        data = files.to_path(f"{bases.WEBSHOP}/{name}").read_bytes()
        files.write_bytes(f"{folder}/{name}", data)


@pytest.fixture(scope="module")
def finished(bucket_server, tmp_path_factory):
    """The bucket of a run that was killed once and went on; what both processes said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        bucket = emulator.new_bucket()
        make_model(f"{bucket}/model")
        flags = ["--config=configs/webshop.py:qwen2_5_1_5b", f"--workdir={bucket}/run"]
        flags += [f"--config.{name}={value}" for name, value in SIZES.items()]
        flags += [f"--config.model.path={bucket}/model"]
        killed = pair("eef_jax.main", *flags, patience=12)
        wait_for(files.to_path(f"{bucket}/run/round_0/tune/manifest.json"), killed, limit=400)
        killed[1].kill()
        assert finish(killed, limit=180)[0][0] == PEER_DIED
        assert not files.to_path(f"{bucket}/run/report.md").exists()
        codes, outputs = finish(pair("eef_jax.main", *flags), limit=600)
        assert codes == [0, 0], "\n".join(outputs)
        yield bucket, outputs


def test_the_run_goes_on_and_is_reported(finished):
    bucket, (lead, _) = finished
    assert "win rate" in lead and "ReadaheadCache" not in lead
    # The first was done before.
    assert "round_0/tune: {" not in lead and "round_1/tune: {" in lead
    assert "eef, round 1" in files.to_path(f"{bucket}/run/report.md").read_text()
    assert lock.holder(files.to_path(f"{bucket}/run/lock")) == {}
    assert not os.path.exists("gs:")


def test_one_process_evaluates_its_checkpoint(finished):
    bucket, _ = finished
    codes, outputs = finish(
        [start("eef_jax.evaluate", f"--checkpoint={bucket}/run/round_1/tune")], limit=300
    )
    assert codes == [0], outputs
    assert f"{bucket}/run/round_1/tune/checkpoint on the test tasks" in outputs[0]


def test_its_adapter_is_exported(finished, tmp_path):
    bucket, _ = finished
    export.export(f"{bucket}/run/round_1/tune", tmp_path / "adapter", format="peft")
    export.export(f"{bucket}/run/round_1/tune", f"{bucket}/adapter", format="peft")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"{bucket}/model"
    name = "adapter_model.safetensors"
    assert safetensors.numpy.load_file(tmp_path / "adapter" / name)
    remote = files.to_path(f"{bucket}/adapter") / name
    assert remote.read_bytes() == (tmp_path / "adapter" / name).read_bytes()
