"""The policy over our own engine: conversations in, messages out, batched by whoever waits.

An episode is a session of the engine: each turn only appends to it, so nothing is computed twice
and episodes never wait for each other's turns. Knows chats and the engine; knows no environments
and no files.
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
from eef_jax.types import ChatRequest, Completion


class LocalPolicy:
    """A decoder in this process.

    A conversation's answers depend on the weights, the seed and the request alone, never on what
    else is being played. Several policies, of several adapters, may use one engine at a time.

    Args:
        engine: samples ids.
        chat: turns conversations into ids and back.
        sampling: how to draw.
        seed: of all draws; give another one to each round.
        name: the agent's name in trajectories.
        adapter: which of the engine's adapters speaks; by default the one its model came with.
        stop: texts that end an answer; the first of them and what follows is cut off its text.
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
    ):
        self.name = name
        self.tokenizer = chat.fingerprint
        self.concurrency = engine.config.max_num_seqs
        self._engine = engine
        self._chat = chat
        self._stop = tuple(stop)
        self._sampling = dataclasses.replace(sampling, stop_fn=_said(chat, self._stop))
        self._seed = seed
        self._adapter = adapter or engine.base
        self._before = engine.counters.totals()
        self._sessions: dict[str, Session] = {}
        self._closing = False

    async def act(self, request: ChatRequest) -> Completion:
        """Answer a conversation (see `policies.base.Policy`)."""
        if self._closing:
            raise PolicyError(f"policy {self.name!r} is closed; make another one")
        prompt = tuple(self._chat.prompt(request.messages, request.tokens).tolist())
        try:
            session = self._session(request.episode, prompt)
            answer = session.generate(self._sampling, _key(self._seed, request))
            generated = await asyncio.wrap_future(answer)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise PolicyError(f"policy {self.name!r}: the engine cancelled the answer") from error
        except Exception as error:
            reason = f"policy {self.name!r}: {type(error).__name__}: {error}"
            raise PolicyError(reason) from error
        said = generated.ids[:-1] if generated.finish == "stop" else generated.ids
        return Completion(
            text=_cut(self._chat.decode(said), self._stop),
            tokens=generated.ids,
            logprobs=generated.logprobs,
            finish="stop" if generated.finish == "text" else generated.finish,
            prompt_tokens=len(prompt),
            prefilled=generated.prefilled,
        )

    def finish(self, episode: str) -> None:
        """Close the episode's session."""
        session = self._sessions.pop(episode, None)
        if session is not None:
            session.close()

    def spent(self) -> dict[str, float]:
        """What the engine has done since this policy was made (all its policies together)."""
        now = self._engine.counters.totals()
        return {name: count - self._before[name] for name, count in now.items()}

    async def close(self) -> None:
        """Close all sessions; the engine itself stays usable."""
        self._closing = True
        for episode in tuple(self._sessions):
            self.finish(episode)

    def _session(self, episode: str, prompt: tuple[int, ...]) -> Session:
        """The episode's session, brought up to a prompt; another one if it went another way."""
        session = self._sessions.get(episode)
        if session is not None and prompt[: len(session.ids)] == session.ids:
            session.append(prompt[len(session.ids) :])
            return session
        self.finish(episode)
        self._sessions[episode] = self._engine.open(prompt, adapter=self._adapter)
        return self._sessions[episode]


def _said(chat: ChatTokenizer, texts: Sequence[str]) -> Callable[[Sequence[int]], bool] | None:
    """Whether ids say one of some texts; None if there are none to be said."""
    if not texts:
        return None
    return lambda ids: any(text in chat.decode(ids) for text in texts)


def _cut(text: str, stops: Sequence[str]) -> str:
    """What stands before the first of the stop texts."""
    ends = [text.index(stop) for stop in stops if stop in text]
    return text[: min(ends)] if ends else text


def _key(seed: int, request: ChatRequest) -> tuple[int, int]:
    """Two 32-bit words from the seed and the place of the turn: nothing of the batch."""
    place = repr((seed, request.task, request.attempt, request.turn)).encode()
    digest = hashlib.blake2b(place, digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
