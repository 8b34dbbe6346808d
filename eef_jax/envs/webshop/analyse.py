"""Text -> search terms, as Lucene's English analyser makes them.

Words are split by the Unicode word break rules (UAX #29), with each ideograph and each emoji a term of
its own (that includes signs such as (R) and (TM)); then possessives are stripped, stop words dropped and
the rest stemmed. Knows nothing of documents or scores.

Reference: https://unicode.org/reports/tr29/ (rules WB4-WB13b) and https://unicode.org/reports/tr51/.
"""

import functools

import regex

from eef_jax.envs.webshop.constants import STOP_WORDS
from eef_jax.envs.webshop.porter import stem

LONGEST = 255  # characters; longer words are cut into pieces of this length

# The punctuation that joins is spelled out, so that a newer Unicode table cannot move a word boundary.
_MID_NUM_LET = r".\u2018\u2019\u2024\ufe52\uff07\uff0e'"
_MID_LETTER = r":\xb7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a" + _MID_NUM_LET
_MID_NUMBER = r",;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe50\ufe54\uff0c\uff1b" + _MID_NUM_LET


def _extended(characters: str) -> str:
    """One of `characters` with the marks that stick to it (WB4)."""
    return rf"(?:[{characters}][\p{{WB=Extend}}\p{{WB=Format}}\p{{WB=ZWJ}}]*+)"


def _word_pattern() -> str:
    """WB5-WB13b: letters, digits and katakana, joined by underscores or inner punctuation."""
    join = _extended(r"\p{WB=ExtendNumLet}")
    katakana = _extended(r"\p{WB=Katakana}")
    letter = _extended(r"\p{WB=ALetter}\p{WB=Hebrew_Letter}")
    number = _extended(r"\p{WB=Numeric}\uff10-\uff19")
    hebrew = _extended(r"\p{WB=Hebrew_Letter}")
    quoted = rf"{hebrew}(?:{_extended(chr(39))}|{_extended(chr(34))}{hebrew})"
    numbers = rf"{number}(?:(?:{join}*|{_extended(_MID_NUMBER)}){number})*"
    letters = rf"{letter}(?:(?:{join}*|{_extended(_MID_LETTER)}){letter})*"
    run = rf"(?:{katakana}(?:{join}*{katakana})*|(?:{quoted}|{numbers}|{letters})+)"
    return rf"{join}*{run}(?:{join}+{run})*{join}*"


def _emoji_pattern() -> str:
    """UTS #51 sequences: a pictograph (with modifiers, joined ones, tags), a keycap, or a flag."""
    marks = r"(?:(?![\ufe0e\ufe0f])[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}])*"
    modifier = rf"\p{{Emoji_Modifier}}{marks}"
    element = (
        rf"(?:\u200d*\p{{Emoji_Modifier_Base}}{marks}{modifier}|{modifier}"
        rf"|\u200d*\p{{Extended_Pictographic}}{marks}\ufe0f?)"
    )
    tags = r"[\U000e0020-\U000e007e]+\U000e007f"
    keycap = rf"[0-9#*]{marks}\ufe0f?\u20e3{marks}"
    flag = _extended(r"\p{WB=Regional_Indicator}") + "{2}"
    return rf"{element}(?:{tags}|(?:\u200d{element})*)|{keycap}|{flag}"


_TOKEN = regex.compile(
    "|".join(
        (
            _word_pattern(),
            _emoji_pattern(),
            _extended(r"\p{Line_Break=SA}") + "+",  # Thai, Lao, ...: no spaces between words
            _extended(r"\p{Script=Han}"),
            _extended(r"\p{Script=Hiragana}"),
        )
    )
)


def tokenise(text: str) -> list[str]:
    """Split `text` into words, emoji and ideographs, in order and as written."""
    tokens = _TOKEN.findall(text)
    if all(len(token) <= LONGEST for token in tokens):
        return tokens
    return [
        token[start : start + LONGEST]
        for token in tokens
        for start in range(0, len(token), LONGEST)
    ]


def analyse(text: str) -> list[str]:
    """Search terms of `text`, in order, repeats included."""
    return [term for term in map(_term, tokenise(text)) if term]


@functools.lru_cache(maxsize=1 << 16)
def _term(token: str) -> str:
    """The term that a token counts as; "" for a stop word."""
    if token[-2:] in _POSSESSIVES:
        token = token[:-2]
    word = token.lower()
    return "" if word in STOP_WORDS else stem(word)


_POSSESSIVES = frozenset(quote + s for quote in "'\u2019\uff07" for s in "sS")
