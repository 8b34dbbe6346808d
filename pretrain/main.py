r"""Makes a nano base: trains its tokenizer and its weights on a course of reading exercises.

    python -m pretrain.main --out=DIR --minutes=90
    python -m pretrain.main --out=DIR --minutes=60 --init=eef_jax/bases/webshop --first=6000
    python -m pretrain.main --out=DIR --minutes=30 --course=scienceworld \
        --body=eef_jax/bases/webshop --first=1000

Deterministic in its data (not in its length: it stops by the clock), resumable (`DIR/state.npz` is
written every few minutes), full tuning of the project's own decoder. It sees generated exercises
alone: no expert trajectory, no task of any split. `python -m pretrain.probe` measures what came
out.
"""

import dataclasses
import multiprocessing as mp
import pathlib
import random
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from absl import app, flags, logging
from flax import nnx

from eef_jax.models import build
from eef_jax.models.config import ModelConfig
from eef_jax.models.huggingface import folder as hf
from eef_jax.models.model import Model, merge
from eef_jax.storage.metrics import MetricsWriter
from pretrain import vocabulary
from pretrain.course import COURSES, Course
from pretrain.graft import graft
from pretrain.pieces import Pieces

TINY = (16, 96)  # rows x tokens of a batch of copies
CAPACITY = 2304  # most lessons of a batch (tokens with a weight, and marks)
STRENGTH = 0.1  # deviation of a fresh embedding, and of what a fresh head adds to it
PEAK, WARMUP, DECAY = 2e-3, 200, 0.1
LONGEST_STEP = 3.0  # seconds of one update that count: a process that was stopped trained nothing

Exercise = tuple[list[int], list[tuple[int, int, float]]]  # see `encode`

FLAGS = flags.FLAGS


def make_tokenizer(out: pathlib.Path, course: Course, seed: int) -> Any:
    """Train the tokenizer on the course's texts, or load the one there."""
    if not (out / "tokenizer.json").exists():
        made = vocabulary.train(course.texts(seed), course.vocab, course.furniture)
        vocabulary.save(made, out)
    return tokenizers.Tokenizer.from_file(str(out / "tokenizer.json"))


def batches(
    tokenizer_file: str, course: Course, seed: int, first: int
) -> Iterator[dict[str, np.ndarray]]:
    """Packed batches without end, from number `first` on; batch i depends on (seed, i) alone."""
    tokenizer, known = tokenizers.Tokenizer.from_file(tokenizer_file), course.words()

    def draw(rng: random.Random, long: bool, copies: float) -> Exercise:
        return encode(tokenizer, course.draw(rng, known, long, copies))

    index = first
    while True:
        rng = random.Random(f"{seed} {index}")
        if index >= course.everything:
            long = index % 4 == 3
            yield _batch(draw, rng, course.long if long else course.short, long=long)
        elif index >= course.copies and index % 2:
            yield _batch(draw, rng, TINY, equal=True, copies=1.0)
        else:
            yield _batch(draw, rng, course.short, equal=True, copies=0.25)
        index += 1


def _batch(
    draw: Callable[[random.Random, bool, float], Exercise],
    rng: random.Random,
    shape: tuple[int, int],
    *,
    long: bool = False,
    equal: bool = False,
    copies: float = 0.05,
) -> dict[str, np.ndarray]:
    rows, length = shape
    batch = {k: np.zeros((rows, length), np.int32) for k in ("tokens", "positions", "segment_ids")}
    fill, segments = np.zeros(rows, int), np.zeros(rows, int)
    learned: list[tuple[int, int, float]] = []
    misses = 0
    while misses < 12:
        ids, lessons = draw(rng, long, copies)
        room = np.flatnonzero(fill + len(ids) <= length)
        if not room.size:
            misses += 1
            continue
        row = room[0]
        start = int(fill[row])
        span = slice(start, start + len(ids))
        segments[row] += 1
        batch["tokens"][row, span] = ids
        batch["positions"][row, span] = np.arange(len(ids))
        batch["segment_ids"][row, span] = segments[row]
        learned += [(row * length + start + at, label, weight) for at, label, weight in lessons]
        fill[row] += len(ids)
    if len(learned) > CAPACITY:
        learned = rng.sample(learned, CAPACITY)
    at, labels, weights = (np.zeros(CAPACITY, t) for t in (np.int32, np.int32, np.float32))
    if equal:
        learned = [(where, label, 1.0) for where, label, _ in learned]
    at[: len(learned)], labels[: len(learned)], weights[: len(learned)] = zip(*learned, strict=True)
    return {**batch, "at": at, "labels": labels, "weights": weights}


def encode(tokenizer: Any, pieces: Pieces) -> Exercise:
    """Token ids of an exercise, and what is learned: (position, label, weight).

    A label is what follows the token at the position, or the mark that a reader sets there.
    """
    ids: list[int] = []
    learned: list[tuple[int, int, float]] = []
    encoded = tokenizer.encode_batch([p.text for p in pieces], add_special_tokens=False)
    for piece, text in zip(pieces, encoded, strict=True):
        if piece.weight:
            learned += [(len(ids) + i - 1, n, piece.weight) for i, n in enumerate(text.ids)]
        for mark in piece.marks:
            label = tokenizer.encode(mark.says, add_special_tokens=False).ids[0]
            learned.append((len(ids) + text.char_to_token(mark.at), label, mark.weight))
        ids += text.ids
    return ids, learned


def _feed(queue: mp.Queue, tokenizer_file: str, course: str, seed: int, first: int) -> None:
    for batch in batches(tokenizer_file, COURSES[course], seed, first):
        queue.put(batch)


def shape(course: Course, end: int, bos: int) -> ModelConfig:
    """The nano model's configuration."""
    return ModelConfig(
        vocab_size=course.vocab,
        d_model=128,
        n_layers=course.layers,
        n_heads=4,
        n_kv_heads=4,
        head_dim=32,
        d_ff=384,
        tie_embeddings=True,
        max_positions=2048,
        rope_theta=100_000.0,
        bos_token_id=bos,
        eos_token_id=end,
    )


def fresh(config: ModelConfig, seed: int) -> Model:
    """A model to start from, whose heads already look for and repeat the words they stand on.

    Keys are queries, outputs are transposed values, both orthogonal: a head attends to its own
    word and writes that word. Most of reading is made of that, and from independent matrices it
    takes tens of minutes to appear. (Mimetic initialisation: Trockman and Kolter, 2023.)
    """
    model = build.init(config, seed=seed)
    weights = dict(nnx.to_flat_state(model.trainable))
    for path, value in weights.items():
        if path == ("embed",):
            weights[path] = value.replace(STRENGTH * value[...] / jnp.std(value[...]))
        elif path[-2] in ("q_proj", "v_proj"):
            rng = np.random.default_rng([seed, zlib.crc32(str(path).encode())])
            matrix, _ = np.linalg.qr(rng.standard_normal(value.shape))
            twin = "k_proj" if path[-2] == "q_proj" else "o_proj"
            weights[path] = value.replace(jnp.asarray(matrix, value.dtype))
            other = matrix if twin == "k_proj" else STRENGTH * matrix.T
            weights[*path[:-2], twin, path[-1]] = value.replace(jnp.asarray(other, value.dtype))
    return dataclasses.replace(model, trainable=nnx.from_flat_state(weights))


@dataclasses.dataclass(slots=True, kw_only=True)
class Progress:
    """Everything that a resumed run needs.

    Attributes:
        params: the model's parameters.
        opt_state: the optimizer's.
        step: updates done; also the number of the next batch.
        spent: seconds of training so far, each update's bounded by `LONGEST_STEP`.
    """

    params: Any
    opt_state: Any
    step: int = 0
    spent: float = 0.0

    def save(self, file: pathlib.Path) -> None:
        """Write the state whole."""
        leaves = jax.tree.leaves((self.params, self.opt_state))
        arrays: dict[str, Any] = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        temporary = file.with_suffix(".tmp.npz")
        np.savez(temporary, **arrays, step=self.step, spent=self.spent)
        temporary.rename(file)

    def restore(self, file: pathlib.Path) -> None:
        """Read what `save` wrote, if there is anything."""
        if file.exists():
            saved = np.load(file)
            fresh, tree = jax.tree.flatten((self.params, self.opt_state))
            leaves = [jnp.asarray(saved[f"leaf{i}"]) for i in range(len(fresh))]
            self.params, self.opt_state = jax.tree.unflatten(tree, leaves)
            self.step, self.spent = int(saved["step"]), float(saved["spent"])


def make_optimizer() -> optax.GradientTransformation:
    """AdamW whose rate is set from outside, for the schedule goes by the clock."""
    return optax.inject_hyperparams(optax.adamw)(
        learning_rate=0.0, b1=0.9, b2=0.98, weight_decay=0.05
    )


def make_update(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation
) -> Callable[..., tuple[Any, Any, jax.Array, jax.Array]]:
    """The compiled step (params, opt_state, batch, rate) -> (params, opt_state, loss, accuracy)."""
    clip = optax.clip_by_global_norm(1.0)

    def loss(params: nnx.State, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        decoder = merge(graphdef, nnx.State({}), params)
        hidden = decoder(batch["tokens"], batch["positions"], batch["segment_ids"])
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits, labels = decoder.logits(flat[batch["at"]]), batch["labels"]
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        weight = batch["weights"] / batch["weights"].sum()
        return (nll * weight).sum(), ((logits.argmax(-1) == labels) * weight).sum()

    @jax.jit
    def update(
        params: Any, opt_state: Any, batch: dict[str, jax.Array], rate: float
    ) -> tuple[Any, Any, jax.Array, jax.Array]:
        (value, right), grads = jax.value_and_grad(loss, has_aux=True)(params, batch)
        grads, _ = clip.update(grads, clip.init(params))
        opt_state.hyperparams["learning_rate"] = rate
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value, right

    return update


def rate(step: int, share: float) -> float:
    """Learning rate: warm-up, constant for half of the time, then linear to a tenth.

    Args:
        step: updates since the optimizer was fresh.
        share: of the schedule that is over (0-1).
    """
    return PEAK * min(1.0, (step + 1) / WARMUP) * max(DECAY, min(1.0, 2 * (1 - share)))


def main(argv: list[str]) -> None:
    """Train until the schedule's time is over, then write the Hugging Face folder."""
    del argv
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    if FLAGS.init:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(pathlib.Path(FLAGS.init) / name, out)
    course = COURSES[FLAGS.course]
    tokenizer = make_tokenizer(out, course, FLAGS.seed)
    end, bos = (tokenizer.token_to_id(t) for t in (vocabulary.END, vocabulary.BOS))
    model = hf.load(FLAGS.init) if FLAGS.init else fresh(shape(course, end, bos), FLAGS.seed)
    if FLAGS.body:
        known = tokenizers.Tokenizer.from_file(f"{FLAGS.body}/tokenizer.json")
        body = hf.load(FLAGS.body)
        model = graft(model, body, tokenizer, known, seed=FLAGS.seed)
    optimizer = make_optimizer()
    now = Progress(
        params=model.trainable, opt_state=optimizer.init(model.trainable), step=FLAGS.first
    )
    now.restore(out / "state.npz")
    update = make_update(model.graphdef, optimizer)
    spawn = mp.get_context("spawn")
    queue: mp.Queue = spawn.Queue(maxsize=8)
    arguments = (queue, str(out / "tokenizer.json"), FLAGS.course, FLAGS.seed, now.step)
    feeder = spawn.Process(target=_feed, args=arguments, daemon=True)
    feeder.start()
    last = saved_at = time.monotonic()
    recent: list[tuple[float, float]] = []
    with MetricsWriter(out / "log.jsonl") as metrics:
        while now.spent < FLAGS.minutes * 60:
            learning_rate = rate(now.step - FLAGS.first, now.spent / (FLAGS.minutes * 60))
            now.params, now.opt_state, value, right = update(
                now.params, now.opt_state, queue.get(), learning_rate
            )
            recent.append((float(value), float(right)))
            now.step += 1
            last, before = time.monotonic(), last
            now.spent += min(last - before, LONGEST_STEP)
            if now.step % 50 == 0:
                loss, accuracy = np.mean(recent, axis=0)
                line = {"loss": loss, "accuracy": accuracy, "minutes": now.spent / 60}
                metrics.log(now.step, line)
                logging.info("step %d: %s", now.step, line)
                recent = []
            if last - saved_at > 120:
                now.save(out / "state.npz")
                saved_at = last
    now.save(out / "state.npz")
    feeder.terminate()
    hf.save(dataclasses.replace(model, trainable=now.params), out, dtype="float16")


if __name__ == "__main__":
    flags.DEFINE_enum("course", "webshop", list(COURSES), "What the base is taught.")
    flags.DEFINE_string("out", None, "Folder for the model, its tokenizer and the resumable state.")
    flags.DEFINE_float("minutes", 90.0, "Length of the whole schedule; a resumed run has the rest.")
    flags.DEFINE_integer("seed", 7, "Seed of the exercises and of the initial weights.")
    flags.DEFINE_string("init", None, "Base to go on from, its tokenizer kept.")
    flags.DEFINE_string("body", None, "Base whose layers to start from, under words of one's own.")
    flags.DEFINE_integer("first", 0, "Number of the first batch, to go on where a base left off.")
    flags.mark_flag_as_required("out")
    flags.mark_flags_as_mutual_exclusive(["init", "body"])
    app.run(main)
