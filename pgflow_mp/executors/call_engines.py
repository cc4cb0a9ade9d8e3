"""What FuturesExecutor asks of whatever runs chunks: somewhere to call a function, and what became of it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from concurrent.futures import Executor as Pool
from enum import Enum, auto
from typing import Any, Literal, TypeVar

from pgflow_mp.errors import ConfigError
from pgflow_mp.executors.pool_use import PoolUse
from pgflow_mp.executors.protocol import Abilities

T = TypeVar("T")

Say = Callable[[Literal["info", "warn"], str], None]
"""Tells people something. From any thread."""


class CallFault(Enum):
    """Why a call has ended without an answer."""

    PLACE = auto()
    """The process where it ran is gone, or whatever else nobody can tell: it may be to blame."""
    HOST = auto()
    """More than that is gone, such as the machine: it is not to blame."""
    ENGINE = auto()
    """Nothing runs there any more, until the engine is renewed."""
    CODE = auto()
    """The code is not there."""
    WITHDRAWN = auto()
    """It was taken back."""


class CallEngine(ABC):
    """Calls functions in its places. Threads: the executor's, but for what says otherwise.

    ``abilities``: what the executor can do with it. ``isolates``: a process that dies takes one call with it
    and not its neighbours'. ``far``: it may be on other machines, with other code. ``cancels``: what has not
    begun can be taken back by ``Future.cancel()``, and only that. ``repeats``: of itself it runs again what a
    process that died was running, a few times, before that is an error.
    """

    name: str
    abilities: Abilities = Abilities()
    isolates = False
    far = False
    cancels = True
    repeats = False
    leave: float | None = None
    """Seconds after which a process that has given up an item leaves by itself; None: ``replace`` ends it."""
    generation = 0
    """How often it was renewed."""

    def open(self, say: Say, patience: float) -> None:  # noqa: B027 - nothing, for most
        """Get ready, within ``patience`` seconds. Raises PgflowError."""

    @property
    @abstractmethod
    def places(self) -> int:
        """Calls that it runs at once, now; 0 if there is nobody at the moment."""

    @abstractmethod
    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]:
        """Have the function, which is imported there, called. From any thread."""

    @abstractmethod
    def fault(self, error: BaseException) -> CallFault:
        """Why a call ended by this error, or could not be made. From any thread."""

    def renew(self, generation: int) -> bool:
        """Replace what is broken, if it still is that of this generation; whether it works again.

        From any thread. Raises whatever making another one raises.
        """
        return False

    def tell_all(self, function: Callable[..., object], /, *args: Any) -> None:  # noqa: B027 - nothing, for most
        """Have the function called in all processes soon, besides what they run; where that can be done."""

    def end(self, future: Future[Any], setup: bytes, seq: int) -> None:  # noqa: B027 - nothing, for most
        """End a call of chunk ``seq`` that runs: nobody wants it. Where ``abilities.kill``."""

    def replace(self, address: str) -> None:  # noqa: B027 - nothing, for most
        """End the process at this address, which runs what was given up. From any thread."""

    def trouble(self) -> str:
        """Why it is lost for good; empty where it is not. Called now and then."""
        return ""

    def close(self) -> None:  # noqa: B027 - nothing, for most
        """It is not needed any more; what it runs is of no interest. Quick."""


class InlinePool(Pool):
    """Runs what is submitted at once, in the calling thread."""

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        """Run ``fn`` and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as the futures of the standard library do
            future.set_exception(error)
        return future


class PoolEngine(CallEngine):
    """A ``concurrent.futures.Executor``, of ``places`` workers. ``again`` makes another one."""

    def __init__(
        self, pool: Pool, places: int, *, again: Callable[[], Pool] | None = None, name: str | None = None
    ) -> None:
        if places < 1:
            raise ConfigError(f"An executor needs at least one lane, not {places}")
        self.name = name or type(pool).__name__
        self._use = PoolUse(pool)
        self._places = places
        self._again = again
        self._over = False
        self._lock = threading.Lock()

    @property
    def places(self) -> int:
        return self._places

    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]:
        return self._use.submit(function, *args)

    def fault(self, error: BaseException) -> CallFault:
        if isinstance(error, CancelledError):
            return CallFault.WITHDRAWN
        return CallFault.ENGINE if isinstance(error, BrokenExecutor | RuntimeError) else CallFault.PLACE

    def renew(self, generation: int) -> bool:
        with self._lock:
            if self._over or self.generation != generation:
                return not self._over
            self._use.end(ours=self._again is not None, wanted=True)
            if self._again is None:
                return False
            self._use = PoolUse(self._again())
            self.generation += 1
        return True

    def close(self) -> None:
        with self._lock:
            self._over = True
            self._use.end(ours=self._again is not None)
