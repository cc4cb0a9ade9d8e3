"""Ray: chunks are tasks that need one CPU each. A process runs one at a time, and can be ended.

Threads: the executor's, and Ray's, where calls end.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from pgflow_mp.errors import ConfigError
from pgflow_mp.executors.call_engines import CallEngine, CallFault, Say
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.engines import packages
from pgflow_mp.executors.engines.polling import Poller
from pgflow_mp.executors.protocol import Abilities

T = TypeVar("T")

_CLOSE: Final = 0.5
_PATIENCE: Final = 15.0  # Ray itself ends the process that has lost its cluster, after a minute
_LEAVE: Final = 0.3
_LISTENERS: Final = 10_000
_listens_to: Final[set[str]] = set()


class Bell:
    """An actor that processes listen to for what all of them are to do."""

    def __init__(self) -> None:
        self._orders: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._rung = asyncio.Condition()

    async def ring(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Tell them to call this."""
        async with self._rung:
            self._orders.append((function, args))
            self._rung.notify_all()

    async def after(self, heard: int) -> list[tuple[Callable[..., object], tuple[Any, ...]]]:
        """Wait for orders beyond the first ``heard`` ones."""
        async with self._rung:
            await self._rung.wait_for(lambda: len(self._orders) > heard)
            return self._orders[heard:]


def _call(bell: Any, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    """On a worker: what is called there."""
    name = str(bell)
    if name not in _listens_to:
        _listens_to.add(name)
        threading.Thread(target=_listen, args=(bell, name), name="pgflow_mp told", daemon=True).start()
    return function(*args)


def _listen(bell: Any, name: str) -> None:
    import ray

    heard = 0
    try:
        while True:
            for function, args in ray.get(bell.after.remote(heard)):
                heard += 1
                function(*args)
    except Exception:  # noqa: BLE001 - its owner is gone
        _listens_to.discard(name)


class RayEngine(CallEngine):
    """``address``: ``ray://host:port``; None for the cluster that Ray finds (RAY_ADDRESS, this machine's).

    Where there is none one is started on this machine, with ``workers`` CPUs.
    """

    name = "ray"
    far = True
    isolates = True
    cancels = False
    leave = _LEAVE
    abilities = Abilities(kill=True, cap_memory=True)

    def __init__(self, address: str | None, workers: int | None, *, patience: float = _PATIENCE) -> None:
        self._address = address
        self._workers = workers or available_cpus()
        self._patience = patience
        self._ray: Any = None
        self._ours = False
        self._poller: Poller | None = None
        self._task: Any = None
        self._bell: Any = None
        self._calls: dict[Future[Any], Any] = {}

    def open(self, say: Say, patience: float) -> None:
        self._ray = packages.load("ray")
        if not self._ray.is_initialized():
            self._connect()
            self._ours = True
        self._poller = Poller(self._ask, "its head node", say, self._patience)
        self._poller.start()
        self._task = self._ray.remote(num_cpus=1, max_retries=0)(_call)
        self._bell = self._ray.remote(num_cpus=0, max_concurrency=_LISTENERS)(Bell).remote()

    @property
    def places(self) -> int:
        return 0 if self._poller is None else self._poller.places

    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]:
        reference = self._task.remote(self._bell, function, args)
        ours: Future[T] = Future()
        ours.set_running_or_notify_cancel()
        self._calls[ours] = reference
        reference.future().add_done_callback(lambda theirs: self._ended(theirs, ours))
        return ours

    def fault(self, error: BaseException) -> CallFault:
        known = self._ray.exceptions
        if isinstance(error, known.TaskCancelledError):
            return CallFault.WITHDRAWN
        if isinstance(error, known.NodeDiedError | known.ObjectLostError | known.LocalRayletDiedError):
            return CallFault.HOST
        if isinstance(error, ImportError) or isinstance(error.__cause__, ImportError):
            return CallFault.CODE
        if isinstance(error, known.RaySystemError | ConnectionError):
            return CallFault.ENGINE
        return CallFault.PLACE

    def tell_all(self, function: Callable[..., object], /, *args: Any) -> None:
        if self._bell is not None and not self.trouble():
            self._bell.ring.remote(function, args)

    def end(self, future: Future[Any], setup: bytes, seq: int) -> None:
        if (reference := self._calls.get(future)) is not None:
            self._ray.cancel(reference, force=True)

    def trouble(self) -> str:
        return "" if self._poller is None else self._poller.look()

    def close(self) -> None:
        if self._poller is not None:
            self._poller.stop()
        if self._ours:
            closing = threading.Thread(target=self._ray.shutdown, name="pgflow_mp close")
            closing.start()
            closing.join(_CLOSE)

    # -- internals ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self._address is not None:
                self._ray.init(address=self._address, **options)
                return
            try:
                self._ray.init(address="auto", **options)
            except ConnectionError:
                self._ray.init(address="local", num_cpus=self._workers, include_dashboard=False, **options)
        except Exception as error:
            where = self._address or "RAY_ADDRESS, or here"
            raise ConfigError(
                f"Executor ray: no cluster answers at {where}: {type(error).__name__}: {error}",
                hint="Look whether it runs (ray start --head), with the same versions of Ray and Python.",
            ) from error

    def _ask(self) -> tuple[int, int]:
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        return len(nodes), int(sum(node["Resources"].get("CPU", 0) for node in nodes))

    def _ended(self, theirs: Future[Any], ours: Future[Any]) -> None:
        self._calls.pop(ours, None)
        if theirs.cancelled():
            ours.set_exception(self._ray.exceptions.TaskCancelledError())
        elif (error := theirs.exception()) is not None:
            ours.set_exception(error)
        else:
            ours.set_result(theirs.result())
