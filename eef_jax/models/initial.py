"""Initial values of parameters that no file provides: a random base, a fresh adapter.

The values of a parameter depend on the seed and its path alone, so that neither the order of
initialisation nor the mesh nor the layout of the layers changes them.
"""

import math
import zlib
from typing import Any

import numpy as np
from jaxtyping import Float32

STD = 0.02


def initial(path: tuple[Any, ...], shape: tuple[int, ...], seed: int) -> Float32[np.ndarray, "..."]:
    """Make the values of one parameter.

    Norms are 1 (zero-centered ones 0), biases 0, matrices normal with deviation 0.02. An adapter's
    a is uniform within 1 / sqrt(in) and its b is 0, so that a fresh adapter changes nothing
    (arXiv:2106.09685, section 4.1).

    Args:
        path: path of the parameter in the decoder's state; its last part names the kind.
        shape: shape of the parameter.
        seed: seed of the run.
    """
    # CRC-32 instead of `hash`, whose values for strings differ between processes.
    rng = np.random.default_rng([seed, zlib.crc32(str(path).encode())])
    if path[-1] in ("lora_b", "bias", "excess"):
        return np.zeros(shape, np.float32)
    if path[-1] == "lora_a":
        bound = 1.0 / math.sqrt(shape[0])
        return rng.uniform(-bound, bound, shape).astype(np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)
    return STD * rng.standard_normal(shape, np.float32)
