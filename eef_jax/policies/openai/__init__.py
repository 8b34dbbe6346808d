"""The policy over an OpenAI-compatible chat server: vLLM, SGLang, a hosted expert.

It limits the request rate, waits as long as a server asks it to, retries what may work the next
time (lost connections, 408, 409, 429 and 5xx, also where they stand inside an answer with status
200), counts the costs and stops at a budget. Without a tokenizer its completions carry no ids.

`reading` and `refusals` say what a server's response means, `server` has its terms and the costs,
`pace` the moments at which requests are sent, `explaining` what to do about a refusal.
"""

import asyncio
import concurrent.futures
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from eef_jax.errors import ConfigError, PolicyError
from eef_jax.policies.openai import reading
from eef_jax.policies.openai.explaining import explain
from eef_jax.policies.openai.pace import Attempt, Pace
from eef_jax.policies.openai.replies import Answer, Refusal, Usage
from eef_jax.policies.openai.server import Bill, Server
from eef_jax.types import ChatRequest, Completion, Message

try:
    import openai
except ImportError as error:
    raise ConfigError(
        "eef_jax.policies.openai needs the package openai, which is not installed: "
        "pip install -e '.[openai]' in the clone"
    ) from error

_log = logging.getLogger(__name__)

_NEWER_CAP = "max_completion_tokens"
_ANNOUNCED_S = 5.0  # waits from this length on are told


class OpenAIPolicy:
    """A model behind a chat-completions endpoint (see `policies.base.Policy`).

    Args:
        server: the served model.
        temperature: of sampling; 0: greedy. Like each of the sampling fields, None: not sent, for
            models that refuse it.
        top_p: probability mass to sample from, in (0, 1].
        max_new_tokens: cap on the generated tokens of one message, reasoning included.
        stop: texts that end a message and are not part of it; (): not sent.
        seed: sent with each request, mixed with its place in the run, for servers that use it.
        instructions: put in front of the first message, where a conversation does not say what is
            to be done in which form; "": nothing.
        name: the agent's name in trajectories; "": the model's name.
        pace: when requests are sent; None: as the server's terms say.

    Raises:
        ConfigError: there is no key.
    """

    tokenizer = ""

    def __init__(
        self,
        server: Server,
        *,
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int | None = None,
        stop: tuple[str, ...] = (),
        seed: int | None = None,
        instructions: str = "",
        name: str = "",
        pace: Pace | None = None,
    ):
        self.name = name or server.model
        self.concurrency = server.concurrency
        self._server = server
        self._seed = seed
        self._instructions = instructions
        self._sampling = {"temperature": temperature, "top_p": top_p, "stop": list(stop) or None}
        self._max_new_tokens = max_new_tokens
        # Servers know one name of the cap or both; OpenAI's reasoning models only the newer one.
        self._cap = "max_tokens" if server.base_url else _NEWER_CAP
        # Not the library's asynchronous client: its connections end with the event loop that opened
        # them, and each call of the rollout loop runs its own event loop.
        self._client = openai.OpenAI(
            api_key=server.key(),
            base_url=server.base_url or None,
            timeout=server.timeout_s,
            max_retries=0,  # its own retries ignore long waits and errors inside answers
        )
        self._threads = concurrent.futures.ThreadPoolExecutor(server.concurrency, "eef-openai")
        self._pace = pace or Pace(server.requests_per_minute)
        self._bill = Bill(server)

    @property
    def dollars(self) -> float:
        """Cost of all responses so far, by the server's token counts."""
        return self._bill.dollars

    def spent(self) -> dict[str, float]:
        """Return the requests, retries, tokens by kind, and dollars since it was made.

        `estimated` counts the responses whose tokens the server did not count: four bytes of text
        are then taken for one.
        """
        return self._bill.counts()

    def charge(self, spent: Mapping[str, float]) -> None:
        """Count the dollars of earlier starts against the budget."""
        self._bill.charge(spent.get("dollars", 0.0))

    async def act(self, request: ChatRequest) -> Completion:
        """Return the next assistant message.

        A conversation that is too long finishes with `context`. An answer without a text (reasoning
        or tool calls alone) is asked for once more, then finishes with `quit`: an empty message is
        neither recorded nor sent.

        Raises:
            PolicyError: the budget is spent, or the server did not complete the request.
        """
        attempt = Attempt(retries=self._server.retries, max_wait_s=self._server.max_wait_s)
        body = self._body(request)
        while True:
            reply = await self._ask(body, again=attempt.sent > 0)
            attempt.sent += 1
            if isinstance(reply, Answer):
                usage = self._count(reply.usage, body, reply.text)
                if reply.text:
                    return _completion(reply, usage)
                attempt.silent += 1
                if attempt.silent == 2:
                    return self._give_up(reply)
                if "seed" in body:
                    body["seed"] += 1  # the same draw would be as silent
                continue
            if reply.usage is not None:
                self._count(reply.usage, body, "")
            if reply.kind == "context":
                return Completion(text="", finish="context", reason=reply.message)
            if self._renames_cap(reply, body):
                body = self._body(request)
                continue
            await self._wait(reply, attempt)

    async def check(self) -> None:
        """Ask for one short message, to find out whether the server would answer.

        Raises:
            PolicyError: it would not, and why.
        """
        asked = Message(role="user", content="Answer with one word: are you there?")
        request = ChatRequest(
            episode="", messages=(asked,), tokens=((),), turn=0, attempt=0, task=""
        )
        completion = await self.act(request)
        if completion.finish == "context":
            raise PolicyError(
                f"policy {self.name!r}: {self._server.where} has no room for an answer of "
                f"max_new_tokens={self._max_new_tokens} tokens: {completion.reason}"
            )
        if completion.finish == "quit":
            raise PolicyError(completion.reason)

    def finish(self, episode: str) -> None:
        """Do nothing: the server evicts its cache by itself."""

    async def close(self) -> None:
        """Wait for requests in flight and close the connections."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)
        self._client.close()

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        """The request as JSON values; what is None is left out."""
        messages = [
            {"role": one.role, "content": _valid_unicode(one.content)} for one in request.messages
        ]
        if self._instructions:
            # Not a system message: the templates of several served models refuse one.
            messages[0]["content"] = f"{self._instructions}\n\n{messages[0]['content']}"
        seed = None if self._seed is None else _mix(self._seed, request)
        body = {**self._sampling, self._cap: self._max_new_tokens, "seed": seed}
        sent = {name: value for name, value in body.items() if value is not None}
        return {"model": self._server.model, "messages": messages, **sent}

    async def _ask(self, body: dict[str, Any], *, again: bool) -> Answer | Refusal:
        """Send a request when its turn has come, and read the response."""
        self._check_budget()
        await self._pace.turn()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._send, body, again)

    def _send(self, body: dict[str, Any], again: bool) -> Answer | Refusal:
        self._check_budget()  # it may have waited for its turn while others spent
        self._bill.add_request(again=again)
        try:
            raw = self._client.chat.completions.with_raw_response.create(**body)
            response = raw.http_response
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError:
            message = f"did not respond within {self._server.timeout_s:g} s"
            return Refusal(kind="failed", status=0, message=message)
        except openai.APIConnectionError as error:
            message = f"cannot be reached ({error.__cause__ or error.message})"
            return Refusal(kind="failed", status=0, message=message)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return reading.read(response.status_code, headers, response.text, now=time.time())

    def _count(self, usage: Usage, body: dict[str, Any], text: str) -> Usage:
        sent = "\n".join(message["content"] for message in body["messages"])
        return self._bill.add_usage(usage, sent=sent, received=text)

    def _renames_cap(self, refusal: Refusal, body: dict[str, Any]) -> bool:
        """Whether a server asks for the cap by its newer name; from now on it has that."""
        if "max_tokens" not in body or refusal.kind != "request":
            return False
        if not all(f"'{name}'" in refusal.message for name in ("max_tokens", _NEWER_CAP)):
            return False
        self._cap = _NEWER_CAP
        return True

    async def _wait(self, refusal: Refusal, attempt: Attempt) -> None:
        """Wait until a refused request may be sent again.

        Raises:
            PolicyError: it is not to be sent again.
        """
        if refusal.kind == "busy" and (seconds := attempt.busy_wait(refusal.wait_s)) is not None:
            if self._pace.pause(seconds) and seconds >= _ANNOUNCED_S:
                self._announce(refusal, seconds)
            return
        if refusal.kind == "failed" and (seconds := attempt.retry_wait()) is not None:
            await self._pace.back_off(seconds)
            return
        sampling = {**self._sampling, self._cap: self._max_new_tokens, "seed": self._seed}
        who = f"policy {self.name!r}"
        raise PolicyError(f"{who}: {explain(refusal, self._server, attempt, sampling)}")

    def _announce(self, refusal: Refusal, seconds: float) -> None:
        until = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))
        _log.warning(
            "policy %r: %s is busy (%d: %s): waiting %.0f s, until %s",
            self.name,
            self._server.where,
            refusal.status,
            refusal.message,
            seconds,
            until,
        )

    def _give_up(self, answer: Answer) -> Completion:
        reason = (
            f"policy {self.name!r}: {self._server.where} answered twice with {answer.instead} in "
            f"place of a message (finish reason {answer.finish!r})"
        )
        if answer.finish == "length":
            reason += (
                f": max_new_tokens={self._max_new_tokens} includes the reasoning; raise it, or "
                "leave it out by max_new_tokens=None"
            )
        _log.warning("%s; the episode counts as failed", reason)
        return Completion(text="", finish="quit", reason=reason)

    def _check_budget(self) -> None:
        if self._bill.is_spent:
            raise PolicyError(
                f"policy {self.name!r} has spent {self._bill.charged:.2f} of "
                f"{self._server.budget:.2f} dollars, all starts of the stage together: raise the "
                "budget to go on"
            )


def _completion(answer: Answer, usage: Usage) -> Completion:
    prompt = usage.prompt or 0
    return Completion(
        text=answer.text,
        finish="length" if answer.finish in ("length", "max_tokens") else "stop",
        prompt_tokens=prompt,
        prefilled=prompt - usage.cached,
    )


def _valid_unicode(text: str) -> str:
    """The text with U+FFFD in place of unpaired surrogates, which JSON in UTF-8 cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mix(seed: int, request: ChatRequest) -> int:
    """31 bits from the seed and the place of the turn, independent of the batch."""
    place = repr((seed, request.task, request.attempt, request.turn)).encode()
    return int.from_bytes(hashlib.blake2b(place, digest_size=4).digest(), "big") >> 1
