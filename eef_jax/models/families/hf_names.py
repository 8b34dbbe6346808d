"""What a family's table says: Hugging Face names of a decoder's parameters and modules.

The table (`TENSORS` in a family's file) drives import, export and adapters alike. Knows names,
paths and which way a matrix lies; knows no values and no files.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from eef_jax.models.config import TARGETS, ModelConfig
from eef_jax.models.families.registry import family

T = TypeVar("T")

ParamPath = tuple[Any, ...]  # where something sits in a decoder, such as ("layers", 0, "q_proj")


def stored_paths(config: ModelConfig, paths: Collection[ParamPath]) -> dict[str, ParamPath]:
    """Hugging Face name -> path, for every parameter of a decoder that a model's folder stores.

    Args:
        config: the decoder's shape.
        paths: of its parameters; what a table names beyond them (an untied head, biases) is left
            out, and adapters are none of the table's.
    """
    return {name: path for name, path in _table(config).items() if path in paths}


def canonical_names(config: ModelConfig, found: Mapping[str, T]) -> dict[str, T]:
    """The tensors of a folder by the names of the family's table.

    Folders of models with more parts than the decoder have other prefixes: a family's `RENAMED`
    maps those to the table's, and to None for parts that are not read.
    """
    renamed: Mapping[str, str | None] = getattr(family(config.model_type), "RENAMED", {})
    known = {}
    for name, tensor in found.items():
        prefix = max(filter(name.startswith, renamed), key=len, default="")
        new = renamed.get(prefix, "")
        if new is not None:
            known[new + name.removeprefix(prefix)] = tensor
    return known


def projection_names(config: ModelConfig) -> dict[ParamPath, str]:
    """Path -> Hugging Face name of every projection that an adapter may target."""
    return {
        path[:-1]: name.removesuffix(".weight")
        for name, path in _table(config).items()
        if path[-1] == "weight" and path[-2] in TARGETS
    }


def submodule(decoder: Any, path: ParamPath) -> Any:
    """The part of a decoder that sits at a path."""
    for part in path:
        decoder = decoder[part] if isinstance(part, int) else getattr(decoder, part)
    return decoder


def to_hf_layout(value: np.ndarray, path: ParamPath) -> np.ndarray:
    """Swap [out, in], as files have it, and [in, out]; vectors and the embedding table stay."""
    return value.T if is_transposed(value.ndim, path) else value


def is_transposed(ndim: int, path: ParamPath) -> bool:
    """Whether a leaf of so many dimensions lies the other way in files."""
    return ndim == 2 and path != ("embed",)


def _table(config: ModelConfig) -> dict[str, ParamPath]:
    """The family's table with its layers written out."""
    table = {}
    for name, path in family(config.model_type).TENSORS.items():
        for i in range(config.n_layers) if "{i}" in name else (0,):
            parts = path.format(i=i).split(".")
            table[name.format(i=i)] = tuple(int(p) if p.isdigit() else p for p in parts)
    return table
