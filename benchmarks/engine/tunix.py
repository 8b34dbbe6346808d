"""The workload on Tunix's own JAX sampler: `PYTHON -m benchmarks.engine.tunix MODEL EXPERTS`.

Static batches of 16 whole contexts; Tunix's agent loop samples from one prompt at a time. Its
sampler takes texts, so the tokenizer here writes ids as numbers.
"""

import functools
import json
import pathlib
import sys

from benchmarks.engine.workload import Outputs, Workload, play_by_turn, print_result, time_run

BATCH, WIDTH = 16, 1024


class Numbers:
    """A tokenizer whose texts are ids separated by spaces."""

    def __init__(self, end: int):
        self._end = end

    def encode(self, text: str, **_: object) -> list[int]:
        """Return the ids of a text."""
        return [int(word) for word in text.split()]

    def decode(self, ids: list[int], **_: object) -> str:
        """Return the text of ids."""
        return " ".join(str(int(i)) for i in ids)

    def bos_id(self) -> int:
        """Return 0, which Tunix reads as "no BOS token", so texts begin with their own first id."""
        return 0

    def eos_id(self) -> int:
        """Return the id that ends a text."""
        return self._end

    def pad_id(self) -> int:
        """Return the padding id."""
        return 0


def main(path: str, experts: str) -> None:
    """Time the workload."""
    import jax.numpy as jnp
    from tunix.generate import sampler as sampling
    from tunix.models.llama3 import model as models
    from tunix.models.llama3 import params

    shape = json.loads(pathlib.Path(path, "config.json").read_text())
    rope = shape.get("rope_parameters") or shape
    config = models.ModelConfig(
        num_layers=shape["num_hidden_layers"],
        vocab_size=shape["vocab_size"],
        embed_dim=shape["hidden_size"],
        hidden_dim=shape["intermediate_size"],
        num_heads=shape["num_attention_heads"],
        head_dim=shape["head_dim"],
        num_kv_heads=shape["num_key_value_heads"],
        rope_theta=rope["rope_theta"],
        norm_eps=shape["rms_norm_eps"],
        weight_tying=shape["tie_word_embeddings"],
    )
    # Tunix 0.1.7 rotates by a base of 1,000,000 whatever `rope_theta` is.
    models.apply_rope = functools.partial(models.apply_rope, rope_theta=config.rope_theta)
    end = shape["vocab_size"] - 1  # an id that the model practically never generates
    cache = sampling.CacheConfig(
        cache_size=WIDTH + 256,
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    model = params.create_model_from_safe_tensors(path, config, dtype=jnp.float32)
    sampler = sampling.Sampler(model, Numbers(end), cache)

    def play(workload: Workload) -> Outputs:
        def generate(contexts: list[list[int]]) -> list[list[int]]:
            rows = [" ".join(map(str, ids)) for ids in contexts]
            out = sampler(
                rows + rows[:1] * (BATCH - len(rows)),
                max_generation_steps=workload.action,
                max_prompt_length=WIDTH,
                eos_tokens=[end],
                forbidden_tokens=None,
            )
            generated = out.tokens[: len(rows)]
            return [[int(i) for i in ids][: workload.action] for ids in generated]

        contexts = {key: workload.start(*key) for key in workload.episodes()}
        return play_by_turn(contexts, workload, generate, batch=BATCH)

    print_result(time_run(play, experts=int(experts)))


if __name__ == "__main__":
    main(*sys.argv[1:])
