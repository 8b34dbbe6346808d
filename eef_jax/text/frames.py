"""A chat template reduced to frames: for each message the fixed text before and after its content.

Frames are found by rendering marker contents in the form messages have as history, so any template
works that is prefix-stable there (a later message does not change the text before it) and writes
contents verbatim or stripped; others are refused.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

from eef_jax.errors import PolicyError
from eef_jax.text.tokenizer import Tokenizer
from eef_jax.types import Role

_MARKER = re.compile("\ue000(\\d+)\ue001")  # private use: no template trims or rewrites these
# How a template treats a content's outer white space, by its rendering of " content ".
_STRIPS: dict[str, Callable[[str], str]] = {
    " {} ": str,
    "{}": str.strip,
    "{} ": str.lstrip,
    " {}": str.rstrip,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The fixed text around a message's content.

    Attributes:
        head: text between the previous message and the content; of an assistant's message, the
            generation prompt.
        lead: text that an assistant's message begins with (a space, in some templates).
        end: text that ends an assistant's turn, up to and including the token that ends it.
        text: the conversation with marker contents, up to the end of this message.
        strip: strips a content's outer white space as the template does.
    """

    head: str
    lead: str
    end: str
    text: str
    strip: Callable[[str], str]


class Frames:
    """The frames of one tokenizer's chat template, found when they are first asked for.

    Args:
        tokenizer: renders the template.

    Raises:
        PolicyError: the template is not prefix-stable or rewrites contents.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._known: dict[tuple[Role, ...], tuple[Frame, ...]] = {(): ()}
        self._merges_system = False
        self._check_system()

    def of(self, roles: Sequence[Role]) -> tuple[Frame, ...]:
        """Frames of a conversation with these roles; measured once for each sequence of roles.

        Raises:
            PolicyError: the template refuses these roles, or cannot be kept.
        """
        roles = tuple(roles)
        if roles not in self._known:
            known = self.of(roles[:-1])
            self._known[roles] = (*known, self._measure(roles, known))
        return self._known[roles]

    def _check_system(self) -> None:
        """Find out whether the template renders a system message in a fixed place.

        If it does not, the system message is prepended to the first user message, as Gemma 3's
        template does.
        """
        roles: tuple[Role, ...] = ("system", "user", "assistant", "user", "assistant")
        try:
            self.of(roles)
        except PolicyError:
            self._known = {(): ()}
            self._merges_system = True
        self.of(roles[1:])

    def _measure(self, roles: tuple[Role, ...], known: tuple[Frame, ...]) -> Frame:
        """The frame of the last message, as the template renders it before a user message.

        Templates may render a conversation's last message differently; in history it is fixed.
        """
        place, last = len(roles) - 1, roles[-1]
        before = known[-1].text if known else ""
        probe: tuple[Role, ...] = () if last == "user" else ("user",)
        text = self._render(roles + probe)
        _check_prefix(before, text, f"adding message {place} ({last})")
        markers = list(_MARKER.finditer(text))
        order = [int(found[1]) for found in markers]
        if order != list(range(len(roles + probe))):
            raise PolicyError(
                f"the chat template writes the content of message {place} ({last}) "
                f"{order.count(place)} times, expected each message's once and in order: "
                f"{text[len(before) :]!r}; use another template"
            )
        start, stop = markers[place].span()
        head, lead, end = text[len(before) : start], "", ""
        if last == "assistant":
            head, lead = self._generation_prompt(roles, before, head)
            end = self._turn_end(roles)
            _check_prefix(text[:stop] + end, text, f"answering message {place} ({last})")
        return Frame(
            head=head,
            lead=lead,
            end=end,
            text=text[:stop] + end,
            strip=self._strip(roles + probe, place, text),
        )

    def _generation_prompt(
        self, roles: tuple[Role, ...], before: str, head: str
    ) -> tuple[str, str]:
        """The generation prompt, and the text between it and an assistant's content."""
        if len(roles) == 1:
            return head, ""
        prompted = self._render(roles[:-1], generate=True)
        _check_prefix(before, prompted, f"the generation prompt of message {len(roles) - 1}")
        prompt = prompted[len(before) :]
        lead = head.removeprefix(prompt)
        if not head.startswith(prompt) or lead.strip():
            raise PolicyError(
                f"the generation prompt {prompt!r} differs from how the chat template begins an "
                f"assistant's message in history, {head!r}: sampled ids could not be kept; use "
                "another template"
            )
        return prompt, lead

    def _turn_end(self, roles: tuple[Role, ...]) -> str:
        """The text after an assistant's content, up to and including the token that ends a turn.

        It is the first special token, or, without any, the first added token that is not blank.
        """
        tail = self._render(roles).rpartition(_marker(len(roles) - 1))[2]
        for tokens in (self._tokenizer.special, self._tokenizer.added):
            longest_first = sorted(filter(str.strip, tokens.values()), key=len, reverse=True)
            found = re.search("|".join(map(re.escape, longest_first)) or "(?!)", tail)
            if found:
                return tail[: found.end()]
        raise PolicyError(
            f"the chat template ends an assistant's message with {tail!r}, in which the tokenizer "
            "has no token of its own, so the end of a turn cannot be detected; use a template with "
            "an end-of-turn token"
        )

    def _strip(self, roles: tuple[Role, ...], place: int, text: str) -> Callable[[str], str]:
        marker = _marker(place)
        padded = self._render(roles, pad=place)
        for form, strip in _STRIPS.items():
            if padded == text.replace(marker, form.format(marker)):
                return strip
        raise PolicyError(
            "the chat template rewrites contents (more than stripping white space): with "
            f"{' ' + marker + ' '!r} in {text!r} it gives {padded!r}; use another template"
        )

    def _render(
        self, roles: Sequence[Role], *, generate: bool = False, pad: int | None = None
    ) -> str:
        contents = [f" {_marker(i)} " if i == pad else _marker(i) for i in range(len(roles))]
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        if self._merges_system and roles[:2] == ("system", "user"):
            system, user, *rest = messages
            joined = f"{system['content']}\n\n{user['content']}"
            messages = [{"role": "user", "content": joined}, *rest]
        return self._tokenizer.template(messages, generate=generate)


def _marker(index: int) -> str:
    return f"\ue000{index}\ue001"


def _check_prefix(before: str, after: str, action: str) -> None:
    if after.startswith(before):
        return
    at = next(
        (i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), len(after)
    )
    raise PolicyError(
        f"the chat template is not prefix-stable: {action} changes the text before it from "
        f"{before[at : at + 60]!r} to {after[at : at + 60]!r}; KV caches and sampled ids could not "
        "be kept across turns, use a template that only appends"
    )
