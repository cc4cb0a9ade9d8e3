"""A ``concurrent.futures.Executor`` that calls are made in, and its end: nothing of it stays, no call either.

A ProcessPoolExecutor that breaks while a call is being made may start a process that it never ends, and waits
for it, or for somebody to read a large call, when the program ends; the call is never answered (Python 3.11).
Newer ones fail calls while they hold the lock that their shutdown() takes, until all processes have ended,
even those that pass over SIGTERM. So the end is seen to here, by a thread of its own.

Threads: any.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, InvalidStateError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import Any, Final, TypeVar

from pgflow_mp.executors import tied_processes

T = TypeVar("T")

_LEAVE: Final = 10.0  # seconds for what runs, and for what on_start functions have to do at the end
_LOOK: Final = 0.1
_MOMENT: Final = 1.0
_MEANWHILE: Final = "the pool broke while the call was made"


class PoolUse:
    """Our use of one pool."""

    def __init__(self, pool: Executor) -> None:
        self.pool: Final = pool
        self._processes: Any = {}
        self._queue: Any = None
        if isinstance(pool, ProcessPoolExecutor) and pool._processes is not None:
            tied_processes.tie(pool)
            self._processes, self._queue = pool._processes, vars(pool)["_call_queue"]
        self._calls: set[Future[Any]] = set()
        self._lock = threading.Lock()
        self._ending = False
        self._over = False

    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]:
        """As the pool does it. Raises BrokenExecutor where it breaks meanwhile, whatever the pool raises."""
        try:
            future = self.pool.submit(function, *args)
        except OSError as error:  # its files are closed
            if not self._broken:
                raise
            raise BrokenProcessPool(_MEANWHILE) from error
        with self._lock:
            self._calls.add(future)
            over = self._over
        future.add_done_callback(self._forget)
        if over:
            _fail(future)
        return future

    @property
    def _broken(self) -> bool:
        return bool(self._processes) and bool(getattr(self.pool, "_broken", False))

    def end(self, *, ours: bool, wanted: bool = False) -> None:
        """It is not used any more. One that is ``ours`` is shut down; unless what it runs is ``wanted``, its
        processes are ended after a while. Those of one that is broken are ended at once, whoever made it.

        Returns at once, and may be called again.
        """
        with self._lock:
            broken = self._broken
            if self._ending or not (ours or broken):
                return
            self._ending = True
        end, what = (self._end_broken, ours) if broken else (self._end, wanted)
        threading.Thread(target=end, args=(what,), name="pgflow_mp pool's end", daemon=True).start()

    def _end(self, wanted: bool) -> None:
        if wanted:
            self.pool.shutdown(wait=False)
        else:
            _shut_down(self.pool)
            self._see_off(_LEAVE)

    def _end_broken(self, ours: bool) -> None:
        manager = getattr(self.pool, "_executor_manager_thread", None)  # shutdown() forgets it
        self._see_off(0.0)  # it may not let go of its lock before
        if ours:
            _shut_down(self.pool)
        else:
            with contextlib.suppress(RuntimeError):
                self.pool.submit(int)
        self._see_off(0.0)  # no call begins any more, and no process with it
        if manager is None:
            return
        manager.join(_MOMENT)
        if manager.is_alive():
            with contextlib.suppress(OSError):
                self._queue._reader.close()  # so that nothing waits for a reader any more
            manager.join(_LEAVE)
        with self._lock:
            self._over, left = True, list(self._calls)
        for future in left:
            _fail(future)

    def _see_off(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while there := self._running():
            if time.monotonic() >= deadline:
                for process in there:
                    process.kill()
            wait([process.sentinel for process in there], _LOOK)

    def _running(self) -> list[Any]:
        found = list(self._processes.values())
        over = wait([process.sentinel for process in found], 0)
        return [process for process in found if process.sentinel not in over]

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._calls.discard(future)


def _shut_down(pool: Executor) -> None:
    try:
        pool.shutdown(wait=False, cancel_futures=True)
    except TypeError:  # one that is older than this option
        pool.shutdown(wait=False)


def _fail(future: Future[Any]) -> None:
    if not future.done():
        with contextlib.suppress(InvalidStateError):
            future.set_exception(BrokenProcessPool(_MEANWHILE))
