"""A scripted WebShop expert with a short memory: it navigates well and forgets details.

It reads what an agent reads, the pages and the instruction on them, and nothing else. It searches
with the words of the instruction, compares titles and prices, turns pages, and rewords its search
after two pages without a match. But it reads the instruction only once: with every further results
page it forgets one detail, mostly an option (named last), sometimes an attribute. So it wins most
tasks whose product is on the first page and fails most others after finding the right page. The
paper describes the failures of GPT-4 in this way; no task is labelled as easy or hard here.
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
    """What the shopper remembers of an instruction.

    Attributes:
        words: words that the title should contain.
        options: pairs of option group and value.
        upper: price bound in dollars; None without one.
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
    """Parse an instruction into its words, options and price bound."""
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
    page: PageView, actions: Sequence[tuple[str, str]], profile: Config, draws: Sequence[float]
) -> Move:
    """The shopper's next move.

    Args:
        page: the current page.
        actions: pairs of verb and argument of the episode's actions.
        profile: its weaknesses.
        draws: six numbers in [0, 1), drawn once per task.
    """
    needs = parse_instruction(page.instruction)
    if page.kind is PageKind.INDEX:
        if not actions:
            return _search(needs.words, "I search with the words of the instruction.")
        words = [*needs.words, *(value for _, value in needs.options)]
        return _search(words, "I search again, with the options as words.")
    pages_read = sum(verb == "search" or name == "next >" for verb, name in actions)
    needs = _remember(needs, pages_read, profile, draws)
    if page.kind is PageKind.RESULTS:
        return _on_results(page, needs, actions, pages_read, profile, draws)
    if page.kind is PageKind.SUB:
        return _click("< prev", "I have read this; back to the product.")
    return _on_item(page, needs, actions)


def _search(words: Sequence[str], thought: str) -> Move:
    return Move(f"search[{' '.join(words)}]", thought)


def _click(name: str, thought: str) -> Move:
    return Move(f"click[{name}]", thought)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9][a-z0-9'\-]*", text.lower())


def _remember(
    needs: Requirements, pages_read: int, profile: Config, draws: Sequence[float]
) -> Requirements:
    """The requirements that are not forgotten after reading some results pages."""
    lost = 0 if draws[0] < profile.reread else pages_read - 1
    words, options = needs.words, needs.options
    if lost > 0 and draws[1] < profile.misread and len(words) > 2:
        words = words[:1] + words[2:] if draws[2] < 0.5 else words[1:]
        lost -= 1
    if lost > 0 or (pages_read == 1 and draws[3] < profile.lapse):
        if not options and lost > 0 and len(words) > 2:
            words = words[1:]
        options = options[: -max(1, lost)]
    return dataclasses.replace(needs, words=words, options=options)


def _on_results(
    page: PageView,
    needs: Requirements,
    actions: Sequence[tuple[str, str]],
    pages_read: int,
    profile: Config,
    draws: Sequence[float],
) -> Move:
    wanted = set(needs.words)
    affordable = [item for item in page.results if needs.upper is None or item.price <= needs.upper]
    for item in affordable:
        if wanted <= set(_words(item.title)):
            return _click(item.asin, "This title has the words that I look for; I open it.")
    searches = sum(verb == "search" for verb, _ in actions)
    if pages_read < profile.patience:
        if pages_read == 2 and searches == 1 and draws[4] < profile.reword:
            return _click("back to search", "Two pages without it; other words may find it.")
        return _click("next >", "No title here has all the words; I turn the page.")
    items = affordable or page.results
    if items and (draws[5] < 0.7 or searches > 1):

        def common(item: Listing) -> int:
            return len(wanted & set(_words(item.title)))

        return _click(max(items, key=common).asin, "I have looked enough; I take the closest one.")
    return _click("back to search", "I have looked enough here; other words may find it.")


def _on_item(page: PageView, needs: Requirements, actions: Sequence[tuple[str, str]]) -> Move:
    clicked = {name for _, name in actions}
    for _, value in needs.options:
        if value in page.names and value not in clicked:
            return _click(value, f"I want {value} and choose it.")
    return _click("buy now", "I know of nothing else to choose and buy it.")
