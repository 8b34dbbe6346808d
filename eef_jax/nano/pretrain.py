"""Makes the nano base: trains its tokenizer and its weights on reading exercises.

    python -m eef_jax.nano.pretrain --out=DIR --minutes=90

Deterministic in its data (not in its length: it stops by the clock), resumable (`DIR/state.npz` is
written every few minutes), full tuning of the project's own decoder. It sees generated exercises
alone: no expert trajectory, no task of any split. `python -m eef_jax.nano.probe` measures what came
out.
"""

import json
import multiprocessing as mp
import pathlib
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from absl import app, flags

from eef_jax.envs.webshop import generate
from eef_jax.nano import exercises, vocabulary

VOCAB = 1536
SHORT, LONG = (12, 384), (4, 1024)  # rows x tokens of a batch
CAPACITY = 1152  # most weighted tokens of a batch that are learned
PEAK, WARMUP, DECAY = 2e-3, 200, 0.1

FLAGS = flags.FLAGS
flags.DEFINE_string("out", None, "Folder for the model, its tokenizer and the resumable state.")
flags.DEFINE_float("minutes", 90.0, "Length of the whole schedule; a resumed run has the rest.")
flags.DEFINE_integer("seed", 7, "Seed of the exercises and of the initial weights.")


def words() -> list[str]:
    """Every word and a sample of ids: what the copy exercise repeats."""
    compounds = [f"{left}-{right}" for left in generate.LEFT for right in generate.RIGHT]
    values = [v for group in generate.VALUES.values() for v in group]
    ids = [f"b{n:04d}" for n in range(0, 10_000, 13)]
    return [*compounds, *generate.NOUNS, *generate.BRANDS, *values, *ids]


def make_tokenizer(out: pathlib.Path, seed: int) -> Any:
    """Train the tokenizer on exercises and a catalogue of another seed, or load the one there."""
    import tokenizers

    if not (out / "tokenizer.json").exists():
        rng = random.Random(f"vocabulary {seed}")
        texts = [
            re.sub(
                r"<\|\w+\|>",
                " [SEP] ",
                "".join(t for t, _ in exercises.draw(rng, words(), False, 0.2)),
            )
            for _ in range(12_000)
        ]
        products, _, _ = generate.generate(seed + 1000)
        texts += [
            p["full_description"] + " [SEP] " + " ".join(p["small_description"]) for p in products
        ]
        texts += [
            "click[buy now] click[description] click[features] click[reviews] click[attributes]"
        ] * 20
        vocabulary.save(vocabulary.train(texts, VOCAB), out)
    return tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))


def batches(tokenizer_file: str, seed: int, first: int) -> Iterator[dict[str, np.ndarray]]:
    """Packed batches without end, from number `first` on; batch i depends on (seed, i) alone."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(tokenizer_file)
    vocabulary_words = words()
    index = first
    while True:
        long = index % 4 == 3 and index > 3500
        copies = 0.4 if index < 600 else 0.05
        yield _batch(tokenizer, random.Random(f"{seed} {index}"), vocabulary_words, long, copies)
        index += 1


def _batch(
    tokenizer: Any, rng: random.Random, known: list[str], long: bool, copies: float
) -> dict[str, np.ndarray]:
    rows, length = LONG if long else SHORT
    batch = {k: np.zeros((rows, length), np.int32) for k in ("tokens", "positions", "segment_ids")}
    weights = np.zeros((rows, length), np.float32)
    fill, segments = np.zeros(rows, int), np.zeros(rows, int)
    misses = 0
    while misses < 12:
        pieces = exercises.draw(rng, known, long, copies)
        encoded = tokenizer.encode_batch([t for t, _ in pieces], add_special_tokens=False)
        ids = np.concatenate([e.ids for e in encoded])
        weight = np.repeat([w for _, w in pieces], [len(e.ids) for e in encoded])
        room = np.flatnonzero(fill + len(ids) <= length)
        if not room.size:
            misses += 1
            continue
        row = room[0]
        span = slice(fill[row], fill[row] + len(ids))
        segments[row] += 1
        batch["tokens"][row, span] = ids
        batch["positions"][row, span] = np.arange(len(ids))
        batch["segment_ids"][row, span] = segments[row]
        weights[row, span] = weight
        fill[row] += len(ids)
    learned = np.flatnonzero(weights.reshape(-1))[:CAPACITY]
    targets = np.zeros(CAPACITY, np.int32)
    target_weights = np.zeros(CAPACITY, np.float32)
    targets[: learned.size] = learned
    target_weights[: learned.size] = weights.reshape(-1)[learned]
    return {**batch, "targets": targets, "target_weights": target_weights}


def _feed(queue: mp.Queue, tokenizer_file: str, seed: int, first: int) -> None:
    for batch in batches(tokenizer_file, seed, first):
        queue.put(batch)


def shape(vocab_size: int, end: int, bos: int) -> Any:
    """The nano model's configuration."""
    from eef_jax.models.base import ModelConfig

    return ModelConfig(
        vocab_size=vocab_size,
        d_model=128,
        n_layers=5,
        n_heads=4,
        n_kv_heads=4,
        head_dim=32,
        d_ff=384,
        tie_embeddings=True,
        max_positions=2048,
        bos_token_id=bos,
        eos_token_id=end,
    )


def main(argv: list[str]) -> None:
    """Train until the schedule's time is over, then write the Hugging Face folder."""
    del argv
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    from eef_jax.models import hf
    from eef_jax.models.base import merge

    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(out, FLAGS.seed)
    config = shape(
        VOCAB, tokenizer.token_to_id(vocabulary.END), tokenizer.token_to_id(vocabulary.BOS)
    )
    model = hf.init(config, lora=None, seed=FLAGS.seed)
    graphdef, params = model.graphdef, model.trainable
    optimizer = optax.inject_hyperparams(optax.adamw)(
        learning_rate=0.0, b1=0.9, b2=0.98, weight_decay=0.05
    )
    clip = optax.clip_by_global_norm(1.0)
    state, step, spent = optimizer.init(params), 0, 0.0
    file = out / "state.npz"
    if file.exists():
        saved = np.load(file)
        leaves, structure = jax.tree.flatten((params, state))
        leaves = [jnp.asarray(saved[f"leaf{i}"]) for i in range(len(leaves))]
        params, state = jax.tree.unflatten(structure, leaves)
        step, spent = int(saved["step"]), float(saved["spent"])

    def loss(params: nnx.State, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        decoder = merge(graphdef, nnx.State({}), params)
        hidden = decoder(batch["tokens"], batch["positions"], batch["segment_ids"])
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = decoder.logits(flat[jnp.maximum(batch["targets"] - 1, 0)])
        labels = batch["tokens"].reshape(-1)[batch["targets"]]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        weight = batch["target_weights"]
        right = ((logits.argmax(-1) == labels) * weight).sum() / weight.sum()
        return (nll * weight).sum() / weight.sum(), right

    @jax.jit
    def update(params, state, batch, rate):
        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(params, batch)
        grads, _ = clip.update(grads, clip.init(params))
        state.hyperparams["learning_rate"] = rate
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value, right

    def save() -> None:
        leaves = {f"leaf{i}": np.asarray(v) for i, v in enumerate(jax.tree.leaves((params, state)))}
        np.savez(file.with_suffix(".tmp.npz"), step=step, spent=spent, **leaves)
        file.with_suffix(".tmp.npz").rename(file)

    queue: mp.Queue = mp.get_context("spawn").Queue(maxsize=8)
    feeder = mp.get_context("spawn").Process(
        target=_feed, args=(queue, str(out / "tokenizer.json"), FLAGS.seed, step), daemon=True
    )
    feeder.start()
    total, last, tick, saved_at, seen = (
        FLAGS.minutes * 60,
        time.monotonic(),
        [],
        time.monotonic(),
        0,
    )
    while spent < total:
        batch = queue.get()
        share = spent / total
        rate = (
            PEAK
            * min(1.0, (step + 1) / WARMUP)
            * (1.0 if share < 0.5 else max(DECAY, 2 * (1 - share)))
        )
        params, state, value, right = update(params, state, batch, rate)
        tick.append((float(value), float(right)))
        step, seen = step + 1, seen + int((batch["segment_ids"] > 0).sum())
        now = time.monotonic()
        spent, last = spent + now - last, now
        if step % 50 == 0:
            mean = np.mean(tick, axis=0)
            line = {"step": step, "minutes": round(spent / 60, 2), "loss": round(mean[0], 4)}
            line |= {"accuracy": round(mean[1], 4), "tokens": seen, "rate": round(rate, 6)}
            with (out / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            print(line, flush=True)
            tick = []
        if now - saved_at > 120:
            save()
            saved_at = time.monotonic()
    save()
    feeder.terminate()
    hf.save(
        type(model)(
            config=config, lora=None, graphdef=graphdef, frozen=nnx.State({}), trainable=params
        ),
        out,
    )


if __name__ == "__main__":
    flags.mark_flag_as_required("out")
    app.run(main)
