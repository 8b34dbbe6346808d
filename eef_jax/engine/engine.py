"""The engine's public API: open sessions, load adapters, release the cache.

Every call may come from any thread; results are futures.
"""

from collections.abc import Sequence

from flax import nnx

from eef_jax.config.sections import EngineConfig
from eef_jax.engine.counters import Counters
from eef_jax.engine.programs import Programs
from eef_jax.engine.scheduler import Scheduler
from eef_jax.engine.session import Session, SessionLimits
from eef_jax.engine.worker import Adapter, Worker
from eef_jax.errors import ConfigError
from eef_jax.models.model import Model


class Engine:
    """Generates continuations of token ids with one model and any number of adapters.

    Example:
        >>> with Engine(model, stop_ids=[2]) as engine:
        ...     session = engine.open(prompt_ids)
        ...     result = session.generate(SamplingParams(temperature=0.7), key=(0, 1)).result()

    Args:
        model: decoder and weights; its trainable part becomes the adapter `base`.
        stop_ids: ids that end every generation.
        config: sizes of cache and dispatches; by default `EngineConfig()`.
        scheduler: over programs of the same model, in place of one made from `config`.

    Attributes:
        config: sizes, all resolved.
        base: the adapter that the model came with.
    """

    def __init__(
        self,
        model: Model,
        *,
        stop_ids: Sequence[int],
        config: EngineConfig | None = None,
        scheduler: Scheduler | None = None,
    ):
        if scheduler is None:
            scheduler = Scheduler(Programs(model, config or EngineConfig()))
        self._scheduler = scheduler
        self._programs = scheduler.programs
        self.config = self._programs.config
        self._limits = SessionLimits(
            vocab_size=self._programs.vocab_size,
            max_context=self.config.max_context,
            stop_ids=frozenset(int(i) for i in stop_ids),
        )
        self._worker = Worker(scheduler)
        self._programs.compile_all(self._programs.adapter_leaves(model.trainable))
        self.base = self.load_adapter(model.trainable)

    @property
    def counters(self) -> Counters:
        """What was done so far."""
        return self._scheduler.counters

    @property
    def compile_count(self) -> int:
        """Number of programs compiled so far; it stays the same after the start."""
        return self._programs.compile_count

    def load_adapter(self, trainable: nnx.State) -> Adapter:
        """Hold trained parameters in addition to those held already; nothing is compiled.

        Sessions of several adapters can be open at once; each dispatch serves one adapter.

        Raises:
            ConfigError: their structure, shapes or types differ from the model's own adapter.
        """
        return self._worker.load_adapter(self._programs.adapter_leaves(trainable))

    def unload_adapter(self, adapter: Adapter) -> None:
        """Drop an adapter and everything computed with it; unloading twice is fine.

        Its requests in flight are cancelled, and its sessions generate no more.

        Raises:
            ConfigError: it is another engine's.
        """
        self._check_own(adapter)
        self._worker.unload_adapter(adapter)

    def open(self, ids: Sequence[int] = (), *, adapter: Adapter | None = None) -> Session:
        """Open a session with these tokens.

        Args:
            ids: the prompt.
            adapter: generates in this session; by default `base`.

        Raises:
            ConfigError: the model does not have one of the ids, or the adapter is another engine's.
        """
        adapter = adapter or self.base
        self._check_own(adapter)
        return Session(adapter, ids, limits=self._limits)

    def release_cache(self) -> None:
        """Free the KV cache's memory until the next request; its contents are computed again.

        Raises:
            RuntimeError: while requests are in flight, after `close`, or in a future's callback,
                for which the engine waits.
        """
        self._worker.release_cache()

    def close(self, *, wait: bool = True) -> None:
        """Accept no more requests and end the thread; closing twice is fine.

        Args:
            wait: finish the requests in flight first; otherwise they are cancelled.
        """
        self._worker.close(wait=wait)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(wait=exception[0] is None)

    def _check_own(self, adapter: Adapter) -> None:
        if adapter.worker is not self._worker:
            raise ConfigError("the adapter is another engine's: load it into this one, too")
