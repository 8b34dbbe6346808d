"""A scripted WebShop shopper with a short memory: good at finding its way, bad at keeping details.

It reads what an agent reads, the pages and the instruction on them, and nothing else. It searches
with the instruction's words, compares titles and prices, turns pages, and rewords its search when
two pages held nothing. But it looks at the instruction once: every further results page it reads
pushes one detail out of its mind, mostly the options (named last), now and then an attribute. So it
wins most tasks whose product stands on the first page and fails most others, after having found the
right page. That is how the paper describes GPT-4 failing; nothing in here labels a task.
"""

import dataclasses
import random
import re
from collections.abc import Sequence
from typing import Any

from eef_jax.config.fields import check, field
from eef_jax.policies.base import Policy
from eef_jax.policies.scripted import ScriptedPolicy
from eef_jax.types import ChatRequest, Message

NAME = "shopper"  # in trajectories

_SEP = " [SEP] "
_ACTION = re.compile(r"(search|click)\[(.+)\]")
_PRICE = re.compile(r"price lower than ([\d.]+) dollars")
_FILLER = frozenset(
    "find me i need am looking for show want a an the of to and or in is are that which with "
    "my".split()
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What the shopper still knows of an instruction.

    Attributes:
        words: what the title should say.
        options: option values, each with its group.
        upper: price bound in dollars, None without one.
    """

    words: tuple[str, ...]
    options: tuple[tuple[str, str], ...]
    upper: float | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The section `expert` of the shopper: its weaknesses as probabilities, drawn once a task."""

    seed: int = field(0, "decides when its weaknesses show; a task is always played the same way")
    reread: float = field(
        0.0,
        "that it goes back to the instruction and so forgets nothing on the way",
        at_least=0,
        at_most=1,
    )
    lapse: float = field(
        0.18, "that it overlooks an option even without turning a page", at_least=0, at_most=1
    )
    misread: float = field(
        0.0, "that, tired, it drops an attribute before the options", at_least=0, at_most=1
    )
    reword: float = field(
        0.25,
        "that it searches again, with the options as words, after two pages without a match",
        at_least=0,
        at_most=1,
    )
    patience: int = field(
        4, "results pages it reads before it takes the closest product or starts again", at_least=1
    )

    def __post_init__(self) -> None:
        check(self, "expert")


def make(config: Config, *, env: Any) -> Policy:
    """Make the expert.

    Args:
        config: its weaknesses.
        env: the environment it plays; words its actions as messages (`Env.render`).
    """

    def speak(request: ChatRequest) -> str:
        draw = random.Random(f"{config.seed} {NAME} {request.task}").random
        return str(env.render(next_action(request.messages, config, [draw() for _ in range(6)])))

    return ScriptedPolicy(speak, name=NAME)


def parse_instruction(instruction: str) -> Requirements:
    """Take an instruction apart."""
    price = _PRICE.search(instruction)
    body = re.sub(r",? and price lower than.*", "", instruction)
    head, _, tail = (
        body.partition(" with ") if re.search(r" with [\w ]+: ", body) else (body, "", "")
    )
    options = tuple(
        (group.strip(), value.strip())
        for group, _, value in (part.partition(": ") for part in tail.split(", and "))
        if value
    )
    words = tuple(
        word for word in re.findall(r"[a-z0-9][a-z0-9'\-]*", head.lower()) if word not in _FILLER
    )
    return Requirements(words=words, options=options, upper=float(price[1]) if price else None)


def next_action(messages: Sequence[Message], profile: Config, luck: Sequence[float]) -> str:
    """The shopper's next action.

    Args:
        messages: the conversation; the last message is the page in front of it.
        profile: its weaknesses.
        luck: six numbers in [0, 1) that are drawn once for the task.
    """
    page = messages[-1].content
    said = [_ACTION.findall(m.content)[-1] for m in messages if m.role == "assistant"]
    wish = parse_instruction(_instruction(page))
    if page.startswith("WebShop"):
        return f"search[{' '.join(_query(wish, again=bool(said)))}]"
    pages_read = sum(verb == "search" or name == "next >" for verb, name in said)
    wish = _remembered(wish, pages_read, profile, luck)
    if "(Total results:" in page:
        return _on_results(page, wish, said, pages_read, profile, luck)
    return _on_item(page, wish, said)


def _instruction(page: str) -> str:
    return page.split("Instruction:" + _SEP, 1)[-1].split(_SEP, 1)[0]


def _query(wish: Requirements, *, again: bool) -> list[str]:
    return [*wish.words, *(value for _, value in wish.options if again)]


def _remembered(
    wish: Requirements, pages_read: int, profile: Config, luck: Sequence[float]
) -> Requirements:
    """What is left of the wish after reading so many results pages."""
    lost = 0 if luck[0] < profile.reread else pages_read - 1
    words, options = wish.words, wish.options
    if lost > 0 and luck[1] < profile.misread and len(words) > 2:
        words = words[:1] + words[2:] if luck[2] < 0.5 else words[1:]
        lost -= 1
    if lost > 0 or (pages_read == 1 and luck[3] < profile.lapse):
        if not options and lost > 0 and len(words) > 2:
            words = words[1:]
        options = options[: -max(1, lost)]
    return dataclasses.replace(wish, words=words, options=options)


def _items(page: str) -> list[tuple[str, set[str], float]]:
    """Id, title words and lowest price of each line of a results page."""
    parts = page.split(_SEP)
    start = parts.index("Next >") + 1
    items = []
    for asin, title, price in zip(
        parts[start::3], parts[start + 1 :: 3], parts[start + 2 :: 3], strict=False
    ):
        dollars = re.search(r"[\d.]+", price)
        words = set(re.findall(r"[a-z0-9][a-z0-9'\-]*", title.lower()))
        items.append((asin.lower(), words, float(dollars[0]) if dollars else 0.0))
    return items


def _on_results(
    page: str,
    wish: Requirements,
    said: Sequence[tuple[str, str]],
    pages_read: int,
    profile: Config,
    luck: Sequence[float],
) -> str:
    items = [i for i in _items(page) if wish.upper is None or i[2] <= wish.upper]
    for asin, words, _ in items:
        if set(wish.words) <= words:
            return f"click[{asin}]"
    searches = sum(verb == "search" for verb, _ in said)
    if pages_read < profile.patience:
        if pages_read == 2 and searches == 1 and luck[4] < profile.reword:
            return "click[back to search]"
        return "click[next >]"
    items = items or _items(page)
    if items and (luck[5] < 0.7 or searches > 1):
        return f"click[{max(items, key=lambda item: len(set(wish.words) & item[1]))[0]}]"
    return "click[back to search]"


def _on_item(page: str, wish: Requirements, said: Sequence[tuple[str, str]]) -> str:
    shown = {part.lower() for part in page.split(_SEP)}
    clicked = {name for _, name in said}
    for _, value in wish.options:
        if value in shown and value not in clicked:
            return f"click[{value}]"
    return "click[buy now]"
