"""Hugging Face names of a decoder's parameters and projections, from a family's table.

The table (`TENSORS` in a family's file) drives import, export and adapters.
"""

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from eef_jax.config.sections import TARGETS
from eef_jax.models.config import ModelConfig
from eef_jax.models.families.registry import family

T = TypeVar("T")

ParamPath = tuple[Any, ...]  # path in a decoder, e.g. ("layers", 0, "q_proj")


def stored_paths(config: ModelConfig, paths: Collection[ParamPath]) -> dict[str, ParamPath]:
    """Map Hugging Face names to paths, for every parameter that a model's folder stores.

    Args:
        config: shape of the decoder.
        paths: paths of its parameters; other entries of the table (an untied head, biases) are left
            out. Adapters are not in the table.
    """
    return {name: path for name, path in _table(config).items() if path in paths}


def canonical_names(config: ModelConfig, found: Mapping[str, T]) -> dict[str, T]:
    """Rename the tensors of a folder to the names of the family's table.

    Folders of multimodal models use other prefixes: `RENAMED` of a family maps them to those of the
    table, or to None for parts that are not read.
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
    """Map paths to Hugging Face names, for every projection that an adapter can target."""
    return {
        path[:-1]: name.removesuffix(".weight")
        for name, path in _table(config).items()
        if path[-1] == "weight" and path[-2] in TARGETS
    }


def submodule(decoder: Any, path: ParamPath) -> Any:
    """The module or parameter of a decoder at a path."""
    for part in path:
        decoder = decoder[part] if isinstance(part, int) else getattr(decoder, part)
    return decoder


def to_hf_layout(value: Float[np.ndarray, "..."], path: ParamPath) -> Float[np.ndarray, "..."]:
    """Swap [out, in] (files) and [in, out] (decoder); vectors and the embedding table stay."""
    return value.T if is_transposed(value.ndim, path) else value


def is_transposed(ndim: int, path: ParamPath) -> bool:
    """Whether files store a parameter with `ndim` dimensions at this path transposed."""
    return ndim == 2 and path != ("embed",)


def _table(config: ModelConfig) -> dict[str, ParamPath]:
    """The family's table, expanded to all layers."""
    table = {}
    for name, path in family(config.model_type).TENSORS.items():
        for i in range(config.n_layers) if "{i}" in name else (0,):
            parts = path.format(i=i).split(".")
            table[name.format(i=i)] = tuple(int(p) if p.isdigit() else p for p in parts)
    return table
