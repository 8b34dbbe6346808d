"""A served model: where it is, its limits and its prices."""

import dataclasses
import os
import threading

from eef_jax.errors import ConfigError
from eef_jax.policies.openai.replies import Usage

_MILLION = 1_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A served model, with its limits and prices.

    Attributes:
        model: the model's name on the server.
        base_url: address up to `/v1`; "": OpenAI's own.
        key_variable: environment variable that holds the API key, so that configs contain none.
        timeout_s: seconds until a request without a response is retried.
        retries: number of retries of a failed request; waits for a rate limit are not among them.
        max_wait_s: seconds that one message may wait for rate limits.
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
    max_wait_s: float
    concurrency: int
    requests_per_minute: float
    input_price: float
    cached_price: float
    output_price: float
    budget: float

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(
                "no model is named for the served policy: set config.expert.model to the name that "
                "the server has for it"
            )
        if self.timeout_s <= 0 or self.concurrency < 1:
            raise ConfigError(
                f"timeout_s={self.timeout_s}, concurrency={self.concurrency}: expected more than 0"
            )
        if min(self.retries, self.max_wait_s, self.requests_per_minute) < 0:
            raise ConfigError(
                f"retries={self.retries}, max_wait_s={self.max_wait_s}, "
                f"requests_per_minute={self.requests_per_minute}: expected numbers from 0"
            )
        if min(self.input_price, self.cached_price, self.output_price, self.budget) < 0:
            raise ConfigError(f"{self}: prices and budget are dollars, so none is below 0")
        if self.budget and not (self.input_price or self.output_price):
            raise ConfigError(
                f"budget={self.budget} without input_price and output_price is never reached: say "
                "what a million tokens cost"
            )

    @property
    def where(self) -> str:
        """The address, in words for messages."""
        return self.base_url or "OpenAI's server"

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


class Bill:
    """What has been asked of a server so far, and what it cost."""

    def __init__(self, server: Server):
        self._server = server
        counted = ("requests", "retries", "estimated", "prompt", "cached", "generated")
        self._counts = dict.fromkeys(counted, 0)
        self._earlier = 0.0  # dollars of earlier starts
        self._lock = threading.Lock()  # requests are sent by threads

    def add_request(self, *, again: bool) -> None:
        """Count a request that is sent, or sent again."""
        with self._lock:
            self._counts["retries" if again else "requests"] += 1

    def add_usage(self, usage: Usage, *, sent: str, received: str) -> Usage:
        """Count the tokens of a response; returns the usage with estimates for what is missing.

        Args:
            usage: the server's counts.
            sent: the conversation.
            received: the message.
        """
        prompt = _estimate(sent) if usage.prompt is None else usage.prompt
        generated = _estimate(received) if usage.generated is None else usage.generated
        with self._lock:
            self._counts["estimated"] += usage.prompt is None or usage.generated is None
            self._counts["prompt"] += prompt
            self._counts["cached"] += usage.cached
            self._counts["generated"] += generated
        return Usage(prompt=prompt, cached=usage.cached, generated=generated)

    def charge(self, dollars: float) -> None:
        """Count dollars that an earlier start has spent."""
        self._earlier += dollars

    @property
    def charged(self) -> float:
        """Dollars that the budget has paid for: of all responses so far, and of earlier starts."""
        return self._earlier + self.dollars

    @property
    def dollars(self) -> float:
        """Cost of all responses so far."""
        server, spent = self._server, self._counts
        fresh = spent["prompt"] - spent["cached"]
        price = fresh * server.input_price + spent["cached"] * server.cached_price
        return (price + spent["generated"] * server.output_price) / _MILLION

    @property
    def is_spent(self) -> bool:
        """Whether the budget is used up."""
        return bool(self._server.budget) and self.charged >= self._server.budget

    def counts(self) -> dict[str, float]:
        """Requests, retries, responses with estimated tokens, tokens by kind, and dollars."""
        return {**self._counts, "dollars": round(self.dollars, 6)}


def _estimate(text: str) -> int:
    """Tokens of a text, by the rule of thumb that four bytes of UTF-8 are one."""
    return -(-len(text.encode("utf-8", "replace")) // 4)
