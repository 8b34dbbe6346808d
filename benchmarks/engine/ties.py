"""How close two ids' logits are: `python -m benchmarks.engine.ties MODEL < LINES`.

Each line of its standard input is JSON: [preceding ids, one id, another id]. Two engines can choose
different ids where rounding decides between almost equal logits; from there on their conversations
differ. The result is the difference of the two logits for each line, by a full forward pass of this
package's model.
"""

import json
import sys

import jax.numpy as jnp
import numpy as np

from benchmarks.engine.workload import print_result
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import merge


def main(path: str) -> None:
    """Read the lines and print the differences."""
    model = hf.load(path)
    decoder = merge(model.graphdef, model.frozen, model.trainable)
    found = []
    for line in sys.stdin:
        ids, one, other = json.loads(line)
        tokens = jnp.asarray([ids], jnp.int32)
        hidden = decoder(tokens, jnp.arange(len(ids))[None], jnp.ones_like(tokens))
        logits = np.asarray(decoder.logits(hidden[0, -1]))
        found.append(abs(float(logits[one] - logits[other])))
    print_result({"apart": found})


if __name__ == "__main__":
    main(*sys.argv[1:])
