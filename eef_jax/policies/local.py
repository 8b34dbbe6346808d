"""The policy over the rollout engine in this process, with continuous batching over episodes.

An episode is a session of the engine: each turn only appends to it, so nothing is computed twice,
and no episode waits for another one's turn.
"""

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable, Sequence

from eef_jax.engine.engine import Engine
from eef_jax.engine.sampling import SamplingParams
from eef_jax.engine.session import Session
from eef_jax.engine.worker import Adapter
from eef_jax.errors import PolicyError
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import ChatRequest, Completion, mark_messages


class LocalPolicy:
    """A decoder in this process.

    Messages depend on the weights, the seed and the request only, not on the other episodes of the
    batch. Several policies, with different adapters, can use one engine at a time.

    Args:
        engine: generates the ids.
        chat: renders conversations to ids and decodes ids.
        sampling: sampling parameters.
        seed: of all sampling; should differ between rounds.
        name: the agent's name in trajectories.
        adapter: the engine's adapter to generate with; by default the model's own.
        stop: texts that end a message; the text is cut before the first of them.
        mark: what precedes every conversation (`types.mark_messages`).
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatTokenizer,
        *,
        sampling: SamplingParams,
        seed: int,
        name: str,
        adapter: Adapter | None = None,
        stop: Sequence[str] = (),
        mark: str = "",
    ):
        self.name = name
        self.tokenizer = chat.fingerprint
        self.concurrency = engine.config.max_num_seqs
        self._engine = engine
        self._chat = chat
        self._stop = tuple(stop)
        self._sampling = dataclasses.replace(sampling, stop_fn=_contains_any(chat, self._stop))
        self._seed = seed
        self._mark = mark
        self._adapter = adapter or engine.base
        self._before = engine.counters.totals()
        self._sessions: dict[str, Session] = {}
        self._closing = False

    async def act(self, request: ChatRequest) -> Completion:
        """Return the next assistant message.

        Raises:
            PolicyError: the policy is closed, or the engine failed or cancelled the request.
        """
        if self._closing:
            raise PolicyError(f"policy {self.name!r} is closed; make another one")
        messages = mark_messages(request.messages, self._mark)
        prompt = tuple(self._chat.prompt(messages, request.tokens).tolist())
        try:
            session = self._session(request.episode, prompt)
            future = session.generate(self._sampling, _key(self._seed, request))
            result = await asyncio.wrap_future(future)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise PolicyError(f"policy {self.name!r}: the engine cancelled the request") from error
        except Exception as error:
            reason = f"policy {self.name!r}: {type(error).__name__}: {error}"
            raise PolicyError(reason) from error
        content = result.ids[:-1] if result.finish == "stop" else result.ids
        return Completion(
            text=_cut(self._chat.decode(content), self._stop),
            tokens=result.ids,
            logprobs=result.logprobs,
            finish="stop" if result.finish == "text" else result.finish,
            prompt_tokens=len(prompt),
            prefilled=result.prefilled,
        )

    def finish(self, episode: str) -> None:
        """Close the episode's session."""
        session = self._sessions.pop(episode, None)
        if session is not None:
            session.close()

    def spent(self) -> dict[str, float]:
        """Return the engine's counts since this policy was made, of all its policies together."""
        now = self._engine.counters.totals()
        return {name: count - self._before[name] for name, count in now.items()}

    async def close(self) -> None:
        """Close all sessions; the engine stays usable."""
        self._closing = True
        for episode in tuple(self._sessions):
            self.finish(episode)

    def _session(self, episode: str, prompt: tuple[int, ...]) -> Session:
        """The episode's session extended to a prompt; a new one if it is not a prefix of it."""
        session = self._sessions.get(episode)
        if session is not None and prompt[: len(session.ids)] == session.ids:
            session.append(prompt[len(session.ids) :])
            return session
        self.finish(episode)
        self._sessions[episode] = self._engine.open(prompt, adapter=self._adapter)
        return self._sessions[episode]


def _contains_any(
    chat: ChatTokenizer, texts: Sequence[str]
) -> Callable[[Sequence[int]], bool] | None:
    """A predicate: whether the text of ids contains any of `texts`; None without texts."""
    if not texts:
        return None
    return lambda ids: any(text in chat.decode(ids) for text in texts)


def _cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop texts."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _key(seed: int, request: ChatRequest) -> tuple[int, int]:
    """Two 32-bit words from the seed and the place of the turn, independent of the batch."""
    place = repr((seed, request.task, request.attempt, request.turn)).encode()
    digest = hashlib.blake2b(place, digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
