"""The policy over our own engine: conversations in, messages out, batched by whoever waits.

One thread drives the engine; each `act` hands it a prompt and awaits the answer, so episodes never
wait for each other's turns. Knows chats and the engine; knows no environments and no files.
"""

import asyncio
import collections
import contextlib
import hashlib
import threading
from collections.abc import Callable

from eef_jax.engine.sampling import Sampling
from eef_jax.engine.scheduler import Engine, Generated
from eef_jax.errors import PolicyError
from eef_jax.text.chat import ChatTokenizer
from eef_jax.types import Completion, Request


class LocalPolicy:
    """A decoder in this process.

    A conversation's answers depend on the weights, the seed and the request alone, never on what
    else is being played. Two policies may take turns on one engine, never use it at the same time.

    Args:
        engine: samples ids; its weights may be changed between episodes.
        chat: turns conversations into ids and back.
        sampling: how to draw.
        seed: of all draws; give another one to each round.
        name: the agent's name in trajectories.
    """

    def __init__(
        self,
        engine: Engine,
        chat: ChatTokenizer,
        *,
        sampling: Sampling,
        seed: int,
        name: str,
    ):
        self.name = name
        self.tokenizer = chat.fingerprint
        self._engine = engine
        self._chat = chat
        self._sampling = sampling
        self._seed = seed
        self._before = engine.counters.tokens()
        self._sessions: set[str] = set()
        self._orders: collections.deque[Callable[[], None]] = collections.deque()
        self._wake = threading.Event()
        self._waiting: set[asyncio.Future[Generated]] = set()
        self._thread: threading.Thread | None = None
        self._closing = False

    async def act(self, request: Request) -> Completion:
        """Answer a conversation (see `policies.base.Policy`)."""
        if self._closing:
            raise PolicyError(f"policy {self.name!r} is closed; make another one")
        prompt = self._chat.prompt(request.messages, request.tokens)
        future: asyncio.Future[Generated] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        self._sessions.add(request.episode)

        def done(answer: Generated) -> None:
            _tell(future, _deliver, answer)

        def submit() -> None:
            self._engine.submit(
                request.episode,
                prompt,
                key=_key(self._seed, request),
                sampling=self._sampling,
                done=done,
            )

        self._order(submit)
        try:
            generated = await future
        finally:
            self._waiting.discard(future)
        said = generated.ids[:-1] if generated.finish == "stop" else generated.ids
        return Completion(
            text=self._chat.decode(said),
            tokens=generated.ids,
            logprobs=generated.logprobs,
            finish=generated.finish,
            prompt_tokens=len(prompt),
            prefilled=generated.prefilled,
        )

    def finish(self, episode: str) -> None:
        """Free the episode's slot in the cache."""
        if episode in self._sessions:
            self._sessions.discard(episode)
            self._order(lambda: self._engine.release(episode))

    def spent(self) -> dict[str, float]:
        """Tokens that were prefilled, copied and generated since this policy was made."""
        now = self._engine.counters.tokens()
        return {name: count - self._before[name] for name, count in now.items()}

    async def close(self) -> None:
        """End the thread and free all slots; the engine itself stays usable."""
        for episode in tuple(self._sessions):
            self.finish(episode)
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        if self._thread is None:
            self._thread = threading.Thread(target=self._drive, name="eef-engine", daemon=True)
            self._thread.start()
        self._wake.set()

    def _drive(self) -> None:
        """Run the engine while there is work; its failure fails those who wait, not the thread."""
        while True:
            worked = False
            try:
                while self._orders:
                    self._orders.popleft()()
                worked = self._engine.tick()
            except Exception as error:
                self._fail(error)
            if not worked and not self._orders:
                if self._closing:
                    return
                self._wake.wait()
                self._wake.clear()

    def _fail(self, error: Exception) -> None:
        for episode in tuple(self._sessions):
            self._engine.release(episode)
        for future in tuple(self._waiting):
            reason = PolicyError(f"policy {self.name!r}: {type(error).__name__}: {error}")
            _tell(future, _refuse, reason)


def _tell(future: asyncio.Future[Generated], how: Callable[..., None], what: object) -> None:
    """Settle a future from the engine's thread."""
    with contextlib.suppress(RuntimeError):  # its loop was closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(how, future, what)


def _deliver(future: asyncio.Future[Generated], answer: Generated) -> None:
    if not future.done():
        future.set_result(answer)


def _refuse(future: asyncio.Future[Generated], reason: PolicyError) -> None:
    if not future.done():
        future.set_exception(reason)


def _key(seed: int, request: Request) -> tuple[int, int]:
    """Two 32-bit words from the seed and the place of the turn: nothing of the batch."""
    place = repr((seed, request.task, request.attempt, request.turn)).encode()
    digest = hashlib.blake2b(place, digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")
