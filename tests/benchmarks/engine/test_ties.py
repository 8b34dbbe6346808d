"""How far apart two ids' logits are."""

import io
import json
import sys

import numpy as np

from benchmarks.engine import ties
from eef_jax.models.huggingface import folder as hf
from tests.models.toys import forward, toy


def test_it_gives_the_difference_of_two_logits(tmp_path, monkeypatch, capfd):
    hf.save(toy(), tmp_path)
    ids = [5, 1, 9, 2, 8]
    batch = np.array([ids]), np.arange(5)[None], np.ones((1, 5), np.int32)
    decoder = hf.load(tmp_path).decoder
    logits = np.asarray(decoder.logits(forward(decoder)(*batch)))[0, -1]
    line = json.dumps([ids, 3, 7])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{line}\n"))
    ties.main(str(tmp_path))
    (apart,) = json.loads(capfd.readouterr().out.splitlines()[-1])["apart"]
    np.testing.assert_allclose(apart, abs(logits[3] - logits[7]), rtol=1e-4)
