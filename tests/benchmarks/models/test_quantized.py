"""A quantized base is compared with the unquantized one."""

import numpy as np

from benchmarks.models import quantized
from eef_jax.config.sections import LoraConfig
from eef_jax.models.config import ModelOptions
from eef_jax.models.huggingface import folder as hf
from tests.models.toys import toy


def test_the_plain_base_equals_itself_and_eight_bits_are_smaller_and_close(tmp_path):
    hf.save(toy(), tmp_path)
    tokens = np.arange(3, 19, dtype=np.int32)
    plain, int8 = (
        quantized.run_step(
            hf.load(tmp_path, ModelOptions(lora=LoraConfig(rank=2), quantization=kind)), tokens
        )
        for kind in ("", "int8")
    )
    name, error, divergence, same, cosine, ratio, *_ = quantized.cells("", plain, plain)
    assert (name, error, divergence, same) == ("unquantized", "0.000", "0.0000", "100.0%")
    assert (cosine, ratio) == ("1.0000", "1.000")
    assert int8.frozen < plain.frozen
    assert 0 < float(quantized.cells("int8", int8, plain)[1]) < 0.1
