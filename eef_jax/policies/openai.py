"""The policy over an OpenAI-compatible chat server: vLLM, SGLang, a hosted expert.

It limits the request rate, retries transient errors (lost connections, 408, 409, 429 and 5xx, after
the delay that the server asks for), counts the costs and stops at a budget. Without a tokenizer its
completions carry no ids.
"""

import asyncio
import concurrent.futures
import dataclasses
import hashlib
import os
import threading
import time
from typing import Any

from eef_jax.errors import ConfigError, PolicyError
from eef_jax.types import ChatRequest, Completion, FinishReason

try:
    import openai
except ImportError as error:
    raise ConfigError(
        "eef_jax.policies.openai needs the package openai, which is not installed: "
        "pip install -e '.[openai]'"
    ) from error

_MILLION = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A served model, with its limits and prices.

    Attributes:
        model: the model's name on the server.
        base_url: address up to `/v1`; "": OpenAI's own.
        key_variable: environment variable that holds the API key, so that configs contain none.
        timeout_s: seconds until a request without a response is retried.
        retries: number of retries of a failed request.
        concurrency: requests in flight at once, one thread each.
        requests_per_minute: requests are spaced to this rate; 0: no limit.
        input_price: dollars for a million prompt tokens.
        cached_price: dollars for a million prompt tokens that the server had cached.
        output_price: dollars for a million generated tokens.
        budget: dollars after which no request is sent (those in flight still count); 0: no limit.
    """

    model: str
    base_url: str
    key_variable: str
    timeout_s: float
    retries: int
    concurrency: int
    requests_per_minute: float
    input_price: float
    cached_price: float
    output_price: float
    budget: float

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("model='' of a served policy: name the model as the server does")
        if self.timeout_s <= 0 or self.concurrency < 1:
            raise ConfigError(
                f"timeout_s={self.timeout_s}, concurrency={self.concurrency}: expected more than 0"
            )
        if self.retries < 0 or self.requests_per_minute < 0:
            raise ConfigError(
                f"retries={self.retries}, requests_per_minute={self.requests_per_minute}: expected "
                "numbers from 0"
            )
        if min(self.input_price, self.cached_price, self.output_price, self.budget) < 0:
            raise ConfigError(f"{self}: prices and budget are dollars, so none is below 0")
        if self.budget and not (self.input_price or self.output_price):
            raise ConfigError(
                f"budget={self.budget} without input_price and output_price is never reached: say "
                "what a million tokens cost"
            )

    def key(self) -> str:
        """Return the API key from the environment; self-hosted servers often need none.

        Raises:
            ConfigError: there is no key for OpenAI's own server.
        """
        key = os.environ.get(self.key_variable, "")
        if not key and not self.base_url:
            raise ConfigError(
                f"the environment variable {self.key_variable} holds no key for OpenAI's server: "
                "set it, or name another server by base_url"
            )
        return key or "none"


class OpenAIPolicy:
    """A model behind a chat-completions endpoint (see `policies.base.Policy`).

    Args:
        server: the served model.
        temperature: of sampling; 0: greedy.
        top_p: probability mass to sample from, in (0, 1].
        max_new_tokens: cap on the generated tokens of one message.
        stop: texts that end a message; they are not part of it.
        seed: sent with each request, mixed with its place in the run, for servers that use it;
            None: not sent, since some servers refuse it.
        name: the agent's name in trajectories; "": the model's name.

    Raises:
        ConfigError: there is no key.
    """

    tokenizer = ""

    def __init__(
        self,
        server: Server,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_new_tokens: int = 512,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
        name: str = "",
    ):
        self.name = name or server.model
        self.concurrency = server.concurrency
        self._server = server
        self._seed = seed
        self._sampling = {
            "temperature": temperature,
            "top_p": top_p,
            "max_tokens": max_new_tokens,
            **({"stop": list(stop)} if stop else {}),
        }
        # Not the library's asynchronous client: its connections end with the event loop that opened
        # them, and each call of the rollout loop runs its own event loop.
        self._client = openai.OpenAI(
            api_key=server.key(),
            base_url=server.base_url or None,
            timeout=server.timeout_s,
            max_retries=server.retries,
        )
        self._threads = concurrent.futures.ThreadPoolExecutor(server.concurrency, "eef-openai")
        self._next = 0.0  # earliest time of the next request, on the monotonic clock
        self._spent = {"requests": 0, "retries": 0, "prompt": 0, "cached": 0, "generated": 0}
        self._lock = threading.Lock()

    @property
    def dollars(self) -> float:
        """Cost of all completions so far, by the server's token counts."""
        server, spent = self._server, self._spent
        fresh = spent["prompt"] - spent["cached"]
        price = fresh * server.input_price + spent["cached"] * server.cached_price
        return (price + spent["generated"] * server.output_price) / _MILLION

    def spent(self) -> dict[str, float]:
        """Return the requests, retries, tokens by kind, and dollars since it was made."""
        return {**self._spent, "dollars": round(self.dollars, 6)}

    async def act(self, request: ChatRequest) -> Completion:
        """Return the next assistant message.

        Raises:
            PolicyError: the budget is spent, or the server did not complete the request.
        """
        self._check_budget()
        await self._wait_for_rate()
        loop = asyncio.get_running_loop()
        try:
            raw = await loop.run_in_executor(self._threads, self._send, request)
            response = raw.parse()
        except openai.APIError as error:
            if _too_long(error):
                return Completion(text="", finish="context")
            raise PolicyError(self._explain(error)) from error
        self._spent["retries"] += raw.retries_taken
        if not response.choices:
            raise PolicyError(
                f"policy {self.name!r}: {self._where} answered without choices: {response}"
            )
        choice, usage = response.choices[0], response.usage
        prompt = usage.prompt_tokens if usage else 0
        details = usage.prompt_tokens_details if usage else None
        cached = (details.cached_tokens if details else 0) or 0
        self._spent["prompt"] += prompt
        self._spent["cached"] += cached
        self._spent["generated"] += usage.completion_tokens if usage else 0
        finish: FinishReason = "length" if choice.finish_reason == "length" else "stop"
        return Completion(
            text=choice.message.content or "",
            finish=finish,
            prompt_tokens=prompt,
            prefilled=prompt - cached,
        )

    def finish(self, episode: str) -> None:
        """Do nothing: the server evicts its cache by itself."""

    async def close(self) -> None:
        """Wait for requests in flight and close the connections."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._client.close()

    def _send(self, request: ChatRequest) -> Any:
        self._check_budget()  # it may have waited for its turn while others spent
        with self._lock:
            self._spent["requests"] += 1
        body: dict[str, Any] = {"model": self._server.model, **self._sampling}
        body["messages"] = [{"role": m.role, "content": m.content} for m in request.messages]
        if self._seed is not None:
            body["seed"] = _mix(self._seed, request)
        return self._client.chat.completions.with_raw_response.create(**body)

    def _check_budget(self) -> None:
        if self._server.budget and self.dollars >= self._server.budget:
            raise PolicyError(
                f"policy {self.name!r} has spent {self.dollars:.2f} of {self._server.budget:.2f} "
                "dollars: raise the budget to go on"
            )

    @property
    def _where(self) -> str:
        return self._server.base_url or "OpenAI's server"

    async def _wait_for_rate(self) -> None:
        """Wait until the rate limit allows one more request."""
        if not self._server.requests_per_minute:
            return
        now = time.monotonic()
        scheduled = max(now, self._next)
        self._next = scheduled + 60.0 / self._server.requests_per_minute
        await asyncio.sleep(scheduled - now)

    def _explain(self, error: openai.APIError) -> str:
        prefix = f"policy {self.name!r}: {self._where} "
        match error:
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return f"{prefix}refuses the key in ${self._server.key_variable}: {error.message}"
            case openai.NotFoundError():
                return (
                    f"{prefix}has no model {self._server.model!r}, or the address is wrong: "
                    f"{error.message}"
                )
            case openai.APITimeoutError():
                return (
                    f"{prefix}did not respond within {self._server.timeout_s:g} s, asked "
                    f"{self._server.retries + 1} times: raise timeout_s or lower concurrency"
                )
            case openai.APIConnectionError():
                return (
                    f"{prefix}cannot be reached ({error.__cause__ or error.message}), tried "
                    f"{self._server.retries + 1} times: is base_url right, and the server up?"
                )
        status = getattr(error, "status_code", "an error")
        return f"{prefix}answered {status}, asked up to {self._server.retries + 1} times: {error}"


def _too_long(error: openai.APIError) -> bool:
    """Whether the server says that a conversation does not fit the model's context."""
    if not isinstance(error, openai.BadRequestError):
        return False
    return error.code == "context_length_exceeded" or "context length" in error.message.lower()


def _mix(seed: int, request: ChatRequest) -> int:
    """31 bits from the seed and the place of the turn, independent of the batch."""
    place = repr((seed, request.task, request.attempt, request.turn)).encode()
    return int.from_bytes(hashlib.blake2b(place, digest_size=4).digest(), "big") >> 1
