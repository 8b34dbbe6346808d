"""What a server's error means, and when the server wants to be asked again."""

import dataclasses
import email.utils
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from eef_jax.policies.openai.replies import Kind, Refusal, Usage


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """An error as the body of a response gives it.

    Attributes:
        message: its words.
        names: its codes and types, lower-case.
        status: its code where that is an HTTP status, else 0.
        details: the whole of it, where delays may stand.
    """

    message: str
    names: tuple[str, ...]
    status: int
    details: Mapping[str, Any]


def find_error(body: dict[str, Any], choice: dict[str, Any] | None, status: int) -> Error | None:
    """The error in a body; None if it has none."""
    found = body.get("error") or (choice or {}).get("error")
    if not found:
        if status < 400 and body.get("object") != "error":
            return None
        found = body  # servers whose errors have no envelope
    if not isinstance(found, dict):  # TGI: a text, its type beside it
        found = {"message": str(found), "type": body.get("error_type")}
    names = [found.get(key) for key in ("code", "type", "status", "error_type")]
    message = found.get("message") or found.get("detail") or found
    # OpenRouter: the words of the provider behind it.
    metadata = found.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    words = [one if isinstance(one, str) else json.dumps(one) for one in (message, raw) if one]
    statuses = [int(str(name)) for name in names if re.fullmatch(r"[45]\d\d", str(name))]
    return Error(
        message=": ".join(words),
        names=tuple(str(name).lower() for name in names if name),
        status=statuses[0] if statuses else 0,
        details=found,
    )


_FULL_CONTEXT = re.compile(
    r"""
    context[ _](length|window|limit|size) | exceed_context_size | context\ shift\ is\ disabled
    | maximum\ model\ length | max_model_len | model\ token\ limit
    | (prompt|input|request|messages?|conversation)\ (is|are)\ too\ (long|large\ to\ process)
    | `?inputs`?\ (tokens\ \+|must\ have\ less\ than)
    | input\ token(s|\ count)\b.{0,40}\bexceed | input\ length\b.{0,40}\bexceed
    | prompt\ length | maximum\ number\ of\ tokens\ allowed
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_NO_CREDIT = re.compile(
    "insufficient[_ ](credits|balance)|billing|credit balance|exceeded your current quota",
    re.IGNORECASE,
)
_FILTERED = re.compile(
    "content[_ ](filter|policy|management policy)|content filtering|responsibleai"
    "|requires moderation|flagged",
    re.IGNORECASE,
)
_BAD_KEY = re.compile("api[_ ]key not valid|invalid[_ ]api[_ ]key|authentication", re.IGNORECASE)
_LOADING = re.compile("loading model|model is (currently )?loading", re.IGNORECASE)

_STATUS_OF_NAME = (
    ("rate_limit", 429),
    ("resource_exhausted", 429),
    ("overloaded", 503),
    ("unavailable", 503),
    ("timeout", 408),
    ("authentication", 401),
    ("permission", 403),
    ("not_found", 404),
    ("invalid", 400),
    ("badrequest", 400),
    ("validation", 400),
)


def refusal(
    error: Error, status: int, headers: Mapping[str, str], now: float, usage: Usage | None
) -> Refusal:
    """Say what an error means.

    Args:
        error: the error.
        status: the HTTP status.
        headers: by lower-case name.
        now: seconds since the epoch.
        usage: tokens that the response counts.
    """
    if status < 400:  # an error inside an answer: its own code, or what its name stands for
        status = error.status or _named_status(error.names)
    wait_s = wait(headers, error.message, error.details, now)
    kind = _kind(status, error, wait_s)
    message = shortened(error.message)
    return Refusal(kind=kind, status=status, message=message, wait_s=wait_s, usage=usage)


def _named_status(names: tuple[str, ...]) -> int:
    found = (status for part, status in _STATUS_OF_NAME for name in names if part in name)
    return next(found, 500)


def _kind(status: int, error: Error, wait_s: float | None) -> Kind:
    """What an error means; its words come first, since servers use any status with them."""
    words = " ".join((*error.names, error.message))
    if _FULL_CONTEXT.search(words) and status != 429:
        return "context"
    if status == 402 or "insufficient_quota" in error.names:
        return "credit"
    if status < 500 and _NO_CREDIT.search(words) and wait_s is None:
        return "credit"
    if status < 429 and _FILTERED.search(words):
        return "filter"
    if status in (401, 403) or (status == 400 and _BAD_KEY.search(words)):
        return "key"
    if status in (404, 405):
        return "model"
    if status == 429 or _LOADING.search(words) or (wait_s is not None and status >= 500):
        return "busy"
    return "failed" if status in (408, 409, 425) or status >= 500 else "request"


_UNIT = "milliseconds?|ms|minutes?|min|m|seconds?|sec|s|hours?|h|days?|d"
_COME_AGAIN = re.compile(
    rf"(?:try again|retry|wait)\s+(?:in\s+|after\s+|for\s+)?((?:\d+(?:\.\d+)?\s*(?:{_UNIT})\s*)+)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|milli|s|m|h|d)", re.IGNORECASE)
_SECONDS = {"ms": 1e-3, "milli": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def wait(
    headers: Mapping[str, str], message: str, details: Mapping[str, Any], now: float
) -> float | None:
    """Seconds after which the server wants to be asked again; None if it does not say."""
    found = [*_header_waits(headers, now), *_body_waits(details, now)]
    if said := _COME_AGAIN.search(message):
        found.append(_seconds(said[1]))
    return max(found[0], 0.0) if found else None


def _header_waits(headers: Mapping[str, str], now: float) -> Iterator[float]:
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            yield float(text) * unit
        elif text:
            try:
                yield email.utils.parsedate_to_datetime(text).timestamp() - now
            except ValueError:
                continue


def _body_waits(details: Mapping[str, Any], now: float) -> Iterator[float]:
    """Google's RetryInfo, and the time that OpenRouter's limits are reset."""
    rows = details.get("details")
    for row in rows if isinstance(rows, list) else ():
        delay = row.get("retryDelay") if isinstance(row, dict) else None
        if delay and _PART.search(str(delay)):
            yield _seconds(str(delay))
    metadata = details.get("metadata")
    sent = metadata.get("headers") if isinstance(metadata, dict) else None
    reset = str(sent.get("X-RateLimit-Reset", "")) if isinstance(sent, dict) else ""
    if reset.isdigit():
        yield int(reset) / 1000 - now


def _seconds(duration: str) -> float:
    """The length of `1m26.4s`, `20 seconds` or `300ms`."""
    parts = _PART.findall(duration)
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)


def shortened(text: str, most: int = 500) -> str:
    """The first characters of a text."""
    return text if len(text) <= most else text[:most] + " ..."
