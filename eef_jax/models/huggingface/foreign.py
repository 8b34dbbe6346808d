"""Weights in forms that are not read here: what they are, and what to do about it."""

import re
from collections.abc import Mapping
from typing import Any

from etils import epath

# Pattern of a file's name -> what it is, and how to get safetensors from it.
_CONVERT = (
    "read it where its library runs, and save it as safetensors (save_pretrained of transformers "
    "or PEFT)"
)
_FORMS = {
    r".*\.gguf": (
        "GGUF, llama.cpp's format",
        "take the model's original folder, or convert it with transformers "
        "(from_pretrained(FOLDER, gguf_file=NAME), then save_pretrained)",
    ),
    r"(pytorch_model|adapter_model|model|consolidated)\b.*\.(bin|pth|pt)(\.index\.json)?": (
        "PyTorch's pickles",
        _CONVERT,
    ),
    r"consolidated.*\.safetensors": (
        "Mistral's own names of tensors",
        "copy the repository's files model*.safetensors too",
    ),
    r"(flax_model|tf_model)\b.*": ("weights for Flax or TensorFlow", _CONVERT),
    r"model-\d+-of-\d+\.safetensors": (
        "some files of a model in several, without their index",
        "copy model.safetensors.index.json and all files that it names",
    ),
    r"adapter_model\.safetensors": (
        "an adapter",
        "name its base as model.path, and this folder as model.adapter",
    ),
}

# Types of safetensors files that are not computed with, by prefix.
_QUANTIZED = ("F8_", "F6_", "F4", "E8M0")
_FULL_PRECISION = (
    "take the same model in bfloat16 (for fp8, many repositories have both), or dequantize it with "
    "the library that made it; model.quantization quantizes while loading"
)


def missing(file: epath.Path) -> str:
    """Say why a file of weights is missing, by what stands in its place.

    Args:
        file: the safetensors file that is not there.
    """
    names = sorted(one.name for one in file.parent.iterdir()) if file.parent.is_dir() else []
    for pattern, (what, remedy) in _FORMS.items():
        found = [name for name in names if re.fullmatch(pattern, name) and name != file.name]
        if found:
            return f"{file} is missing; the folder has {found[0]} ({what}): {remedy}"
    return f"{file} is missing: copy the whole folder again, or name a Hugging Face folder"


def unreadable_type(file: epath.Path, tensor: str, dtype: str) -> str | None:
    """Say what a quantized tensor is; None if its type is none that is known."""
    if not dtype.startswith(_QUANTIZED):
        return None
    return (
        f"{file} stores {tensor} as {dtype}, which means nothing without its scales: "
        f"{_FULL_PRECISION}"
    )


def quantized_config(file: epath.Path, raw: Mapping[str, Any]) -> str | None:
    """Say how a model's weights are quantized; None if they are not.

    Args:
        file: its config.json.
        raw: what that holds.
    """
    section = raw.get("quantization_config") or raw.get("compression_config")
    if not section:
        return None
    method = section.get("quant_method") if isinstance(section, dict) else None
    return f"{file} says that the weights are quantized by {method or section}: {_FULL_PRECISION}"
