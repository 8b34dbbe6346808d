"""Porter's stemming algorithm, with the departures of its author's own later code.

Those are `bli -> ble` and `logi -> log` in step 2, and words of one or two letters left alone.


Reference: M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980;
https://tartarus.org/martin/PorterStemmer/ ("points of difference from the published algorithm").
"""

import itertools

_STEP_2 = (
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("logi", "log"),
)
_STEP_3 = (
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
)
_STEP_4 = (
    *("al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent"),
    *("sion", "tion", "ou", "ism", "ate", "iti", "ous", "ive", "ize"),
)


def stem(word: str) -> str:
    """The stem of a lower-case word, e.g. `relational` -> `relat`."""
    if len(word) <= 2:
        return word
    word = _plural(word)
    word = _past(word)
    if word.endswith("y") and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    word = _replace(word, _STEP_2)
    word = _replace(word, _STEP_3)
    word = _strip(word)
    return _tidy(word)


def _plural(word: str) -> str:
    """Step 1a: caresses -> caress, ponies -> poni, cats -> cat."""
    if word.endswith(("sses", "ies")):
        return word[:-2]
    if word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _past(word: str) -> str:
    """Step 1b: agreed -> agree, plastered -> plaster, motoring -> motor, hopping -> hop."""
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for suffix in ("ed", "ing"):
        if word.endswith(suffix):
            stump = word[: -len(suffix)]
            return _restore(stump) if _has_vowel(stump) else word
    return word


def _restore(stump: str) -> str:
    """End of step 1b: conflat -> conflate, hopp -> hop, fil -> file."""
    if stump.endswith(("at", "bl", "iz")):
        return stump + "e"
    if _double_consonant(stump):
        return stump if stump[-1] in "lsz" else stump[:-1]
    if _measure(stump) == 1 and _short_ending(stump):
        return stump + "e"
    return stump


def _replace(word: str, table: tuple[tuple[str, str], ...]) -> str:
    """Steps 2 and 3: the first suffix that fits decides; only a stem with a measure is changed."""
    for suffix, replacement in table:
        if word.endswith(suffix):
            stump = word[: -len(suffix)]
            return stump + replacement if _measure(stump) > 0 else word
    return word


def _strip(word: str) -> str:
    """Step 4: drop one suffix from a long stem; `ion` goes only after s or t, which stays."""
    for suffix in _STEP_4:
        if word.endswith(suffix):
            cut = 3 if suffix in ("sion", "tion") else len(suffix)
            return word[:-cut] if _measure(word[:-cut]) > 1 else word
    return word


def _tidy(word: str) -> str:
    """Step 5: probate -> probat, controll -> control."""
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _short_ending(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word) > 1:
        word = word[:-1]
    return word


def _consonants(word: str) -> list[bool]:
    """For each letter whether it is a consonant; y is one at the start and after a vowel."""
    flags: list[bool] = []
    for letter in word:
        flags.append(letter not in "aeiou" if letter != "y" else not flags or not flags[-1])
    return flags


def _measure(stump: str) -> int:
    """Number of vowel-consonant sequences: tr 0, trouble 1, oaten 2."""
    flags = _consonants(stump)
    return sum(now and not before for before, now in itertools.pairwise(flags))


def _has_vowel(stump: str) -> bool:
    return not all(_consonants(stump))


def _double_consonant(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _consonants(word)[-1]


def _short_ending(word: str) -> bool:
    """Whether it ends consonant, vowel, consonant other than w, x, y."""
    flags = _consonants(word)
    return flags[-3:] == [True, False, True] and word[-1] not in "wxy"
