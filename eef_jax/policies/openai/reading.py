"""Read the response of a chat-completions server.

The format is OpenAI's, but each server words its refusals itself: with another status, inside an
answer with status 200, as a list, a bare text, or a web page. This module reads all of them into
an `Answer` or a `Refusal`; it sends nothing.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from eef_jax.policies.openai import refusals
from eef_jax.policies.openai.replies import Answer, Kind, Refusal, Usage


def read(status: int, headers: Mapping[str, str], text: str, *, now: float) -> Answer | Refusal:
    """Read a response.

    Args:
        status: the HTTP status.
        headers: by lower-case name.
        text: the body.
        now: seconds since the epoch, for delays that are given as a date.
    """
    try:
        body = json.loads(text)
    except ValueError:
        return _not_json(status, headers, text, now)
    if isinstance(body, list) and body:  # Gemini's errors
        body = body[0]
    if not isinstance(body, dict):
        body = {"error": text} if status >= 400 else {}
    usage = _usage(body.get("usage"))
    choice = _first(body.get("choices"))
    if error := refusals.find_error(body, choice, status):
        return refusals.refusal(error, status, headers, now, usage)
    if choice is None and "choices" not in body:
        message = f"JSON without choices ({refusals.shortened(text)})"
        return Refusal(kind="page", status=status, message=message, usage=usage)
    if choice is None:
        message = f"no choices in {refusals.shortened(text)}"
        return Refusal(kind="failed", status=status, message=message, usage=usage)
    return _answer(choice, status, usage or Usage())


def _answer(choice: Mapping[str, Any], status: int, usage: Usage) -> Answer | Refusal:
    finish = str(choice.get("finish_reason") or "stop").lower()
    if kind := _FINISHED_BY_SERVER.get(finish):
        message = f"ended the message with {finish!r}"
        return Refusal(kind=kind, status=status, message=message, usage=usage)
    said = choice.get("message") or {}
    text = _text(said.get("content"))
    if not text.strip():  # a refusal in words is what the model said
        text = _text(said.get("refusal"))
    if text.strip():
        return Answer(text=text, finish=finish, usage=usage)
    if said.get("tool_calls") or said.get("function_call"):
        instead = "a tool call"
    elif said.get("reasoning_content") or said.get("reasoning"):
        instead = "reasoning alone"
    else:
        instead = "no text"
    return Answer(text="", finish=finish, usage=usage, instead=instead)


# Finish reasons that are not the model's doing.
_FINISHED_BY_SERVER: Mapping[str, Kind] = {
    "error": "failed",
    "network_error": "failed",
    "insufficient_system_resource": "failed",
    "content_filter": "filter",
    "sensitive": "filter",
    "safety": "filter",
    "model_context_window_exceeded": "context",
}


def _text(content: Any) -> str:
    """The text of a message's content: a string, or a list of parts of which some are texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = [one for one in content if isinstance(one, dict) and one.get("type") == "text"]
    return "".join(str(one.get("text") or "") for one in parts)


def _usage(counts: Any) -> Usage | None:
    if not isinstance(counts, dict):
        return None
    prompt, generated = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
    total = _count(counts.get("total_tokens"))
    if total is not None and prompt is not None:
        # Gemini counts reasoning, which is paid for, in the total alone.
        generated = max(generated or 0, total - prompt)
    details = counts.get("prompt_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(prompt=prompt, cached=min(cached or 0, prompt or 0), generated=generated)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first(choices: Any) -> dict[str, Any] | None:
    found = choices[0] if isinstance(choices, list) and choices else None
    return found if isinstance(found, dict) else None


def _not_json(status: int, headers: Mapping[str, str], text: str, now: float) -> Refusal:
    is_page = text.lstrip().startswith("<") or "html" in headers.get("content-type", "")
    if not is_page and status >= 400:
        error = refusals.Error(message=text, names=(), status=0, details={})
        return refusals.refusal(error, status, headers, now, None)
    if is_page:
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        message = f"a web page ({title[1].strip()!r})" if title else "a web page"
    elif text.lstrip().startswith(("{", "[")):
        message = f"JSON that is cut off: {refusals.shortened(text)}"
    else:
        message = f"a text that is not JSON: {refusals.shortened(text)}"
    wait_s = refusals.wait(headers, "", {}, now)
    kind: Kind = "page"
    if status == 429:
        kind = "busy"
    elif status == 408 or status >= 500 or message.startswith("JSON"):
        kind = "failed"
    return Refusal(kind=kind, status=status, message=message, wait_s=wait_s)
