"""Dask: chunks are tasks of a scheduler, one for each thread of its workers.

A worker that dies is Dask's matter first: it runs what that worker had on another one, ``allowed-failures``
times. What it gives up then is cornered. Where all workers have a nanny an item can be ended with its worker.

Threads: the executor's, and the client's loop, where calls end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar

from pgflow_mp.errors import ConfigError, PgflowError
from pgflow_mp.executors.call_engines import CallEngine, CallFault, Say
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.engines import packages
from pgflow_mp.executors.engines.polling import PATIENCE, Poller
from pgflow_mp.executors.protocol import Abilities

T = TypeVar("T")

_CONNECT: Final = 10.0
_ANSWER: Final = 5.0
_CLOSE: Final = 0.5
_RESTART: Final = 60.0
_GOODBYE: Final = 15.0


class DaskEngine(CallEngine):
    """Over what ``given`` is: ``tcp://host:port``, a Client, a Cluster, or None for what Client() finds.

    That is the scheduler that the configuration of Dask names (DASK_SCHEDULER_ADDRESS), else a cluster of
    ``workers`` processes on this machine.
    """

    name = "dask"
    far = True
    cancels = False
    repeats = True

    def __init__(self, given: Any, workers: int | None, *, patience: float = PATIENCE) -> None:
        self._given = given
        self._workers = workers or available_cpus()
        self._patience = patience
        self._client: Any = None
        self._ours = not _is_client(given)
        self._poller: Poller | None = None
        self._prefix = f"pgflow_mp-{uuid.uuid4().hex}"
        self._numbers = itertools.count(1)
        self._calls: dict[Future[Any], Any] = {}

    def open(self, say: Say, patience: float) -> None:
        distributed = packages.load("dask")
        self._client = self._given if not self._ours else self._connect(distributed)
        where = self._client.scheduler.address
        self.name = f"dask at {where}"
        self._poller = Poller(self._ask, "its scheduler", say, self._patience)
        try:
            self._poller.start()
            if not self._poller.places:
                say("warn", "no workers: waiting for some")
                self._client.wait_for_workers(1, timeout=patience)
                self._poller.places = sum(self._ask()[1:])
        except Exception as error:
            raise PgflowError(
                f"Executor {self.name} has no workers: {type(error).__name__}: {error}",
                hint="Start some: dask worker ADDRESS --nworkers auto --nthreads 1",
            ) from error
        infos = self._wait_for(self._workers_there()).values()
        nannies = all(info.get("nanny") for info in infos)
        self.abilities = Abilities(kill=nannies, cap_memory=nannies)
        if any(info.get("nthreads", 1) > 1 for info in infos):
            say("info", "its workers run several items in a process; where these compute, use --nthreads 1")

    @property
    def places(self) -> int:
        if self._poller is None or self._client.status != "running":
            return 0
        return self._poller.places

    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]:
        key = f"{self._prefix}-{next(self._numbers)}"
        with warnings.catch_warnings():  # one item may be large, and has to be there
            warnings.filterwarnings("ignore", "Sending large graph")
            theirs = self._client.submit(function, *args, key=key, pure=False)
        ours: Future[T] = Future()
        ours.set_running_or_notify_cancel()
        self._calls[ours] = theirs
        self._begin(self._bring(theirs, ours))
        return ours

    def fault(self, error: BaseException) -> CallFault:
        if isinstance(error, CancelledError | asyncio.CancelledError):
            return CallFault.WITHDRAWN
        if self._client is not None and self._client.status in ("closing", "closed"):
            return CallFault.ENGINE
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ImportError):
                return CallFault.CODE
            cause = cause.__cause__
        return CallFault.PLACE

    def tell_all(self, function: Callable[..., object], /, *args: Any) -> None:
        if self._client is not None and self._client.status == "running":
            self._begin(self._tell(function, args))

    def end(self, future: Future[Any], setup: bytes, seq: int) -> None:
        from pgflow_mp.executors import remote

        self.tell_all(remote.give_up, setup, [seq])

    def replace(self, address: str) -> None:
        if address:
            self._begin(self._restart(address))

    def trouble(self) -> str:
        if self._client is None or self._poller is None:
            return ""
        if self._client.status in ("closing", "closed"):
            return f"the connection to its scheduler at {self._client.scheduler.address} is closed"
        return self._poller.look()

    def close(self) -> None:
        if self._poller is not None:
            self._poller.stop()
        if self._client is not None and self._ours:
            closing = threading.Thread(target=_close, args=(self._client,), name="pgflow_mp close")
            closing.start()
            closing.join(_CLOSE)

    # -- internals ---------------------------------------------------------------------------------

    def _connect(self, distributed: Any) -> Any:
        given = self._given
        options: dict[str, Any] = {"set_as_default": False, "name": "pgflow_mp"}
        try:
            if given is not None:
                return distributed.Client(given, timeout=_CONNECT, **options)
            import dask

            if dask.config.get("scheduler-address", None):
                return distributed.Client(timeout=_CONNECT, **options)
            return distributed.Client(
                n_workers=self._workers,
                threads_per_worker=1,
                processes=True,
                dashboard_address=":0",
                preload=["pgflow_mp.executors.engines.dask_preload"],
                **options,
            )
        except Exception as error:
            where = given or "the configured address"
            raise ConfigError(
                f"Executor dask: no scheduler answers at {where}: {type(error).__name__}: {error}",
                hint="Look whether it runs (dask scheduler), and whether this machine may connect to it.",
            ) from error

    def _begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._client.loop.asyncio_loop)

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        begun = self._begin(work)
        try:
            return begun.result(_ANSWER)
        finally:
            begun.cancel()

    def _ask(self) -> tuple[int, int]:
        places: dict[str, int] = self._wait_for(self._threads_there())
        return len(places), sum(places.values())

    async def _threads_there(self) -> dict[str, int]:
        found: dict[str, int] = await self._client.scheduler.ncores(workers=None)
        return found

    async def _workers_there(self) -> dict[str, dict[str, Any]]:
        found: dict[str, Any] = await self._client.scheduler.identity(n_workers=-1)
        workers: dict[str, dict[str, Any]] = found["workers"]
        return workers

    async def _bring(self, theirs: Any, ours: Future[Any]) -> None:
        try:
            value = await theirs
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            ours.set_exception(error)
        else:
            ours.set_result(value)
        finally:
            self._calls.pop(ours, None)

    async def _tell(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        await self._client.run(_apart, function, args, on_error="ignore")

    async def _restart(self, address: str) -> None:
        await self._client.restart_workers([address], timeout=_RESTART, raise_for_error=False)


def _apart(function: Callable[..., object], args: tuple[Any, ...]) -> None:
    """On a worker, in its event loop: call it elsewhere."""
    threading.Thread(target=function, args=args, name="pgflow_mp told", daemon=True).start()


def _close(client: Any) -> None:
    """With its cluster, where that was started for it."""
    with contextlib.suppress(Exception):  # whatever is left of it ends with this process
        client.close(timeout=_GOODBYE)


def _is_client(given: Any) -> bool:
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(given, distributed.Client)


def is_dask(given: Any) -> bool:
    """Whether it is a Client, or a Cluster that one can be made for."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return False
    return isinstance(given, (distributed.Client, distributed.deploy.cluster.Cluster))
