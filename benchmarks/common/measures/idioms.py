"""Idioms of the project's private English that are left, counted by kind.

A pattern is a regular expression without regard to case; a space in it stands for any white space
and comment signs, so a phrase is found across the end of a line. What a pattern cannot tell apart
(a `mark` of the engine, one of an exercise) is told by the path.
"""

import dataclasses
import re
from collections.abc import Iterator

from benchmarks.common.measures.checkout import Checkout, Document, Measure

_ROOMS = ("eef_jax/", "benchmarks/", "configs/", "pretrain/", "docs/", "launch/", "tests/")
# Not benchmarks: the engines that ours is compared with have slots, too.
_ENGINE = r"^(eef_jax|tests|docs)/engine"
_ARRAYS = r"^(eef_jax|tests|docs)/(kernels|models|engine|train|analysis|learner)|^WORKSPACE"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Idiom:
    """One kind.

    Attributes:
        name: what the table calls it, with what to write in its place.
        pattern: what it looks like.
        code: whether it is looked for outside comments, docstrings and Markdown as well.
        within: pattern of the paths that are searched.
    """

    name: str
    pattern: str
    code: bool = True
    within: str = ""


_IDIOMS = (
    _Idiom(name="way back, way forth (backward pass)", pattern=r"\bways? (back|forth)\b(?! to\b)"),
    _Idiom(name="lies (placed, sharding)", pattern=r"\b(lies?|lying)\b"),
    _Idiom(
        name="turned (transposed)",
        pattern=r"\bturned\b(?! (on|off|into|out|down|back|one)\b)",
        within=_ARRAYS,
    ),
    _Idiom(
        name="the door, the book, the story, the house",
        pattern=r"\b(the|its) (door|book|story|house)\b",
        code=False,
    ),
    _Idiom(
        name="answer in the making, drawn (request, generated)",
        pattern=r"\bin the making\b|\bdr(aws?|awn|ew|awing)( (an|the|all|its))? answers?\b"
        r"|\banswers?( \w+){0,3} drawn\b",
    ),
    _Idiom(name="let go (released)", pattern=r"\blet(s|ting)?( \S+){0,4}? go\b(?! of\b)"),
    _Idiom(name="chain (block table)", pattern=r"\bchains?\b", within=_ENGINE + "|^WORKSPACE"),
    _Idiom(name="mark (provenance tag)", pattern=r"\bmarks?\b", within=_ENGINE),
    _Idiom(
        name="slot (row)",
        pattern=r"(?<!cache\x20)\bslots?\b(?!=True)",
        within=_ENGINE + "|^WORKSPACE",
    ),
    _Idiom(name="passed over (skipped)", pattern=r"\bpass(ed|ing) over\b"),
    _Idiom(name="the dead (peer liveness)", pattern=r"\bthe dead\b", code=False),
    _Idiom(name="dealt out (sharded)", pattern=r"\bdeals? out\b|\bdealt\b"),
    _Idiom(name="meet, agree (barrier, broadcast)", pattern=r"(\.|\bdef )(meet|agree)\("),
    _Idiom(name="on nothing (on empty inputs)", pattern=r"\bon nothing\b(?! else\b)"),
    _Idiom(name="whoever, speaks next", pattern=r"\bwhoever\b|\bspeaks? next\b"),
    _Idiom(name="that is not there", pattern=r"\b(is|are|was|were) not there\b"),
    _Idiom(name="borders (conservation checks)", pattern=r"\bborders?\b"),
    _Idiom(name="so many", pattern=r"\bso many\b"),
    _Idiom(name="of its own", pattern=r"\bof (its|their|one's|his|her|our|your) own\b"),
    _Idiom(name="likewise", pattern=r"\blikewise\b"),
    _Idiom(name="beside (next to)", pattern=r"\bbeside\b"),
    _Idiom(name="alike", pattern=r"\balike\b"),
    _Idiom(
        name="is no X (is not an X)",
        # "There is no X" is plain English, and so are these adverbs.
        pattern=r"(?<!there)(?<![\s#]) (is|are|was|were) no "
        r"(?!(longer|more|less|fewer|better|way|one)\b)[a-z]+",
    ),
    _Idiom(
        name="Knows X; knows nothing of Y",
        pattern=r"(?-i:\bKnows)\b[^.]*|\bknows? (nothing|neither|no)\b",
        code=False,
    ),
    _Idiom(
        name="argument line: see X, as for X, likewise",
        pattern=r"^[\x20]+\w+: (see|as (for|in)|likewise)\b",
        code=False,
    ),
)


def measure(checkout: Checkout) -> list[Measure]:
    """A row for each kind of idiom, with its places, and one for all of them."""
    documents = [document for document in checkout.documents if _is_searched(document.path)]
    prose = [list(_places(idiom, documents, "prose")) for idiom in _IDIOMS]
    code = [list(_places(idiom, documents, "code")) if idiom.code else [] for idiom in _IDIOMS]
    rows = [
        Measure(
            name=idiom.name,
            value=f"{len(in_prose)} + {len(in_code)}",
            places=tuple(
                f"{p}:{number}: {text}" for p, number, text in sorted({*in_prose, *in_code})
            ),
            long=True,
        )
        for idiom, in_prose, in_code in zip(_IDIOMS, prose, code, strict=True)
    ]
    # Kinds overlap (an argument line may say only "likewise"); lines are counted once.
    lines = {(path, number) for places in prose + code for path, number, _ in places}
    total = f"{sum(map(len, prose))} + {sum(map(len, code))} (on {len(lines)} lines)"
    return [*rows, Measure(name="all idioms", value=total)]


def _is_searched(path: str) -> bool:
    return path.endswith((".py", ".md")) and (path.startswith(_ROOMS) or "/" not in path)


def _places(idiom: _Idiom, documents: list[Document], part: str) -> Iterator[tuple[str, int, str]]:
    """Path, line and text of each place; a phrase that was wrapped counts where it begins."""
    pattern = re.compile(idiom.pattern.replace(" ", r"[\s#]+"), re.IGNORECASE | re.MULTILINE)
    for document in documents:
        if not re.search(idiom.within, document.path):
            continue
        searched: str = getattr(document, part)
        for match in pattern.finditer(searched):
            # A pattern may begin with white space, which may be the end of the line before.
            begin = match.end() - len(match[0].lstrip("# \n"))
            number = searched.count("\n", 0, begin) + 1
            yield document.path, number, document.line(number).strip()
