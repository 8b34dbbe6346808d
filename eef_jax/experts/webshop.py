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

from eef_jax.config.fields import check, field
from eef_jax.envs.base import Env
from eef_jax.envs.webshop.pages import PageKind
from eef_jax.experts._shopper import Listing, Move, PageView, Shopper, Visit
from eef_jax.policies.base import Policy

NAME = "shopper"  # in trajectories

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


def make(config: Config, *, env: Env) -> Policy:
    """Make the expert.

    Args:
        config: its weaknesses.
        env: the shop that it plays.

    Raises:
        ConfigError: the environment is not WebShop.
    """

    def decide(visit: Visit) -> Move:
        draw = random.Random(f"{config.seed} {NAME} {visit.task}").random
        return next_move(visit.pages[-1], visit.actions, config, [draw() for _ in range(6)])

    return Shopper(decide, env, name=NAME)


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
    words = tuple(word for word in _words(head) if word not in _FILLER)
    return Requirements(words=words, options=options, upper=float(price[1]) if price else None)


def next_move(
    page: PageView, said: Sequence[tuple[str, str]], profile: Config, luck: Sequence[float]
) -> Move:
    """The shopper's next move.

    Args:
        page: the page in front of it.
        said: verb and argument of what was done in the episode.
        profile: its weaknesses.
        luck: six numbers in [0, 1) that are drawn once for the task.
    """
    wish = parse_instruction(page.instruction)
    if page.kind is PageKind.INDEX:
        if not said:
            return _search(wish.words, "I search with the words of the instruction.")
        words = [*wish.words, *(value for _, value in wish.options)]
        return _search(words, "I search again, with the options as words.")
    pages_read = sum(verb == "search" or name == "next >" for verb, name in said)
    wish = _remembered(wish, pages_read, profile, luck)
    if page.kind is PageKind.RESULTS:
        return _on_results(page, wish, said, pages_read, profile, luck)
    if page.kind is PageKind.SUB:
        return _click("< prev", "I have read this; back to the product.")
    return _on_item(page, wish, said)


def _search(words: Sequence[str], thought: str) -> Move:
    return Move(f"search[{' '.join(words)}]", thought)


def _click(name: str, thought: str) -> Move:
    return Move(f"click[{name}]", thought)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9][a-z0-9'\-]*", text.lower())


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


def _on_results(
    page: PageView,
    wish: Requirements,
    said: Sequence[tuple[str, str]],
    pages_read: int,
    profile: Config,
    luck: Sequence[float],
) -> Move:
    wanted = set(wish.words)
    affordable = [item for item in page.results if wish.upper is None or item.price <= wish.upper]
    for item in affordable:
        if wanted <= set(_words(item.title)):
            return _click(item.asin, "This title has the words that I look for; I open it.")
    searches = sum(verb == "search" for verb, _ in said)
    if pages_read < profile.patience:
        if pages_read == 2 and searches == 1 and luck[4] < profile.reword:
            return _click("back to search", "Two pages without it; other words may find it.")
        return _click("next >", "No title here has all the words; I turn the page.")
    items = affordable or page.results
    if items and (luck[5] < 0.7 or searches > 1):

        def common(item: Listing) -> int:
            return len(wanted & set(_words(item.title)))

        return _click(max(items, key=common).asin, "I have looked enough; I take the closest one.")
    return _click("back to search", "I have looked enough here; other words may find it.")


def _on_item(page: PageView, wish: Requirements, said: Sequence[tuple[str, str]]) -> Move:
    clicked = {name for _, name in said}
    for _, value in wish.options:
        if value in page.names and value not in clicked:
            return _click(value, f"I want {value} and choose it.")
    return _click("buy now", "I know of nothing else to choose and buy it.")
