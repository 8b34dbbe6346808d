"""Ahead-of-time compilation for TPU slices: what the command line prints and refuses."""

import importlib.util
import re
import subprocess
import sys

import pytest

from eef_jax import config as config_lib
from eef_jax.analysis import flops, plan, table
from eef_jax.analysis.programs import Memory
from eef_jax.configs import architectures, webshop
from eef_jax.errors import ConfigError
from eef_jax.models import build
from eef_jax.models.config import ModelOptions
from eef_jax.models.families.registry import family

pytestmark = pytest.mark.optimized

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="the extra tpu-aot is not installed"
)

TINY = {
    **architectures.LLAMA3_8B,
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.mark.parametrize(
    ("name", "billions"), [("QWEN2_5_1_5B", 1.54), ("LLAMA3_8B", 8.03), ("LLAMA3_70B", 70.55)]
)
def test_architectures_have_the_size_that_their_names_say(name, billions):
    raw = getattr(architectures, name)
    model = build.abstract_model(
        family(raw["model_type"]).config_from_hf(raw), ModelOptions(scan_layers=True)
    )
    assert round(flops.count_parameters(model) / 1e9, 2) == billions


def config(**changes):
    made = webshop.get_config("llama3_8b")
    made.model.architecture = {}
    made.model.architecture = {**TINY, **changes}
    made.train.batch_size = 4
    made.train.seq_len = 512
    made.engine.max_num_seqs = 4
    made.engine.max_context = 128
    return made.to_dict()


@needs_libtpu
def test_programs_are_compiled_for_a_slice_that_is_not_attached():
    made = plan.plan(config_lib.read(config()), "v5e:2x2", loss_fraction=0.25)
    assert [one.name for one in made.programs] == list(plan.PROGRAMS)
    train = made.programs[0]
    assert 0 < train.memory.total < made.chip.hbm_bytes
    assert 0.95 < train.counts.flops / made.expected_flops < 1.05
    assert {each.kind for each in train.counts.collectives} >= {"all-gather"}
    assert train.roofline.mfu_serial < train.roofline.mfu_overlapped < 1
    text = "\n".join(table.format_plan(made))
    assert re.search(r"^train .* % .* - ", text, re.MULTILINE)
    assert "15.75 GiB a chip" in text


def test_peak_memory_is_training_or_sampling_with_the_arguments_of_the_other():
    def memory(arguments, temporaries):
        return Memory(arguments=arguments, temporaries=temporaries, outputs=0, code=1)

    taken = {"train": memory(10, 50), "prefill": memory(20, 5), "decode": memory(21, 60)}
    assert plan.peak_bytes(taken, cache_bytes=15) == 10 + 21 + 61  # sampling takes most
    assert plan.peak_bytes(taken | {"train": memory(10, 90)}, cache_bytes=15) == 101 + 21 - 15
    assert (
        plan.peak_bytes(taken, cache_bytes=15, shared_base_bytes=8) == 10 + 21 + 61 - 8
    )  # one base for both
    assert plan.peak_bytes({"train": taken["train"]}, cache_bytes=15, shared_base_bytes=8) == 61


@needs_libtpu
def test_a_base_that_does_not_fit_one_process_is_refused_before_anything_is_compiled():
    settings = config_lib.read(webshop.get_config("llama3_70b").to_dict())
    with pytest.raises(
        ConfigError, match=r"each process plays .* takes 33.25 GiB .*rollout_mesh.tensor"
    ):
        plan.plan(settings, "v6e:16x16", wanted=("decode",))


@needs_libtpu
def test_one_process_with_equal_meshes_holds_one_copy_of_the_base():
    settings = config()
    settings["model"]["scan_layers"] = False
    settings["mesh"] = settings["rollout_mesh"] = {"data": 2, "tensor": 2}
    made = plan.plan(config_lib.read(settings), "v5e:2x2", wanted=("train", "decode"))
    train, decode = (one.memory.arguments for one in made.programs)
    assert 0 < made.shared_base_bytes < min(train, decode)
    memory = {one.name: one.memory for one in made.programs}
    apart = plan.peak_bytes(memory, cache_bytes=made.cache_bytes)
    assert made.peak_bytes == apart - made.shared_base_bytes


@needs_libtpu
def test_the_engine_is_compiled_for_the_chips_of_one_process():
    settings = config()
    settings["train"]["batch_size"] = 16
    made = plan.plan(config_lib.read(settings), "v5e:4x4", wanted=("decode",))
    assert made.mesh.size == 16 and made.rollout_mesh.shape["tensor"] == 4
    assert made.programs[0].memory.total > 0


@needs_libtpu
def test_an_unknown_slice_is_refused():
    with pytest.raises(ConfigError, match=r"no TPU slice 'v5e:3x5'"):
        plan.topology_devices("v5e:3x5")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_libtpu_the_extra_is_named():
    with pytest.raises(ConfigError, match=r"pip install -e '.\[tpu-aot\]'"):
        plan.topology_devices("v5e:4x4")


def test_a_config_without_a_model_shape_is_refused():
    with pytest.raises(ConfigError, match=r"config.model.path .* config.model.architecture"):
        plan.model_config(webshop.get_config("demo").model)


def test_mistakes_on_the_command_line_give_one_message():
    command = [sys.executable, "-m", "eef_jax.compile", "--config=configs/webshop.py:llama3_8b"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "ConfigError: --topology is empty" in done.stderr
    assert "Traceback" not in done.stderr
