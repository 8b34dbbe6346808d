"""What a chat-completions server's response comes down to: an answer, or a refusal."""

import dataclasses
from typing import Literal

# What a refusal means for the request:
#   context       the conversation does not fit the model
#   busy          come again later: a rate limit, or a model that is still loading
#   failed        the server or the connection failed; the same request may work
#   key, credit   the key is not accepted; the account has nothing left
#   model         there is no such model or address
#   filter        a content filter took the request or the answer
#   page          a web page, or anything else that is no chat completion
#   request       anything else that is wrong with the request, such as a field it does not take
Kind = Literal["context", "busy", "failed", "key", "credit", "model", "filter", "page", "request"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens that a server counted; None where it did not.

    Attributes:
        prompt: tokens of the conversation.
        cached: those of them that the server had cached.
        generated: tokens generated, reasoning included.
    """

    prompt: int | None = None
    cached: int = 0
    generated: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completed request.

    Attributes:
        text: the message; "" where there is none (reasoning or tool calls alone).
        finish: the server's finish reason.
        usage: tokens to pay for.
        instead: what stands there in place of a text, in words.
    """

    text: str
    finish: str
    usage: Usage
    instead: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that was not completed.

    Attributes:
        kind: what it means.
        status: the HTTP status, or the code that stands inside an answer with status 200; 0: there
            was no response.
        message: the server's words.
        wait_s: seconds after which the server wants to be asked again; None: it did not say.
        usage: tokens to pay for nevertheless; None: none.
    """

    kind: Kind
    status: int
    message: str
    wait_s: float | None = None
    usage: Usage | None = None
