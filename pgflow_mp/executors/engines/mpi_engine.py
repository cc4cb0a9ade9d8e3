"""MPI: ``mpi4py.futures``, whose processes are those that mpiexec started, or that are started for it.

Threads: the executor's, and the pool's manager, where calls end.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar

from pgflow_mp.errors import ConfigError
from pgflow_mp.executors.call_engines import CallEngine, CallFault, Say
from pgflow_mp.executors.cpus import available_cpus
from pgflow_mp.executors.engines import packages
from pgflow_mp.executors.protocol import Abilities

T = TypeVar("T")

_BOOT: Final = 60.0  # seconds
_ALL_END: Final = "a process that dies ends all of them, and this program, too: run --resume goes on then"


class MpiEngine(CallEngine):
    """``workers`` processes are started where mpiexec has started none."""

    name = "mpi"
    far = True
    abilities = Abilities(instead=(("blame", _ALL_END),))

    def __init__(self, workers: int | None) -> None:
        self._workers = workers
        self._pool: Any = None
        self._places = 0

    def open(self, say: Say, patience: float) -> None:
        _find_mpiexec()
        futures = packages.load("mpi", "futures")
        failed: list[BaseException] = []

        def start() -> None:
            try:
                self._pool = futures.MPIPoolExecutor(max_workers=self._workers or available_cpus())
                self._pool.bootup(wait=True)
                self._places = int(self._pool.num_workers)
            except BaseException as error:  # noqa: BLE001 - told below
                failed.append(error)

        starting = threading.Thread(target=start, name="pgflow_mp mpi", daemon=True)  # it may hang
        starting.start()
        starting.join(min(patience, _BOOT))
        if not self._places:
            why = f"{type(failed[0]).__name__}: {failed[0]}" if failed else f"none within {_BOOT:g} s"
            raise ConfigError(
                f"Executor mpi cannot start its processes: {why}",
                hint="Start them with it: mpiexec -n 5 python -m mpi4py.futures -m pgflow_mp run FLOW",
            )

    @property
    def places(self) -> int:
        return self._places

    def submit(self, function: Callable[..., T], /, *args: Any) -> Future[T]:
        future: Future[T] = self._pool.submit(function, *args)
        return future

    def fault(self, error: BaseException) -> CallFault:
        if isinstance(error, CancelledError):
            return CallFault.WITHDRAWN
        if isinstance(error, ImportError):
            return CallFault.CODE
        return CallFault.ENGINE if isinstance(error, RuntimeError) else CallFault.PLACE

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _find_mpiexec() -> None:
    """Processes are started by mpiexec; that of PyPI's packages of MPI is beside python."""
    beside = os.path.dirname(sys.executable)
    if shutil.which("mpiexec") is None and shutil.which("mpiexec", path=beside) is not None:
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), beside])
