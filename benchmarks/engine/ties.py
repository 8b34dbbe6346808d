"""How close two ids were: `python -m benchmarks.engine.ties MODEL`, of JSON lines on its input.

Each line is [ids before, one id, another id]. Rounding may make two engines take different ones of
two ids whose scores are all but equal; after that they are in different conversations. The result
is the difference of their scores (logits) for each line, by a full pass of our own model.
"""

import json
import sys

import jax.numpy as jnp
import numpy as np

from benchmarks.engine.workload import tell
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import merge


def main(path: str) -> None:
    """Read lines, print the differences."""
    model = hf.load(path)
    decoder = merge(model.graphdef, model.frozen, model.trainable)
    found = []
    for line in sys.stdin:
        ids, one, other = json.loads(line)
        tokens = jnp.asarray([ids], jnp.int32)
        hidden = decoder(tokens, jnp.arange(len(ids))[None], jnp.ones_like(tokens))
        scores = np.asarray(decoder.logits(hidden[0, -1]))
        found.append(abs(float(scores[one] - scores[other])))
    tell({"apart": found})


if __name__ == "__main__":
    main(*sys.argv[1:])
