"""Text -> search terms, as Lucene's English analyser makes them.

Words are split by the Unicode word break rules (UAX #29); each ideograph and each emoji is one term
(that includes signs such as the registered and trade mark ones); then possessives are
stripped, stop words dropped and the rest stemmed.

Reference: https://unicode.org/reports/tr29/ (rules WB4-WB13b) and https://unicode.org/reports/tr51/.
"""

import functools
import re

import regex  # type: ignore[import-untyped]  # it ships no types

from eef_jax.envs.webshop.constants import STOP_WORDS
from eef_jax.envs.webshop.porter import stem

LONGEST = 255  # characters; longer words are cut into pieces of this length

# What joins words and what is a pictograph is spelled out, from Unicode 12.1 as the original's
# engine reads it: a later Unicode dropped signs such as U+2605, which changes document lengths and
# so the order of results.
_MID_NUM_LET = r".\u2018\u2019\u2024\ufe52\uff07\uff0e'"
_MID_LETTER = r":\xb7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a" + _MID_NUM_LET
_MID_NUMBER = r",;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe50\ufe54\uff0c\uff1b" + _MID_NUM_LET
# Extended_Pictographic: code points and ranges of them.
_PICTOGRAPHS = (
    "a9 ae 203c 2049 2122 2139 2194-2199 21a9-21aa 231a-231b 2328 2388 23cf 23e9-23f3 23f8-23fa "
    "24c2 25aa-25ab 25b6 25c0 25fb-25fe 2600-2605 2607-2612 2614-2685 2690-2705 2708-2712 2714 "
    "2716 271d 2721 2728 2733-2734 2744 2747 274c 274e 2753-2755 2757 2763-2767 2795-2797 27a1 "
    "27b0 27bf 2934-2935 2b05-2b07 2b1b-2b1c 2b50 2b55 3030 303d 3297 3299 1f000-1f0ff "
    "1f10d-1f10f 1f12f 1f16c-1f171 1f17e-1f17f 1f18e 1f191-1f19a 1f1ad-1f1e5 1f201-1f20f 1f21a "
    "1f22f 1f232-1f23a 1f23c-1f23f 1f249-1f3fa 1f400-1f53d 1f546-1f64f 1f680-1f6ff 1f774-1f77f "
    "1f7d5-1f7ff 1f80c-1f80f 1f848-1f84f 1f85a-1f85f 1f888-1f88f 1f8ae-1f8ff 1f90c-1f93a "
    "1f93c-1f945 1f947-1faff 1fc00-1fffd"
)


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
    pictograph = "".join(
        "-".join(chr(int(code, 16)) for code in span.split("-")) for span in _PICTOGRAPHS.split()
    )
    # A joiner (U+200D) before a pictograph is not a mark of the previous one: it joins the two.
    marks = (
        rf"(?:(?![\ufe0e\ufe0f]|\u200d+[{pictograph}\p{{Emoji_Modifier}}])"
        r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}])*+"
    )
    modifier = rf"\p{{Emoji_Modifier}}{marks}"
    element = (
        rf"(?:\u200d*\p{{Emoji_Modifier_Base}}{marks}{modifier}|{modifier}"
        rf"|\u200d*[{pictograph}]{marks}\ufe0f?)"
    )
    tags = r"[\U000e0020-\U000e007e]+\U000e007f"
    keycap = rf"[0-9#*]\ufe0f?\u20e3{marks}"
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

# The same rules for ASCII text, several times as fast; runs of "_" alone are dropped afterwards.
_ASCII_TOKEN = re.compile(
    r"(?:\w|(?<=[A-Za-z])[:.'](?=[A-Za-z])|(?<=[0-9])[.,;'](?=[0-9]))+", re.ASCII
)


def tokenize(text: str) -> list[str]:
    """Split `text` into words, emoji and ideographs, in order and as written."""
    if text.isascii():
        tokens = [token for token in _ASCII_TOKEN.findall(text) if token.strip("_")]
    else:
        tokens = _TOKEN.findall(text)
    if max(map(len, tokens), default=0) <= LONGEST:
        return tokens
    return [
        token[start : start + LONGEST]
        for token in tokens
        for start in range(0, len(token), LONGEST)
    ]


def analyze(text: str) -> list[str]:
    """Search terms of `text`, in order, repeats included."""
    return [term for term in map(_term, tokenize(text)) if term]


@functools.lru_cache(maxsize=1 << 16)
def _term(token: str) -> str:
    """The term that a token counts as; "" for a stop word."""
    if token[-2:] in _POSSESSIVES:
        token = token[:-2]
    word = token.lower()
    return "" if word in STOP_WORDS else stem(word)


_POSSESSIVES = frozenset(quote + s for quote in "'\u2019\uff07" for s in "sS")
