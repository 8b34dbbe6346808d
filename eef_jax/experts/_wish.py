"""What an instruction of WebShop asks for, and how much of it a text says.

Words are compared by their stems, as the shop's own search does: `washing` says `wash`.
"""

import dataclasses
import functools
import re

from eef_jax.envs.webshop.analyzer import analyze

_PRICE = re.compile(r",? and price lower than ([\d.]+) dollars.*$", re.DOTALL)
_OPTIONS = re.compile(r" with ([\w #&'/().-]+?: .*)$", re.DOTALL)
_OPENING = re.compile(
    r"^(find me|i need|i want|i am looking for|i'm looking for)\s+", re.IGNORECASE
)
_CLAUSE = re.compile(r" with | for ")
_FILLER = frozenset(analyze("find me i need am looking want a an the of in for with and my which"))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """An instruction, taken apart.

    Attributes:
        text: what is wanted, without options and price.
        stems: stems of its words.
        options: wanted option values, each after its group.
        upper: price bound in dollars; infinite without one.
    """

    text: str
    stems: frozenset[str]
    options: tuple[tuple[str, str], ...]
    upper: float

    def said_by(self, stems: frozenset[str]) -> float:
        """The share (0-1) of the wanted words that are among `stems`."""
        return len(self.stems & stems) / max(1, len(self.stems))

    def queries(self) -> tuple[str, ...]:
        """Searches for it, in the order in which a shopper thinks of them, each one once.

        The words before the first `with` or `for`; all of them, with the options; all of them.
        """
        every = " ".join([self.text, *(value for _, value in self.options)])
        return tuple(dict.fromkeys((_CLAUSE.split(self.text)[0], every, self.text)))


@functools.lru_cache(maxsize=4096)
def parse(instruction: str) -> Wish:
    """Take an instruction apart.

    Options are told as `with group: value, and group: value` at its end. What people wrote has
    none, and all of it is text.
    """
    price = _PRICE.search(instruction)
    body = _PRICE.sub("", instruction)
    found = _OPTIONS.search(body)
    parts = found[1].split(", and ") if found else []
    pairs = (part.partition(": ") for part in parts)
    text = _OPENING.sub("", body[: found.start()] if found else body)
    return Wish(
        text=text,
        stems=stems(text),
        options=tuple((group.strip(), value.strip()) for group, _, value in pairs if value),
        upper=float(price[1]) if price else float("inf"),
    )


@functools.lru_cache(maxsize=1 << 14)  # the same titles are read again and again
def stems(text: str) -> frozenset[str]:
    """Stems of the words of a text that say something."""
    return frozenset(analyze(text)) - _FILLER
