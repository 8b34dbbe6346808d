"""What a round is trained on: the tokens of its first batch, or of a task, weights as colours."""

import itertools
from collections.abc import Iterator, Sequence

from rich.color import Color
from rich.console import RenderableType
from rich.style import Style
from rich.text import Text

from eef_jax.report import tokens
from eef_jax.report.run import Run
from eef_jax.types import Example
from eef_jax.untrusted import printable
from eef_jax.view.screen import Indented, Part, line, text

_LEARNED = "⟦{}⟧"  # around learned tokens: seen without colours, too
_WEIGHTS = 8  # distinct weights that the legend names


def first_batch(run: Run, number: int) -> Iterator[RenderableType]:
    """The first batch of a round, row by row, as training packs it."""
    rows = tokens.first_batch(run, number)
    every = [example for row in rows for example in row]
    if not every:
        yield line(f"Round {number} has no training examples.")
        return
    yield line(
        (f"The first batch of round {number} as trained", "bold"),
        f": {len(rows)} rows of up to {run.config.train.seq_len:,} tokens. {_counts(every)}.",
    )
    most = _most(every)
    yield _legend(every, most)
    texts = tokens.Texts(run)
    for place, row in enumerate(rows):
        yield ""
        yield line((f"Row {place + 1}", "bold"), f": {_counts(row)}" if row else ": empty")
        for example in row:
            yield from _example(example, texts, most)


def of_task(run: Run, number: int, task: str) -> Iterator[RenderableType]:
    """The training examples of one task in a round."""
    found = [e for e in tokens.stored(run, number) if e.provenance.get("task") == task]
    if not found:
        yield line(f"Round {number} trains on nothing of ", text(task), ".")
        return
    yield line(text(task, "bold"), f" in round {number}: {_counts(found)}.")
    most = _most(found)
    yield _legend(found, most)
    texts = tokens.Texts(run)
    for example in found:
        yield ""
        yield from _example(example, texts, most)


def _counts(examples: Sequence[Example]) -> str:
    total = sum(example.tokens.size for example in examples)
    learned = sum(example.loss_positions.size for example in examples)
    noun = "example" if len(examples) == 1 else "examples"
    return f"{len(examples)} {noun}, {total:,} tokens, {learned:,} of them learned"


def _most(examples: Sequence[Example]) -> float:
    return max(float(example.weights.max(initial=0)) for example in examples)


def _legend(examples: Sequence[Example], most: float) -> RenderableType:
    weights = sorted({weight for e in examples for weight in e.weights.tolist() if weight})
    # Of many weights some from the smallest to the largest, evenly by rank.
    few = [
        weights[i * (len(weights) - 1) // max(1, min(len(weights), _WEIGHTS) - 1)]
        for i in range(min(len(weights), _WEIGHTS))
    ]
    parts: list[Part] = []
    for weight in few:
        parts += [(_LEARNED.format(f"weight {weight:.3g}"), _style(weight, most)), " "]
    return line(*parts, ("the rest is context: weight 0", _style(0, most)))


def _example(example: Example, texts: tokens.Texts, most: float) -> Iterator[RenderableType]:
    yield line(text(example.id, "bold cyan"))
    pieces, shown = iter(texts.pieces(example.tokens.tolist())), Text()
    for count, weight in tokens.runs(example.weights):
        words = printable("".join(itertools.islice(pieces, count)))
        shown.append(_LEARNED.format(words) if weight else words, _style(weight, most))
    yield Indented(shown, 0)


def _style(weight: float, most: float) -> Style:
    """Green, the stronger the more a token weighs; context is dim."""
    if not weight:
        return Style(dim=True)
    strength = 0.35 + 0.65 * weight / most
    return Style(color="white", bgcolor=Color.from_rgb(0, 110 * strength, 45 * strength), bold=True)
