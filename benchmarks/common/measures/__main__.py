"""Prints the measures of a checkout: `python -m benchmarks.common.measures [REPO] [--list]`."""

import argparse
import pathlib
from collections.abc import Iterator

from benchmarks.common.measures import annotations, idioms, names, sizes, structure
from benchmarks.common.measures.checkout import Checkout, Measure, read

SUBJECTS = {
    "Structure": structure.measure,
    "Sizes": sizes.measure_lines,
    "Comments": sizes.measure_comments,
    "Names": names.measure,
    "Annotations": annotations.measure,
    "Idioms, in prose + code": idioms.measure,
}


def report(checkout: Checkout, *, every_place: bool) -> Iterator[str]:
    """Lines of the report: one table of all subjects, then the places behind the numbers.

    Args:
        checkout: the tree to measure.
        every_place: whether long lists of places are printed as well.

    Yields:
        Lines of Markdown.
    """
    subjects = {title: measure(checkout) for title, measure in SUBJECTS.items()}
    measures = [measure for found in subjects.values() for measure in found]
    width = max(len(measure.name) for measure in measures)
    yield f"| {'measure'.ljust(width)} | value |"
    yield f"|{'-' * (width + 2)}|---|"
    for title, found in subjects.items():
        yield f"| {f'**{title}**'.ljust(width)} | |"
        yield from (f"| {measure.name.ljust(width)} | {measure.value} |" for measure in found)
    for measure in measures:
        if measure.places and (every_place or not measure.long):
            yield from _places(measure)


def _places(measure: Measure) -> Iterator[str]:
    yield ""
    yield f"## {measure.name}: {measure.value}"
    yield ""
    yield from measure.places


def main() -> None:
    """Measure the checkout that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repo", nargs="?", type=pathlib.Path, default=pathlib.Path())
    parser.add_argument("--list", action="store_true", help="print every place of every idiom")
    flags = parser.parse_args()
    if not (flags.repo / "eef_jax").is_dir():
        parser.error(f"{flags.repo} holds no folder eef_jax: name the root of a checkout")
    print("\n".join(report(read(flags.repo), every_place=flags.list)))


if __name__ == "__main__":
    main()
