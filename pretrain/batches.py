"""Exercises to packed batches of tokens, made in a background process."""

import contextlib
import multiprocessing as mp
import pathlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tokenizers

from pretrain.curricula import CURRICULA, Curriculum
from pretrain.segments import Exercise

COPY_SHAPE = (16, 96)  # rows and tokens of a batch of copies
MAX_TARGETS = 2304  # per batch; more are subsampled, so that the compiled step has one shape
MAX_MISSES = 12  # exercises that fit into no row before a batch counts as full

Batch = dict[str, np.ndarray]
Target = tuple[int, int, float]  # position, label (a token id), loss weight
EncodedExercise = tuple[list[int], list[Target]]  # token ids, and what is learned


def encode(tokenizer: Any, exercise: Exercise) -> EncodedExercise:
    """Encode an exercise as token ids and targets.

    A target's label is predicted at its position. It is the next token, or an auxiliary label.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        exercise: segments of a conversation.
    """
    ids: list[int] = []
    targets: list[Target] = []
    texts = [segment.text for segment in exercise]
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    for segment, encoding in zip(exercise, encodings, strict=True):
        if segment.loss_weight:
            targets += [
                (len(ids) + i - 1, token_id, segment.loss_weight)
                for i, token_id in enumerate(encoding.ids)
            ]
        for label in segment.labels:
            label_id = tokenizer.encode(label.text, add_special_tokens=False).ids[0]
            position = len(ids) + encoding.char_to_token(label.index)
            targets.append((position, label_id, label.loss_weight))
        ids += encoding.ids
    return ids, targets


def batches(tokenizer_file: str, curriculum: Curriculum, seed: int, first: int) -> Iterator[Batch]:
    """Yield packed batches without end; batch i depends on `seed` and i only.

    Args:
        tokenizer_file: path of `tokenizer.json`.
        curriculum: what to teach.
        seed: seed of the exercises.
        first: number of the first batch, from 0.

    Yields:
        `tokens`, `positions` and `segment_ids`, int32 [rows, tokens], and for each target
        `target_positions` (into the flattened batch) and `labels`, int32 [targets], and `weights`,
        float32 [targets].
    """
    tokenizer, words = tokenizers.Tokenizer.from_file(tokenizer_file), curriculum.copy_words()

    def sample(rng: random.Random, long: bool, copy_share: float) -> EncodedExercise:
        return encode(tokenizer, curriculum.sample(rng, words, long, copy_share))

    index = first
    while True:
        rng = random.Random(f"{seed} {index}")
        if index >= curriculum.final_start:
            long = index % 4 == 3
            shape = curriculum.long_shape if long else curriculum.short_shape
            yield _batch(sample, rng, shape, long=long)
        elif index >= curriculum.copy_start and index % 2:
            yield _batch(sample, rng, COPY_SHAPE, equal_weights=True, copy_share=1.0)
        else:
            yield _batch(sample, rng, curriculum.short_shape, equal_weights=True, copy_share=0.25)
        index += 1


def _batch(
    sample: Callable[[random.Random, bool, float], EncodedExercise],
    rng: random.Random,
    shape: tuple[int, int],
    *,
    long: bool = False,
    equal_weights: bool = False,
    copy_share: float = 0.05,
) -> Batch:
    arrays, targets = _pack(lambda: sample(rng, long, copy_share), shape)
    if len(targets) > MAX_TARGETS:
        targets = rng.sample(targets, MAX_TARGETS)
    if equal_weights:
        targets = [(position, label, 1.0) for position, label, _ in targets]
    count = len(targets)
    positions, labels = np.zeros(MAX_TARGETS, np.int32), np.zeros(MAX_TARGETS, np.int32)
    weights = np.zeros(MAX_TARGETS, np.float32)  # 0: padding
    positions[:count], labels[:count], weights[:count] = zip(*targets, strict=True)
    return {**arrays, "target_positions": positions, "labels": labels, "weights": weights}


def _pack(
    sample: Callable[[], EncodedExercise], shape: tuple[int, int]
) -> tuple[Batch, list[Target]]:
    """Fill rows first-fit; returns the arrays, and targets with positions in the flat batch."""
    rows, length = shape
    names = ("tokens", "positions", "segment_ids")
    arrays = {name: np.zeros((rows, length), np.int32) for name in names}
    fill, segments = np.zeros(rows, int), np.zeros(rows, int)
    targets: list[Target] = []
    misses = 0
    while misses < MAX_MISSES:
        ids, found = sample()
        fitting = np.flatnonzero(fill + len(ids) <= length)
        if not fitting.size:
            misses += 1
            continue
        row = fitting[0]
        start = int(fill[row])
        span = slice(start, start + len(ids))
        segments[row] += 1
        arrays["tokens"][row, span] = ids
        arrays["positions"][row, span] = np.arange(len(ids))
        arrays["segment_ids"][row, span] = segments[row]
        targets += [(row * length + start + at, label, weight) for at, label, weight in found]
        fill[row] += len(ids)
    return arrays, targets


@contextlib.contextmanager
def background_batches(
    tokenizer_file: pathlib.Path, curriculum: str, seed: int, first: int
) -> Iterator[Callable[[], Batch]]:
    """Generate batches in a background process.

    Args:
        tokenizer_file: path of `tokenizer.json`.
        curriculum: name in `CURRICULA`.
        seed: seed of the exercises.
        first: number of the first batch, from 0.

    Yields:
        A function that returns the next batch.
    """
    spawn = mp.get_context("spawn")  # JAX has threads, which a fork does not survive
    queue: mp.Queue = spawn.Queue(maxsize=8)
    arguments = (queue, str(tokenizer_file), curriculum, seed, first)
    process = spawn.Process(target=_produce, args=arguments, daemon=True)
    process.start()
    try:
        yield queue.get
    finally:
        process.terminate()


def _produce(queue: mp.Queue, tokenizer_file: str, curriculum: str, seed: int, first: int) -> None:
    for batch in batches(tokenizer_file, CURRICULA[curriculum], seed, first):
        queue.put(batch)
