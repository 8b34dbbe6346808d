"""Folders of weights in other forms: each is said for what it is, with what to do."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from eef_jax.errors import DataError
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.huggingface import safetensors as safetensors_lib
from tests.models.toys import toy

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    "size 538090408\n"
)


@pytest.fixture
def folder(tmp_path):
    hf.save(toy(), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("pytorch_model.bin", "PyTorch's pickles.*save_pretrained"),
        ("pytorch_model-00001-of-00002.bin", "PyTorch's pickles"),
        ("model.pt", "PyTorch's pickles"),
        ("consolidated.00.pth", "PyTorch's pickles"),
        ("gemma-3-270m-it-Q4_K_M.gguf", "GGUF.*gguf_file"),
        ("consolidated.safetensors", "Mistral's own names.*model\\*"),
        ("model-00001-of-00004.safetensors", "without their index.*model.safetensors.index.json"),
        ("flax_model.msgpack", "Flax"),
        ("adapter_model.safetensors", "an adapter.*model.adapter"),
        ("training_args.bin", "copy the whole folder again"),
    ],
)
def test_what_stands_in_place_of_the_weights_is_named(folder, name, said):
    (folder / safetensors_lib.WEIGHTS).unlink()
    (folder / name).touch()
    with pytest.raises(DataError, match=rf"model\.safetensors is missing.*{said}"):
        hf.load(folder)


def test_an_adapters_folder_is_no_models(tmp_path):
    (tmp_path / "adapter_model.safetensors").touch()
    with pytest.raises(DataError, match=r"config\.json is missing.*an adapter.*model\.adapter"):
        hf.read_config(hf.epath.Path(tmp_path))


def test_a_git_lfs_pointer_is_no_damaged_file(folder):
    (folder / safetensors_lib.WEIGHTS).write_text(POINTER)
    with pytest.raises(DataError, match=r"is a git-lfs pointer.*git lfs pull"):
        hf.load(folder)


def test_fp8_tensors_are_no_damaged_file(folder):
    values = safetensors.numpy.load_file(folder / safetensors_lib.WEIGHTS)
    name = "model.layers.0.mlp.up_proj.weight"
    values[name] = values[name].astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    safetensors.numpy.save_file(values, folder / safetensors_lib.WEIGHTS)
    _retype(folder / safetensors_lib.WEIGHTS, name, "F8_E4M3")
    with pytest.raises(DataError, match=rf"stores {name} as F8_E4M3.*bfloat16"):
        hf.load(folder)


def _retype(file, tensor, dtype):
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[tensor]["dtype"] = dtype
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


@pytest.mark.parametrize("method", ["fp8", "gptq", "awq", "bitsandbytes", "mxfp4"])
def test_quantized_models_are_named_by_their_method(folder, method):
    file = folder / hf.CONFIG
    section = {"quantization_config": {"quant_method": method}}
    file.write_text(json.dumps(json.loads(file.read_text()) | section))
    with pytest.raises(DataError, match=f"quantized by {method}: take the same model in bfloat16"):
        hf.load(folder)
