"""Where lane processes come from and go to: the forkserver, and threads that start and end processes.

Starting takes as long as the forkserver takes to load the target, ending as long as a process takes to
leave; neither may hold up the pool.

Threads: launch() and close() are for any thread and wait for nothing; what they are given (``make``,
``failed``, the process's launch() and close()) is called in the launcher's and the reaper's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil

from pgflow_mp import streams
from pgflow_mp.executors.lanes.lane import LaneProcess
from pgflow_mp.executors.lanes.preloaded import Preload
from pgflow_mp.executors.lanes.processes import LaneContext, lane_context
from pgflow_mp.executors.messages import PRELOAD_FLOW, Setup, encode

OnFailure = Callable[[LaneProcess, BaseException, bool], None]


_ONE_LOSS = 0.2  # seconds within which processes that are lost were lost together
_FORGOTTEN = 60.0  # seconds after which a loss does not count any more
_LONGEST = 10.0  # seconds


class Losses:
    """How often the forkserver died lately, and how long to wait before lanes are started again."""

    def __init__(self) -> None:
        self._count = 0
        self._last = float("-inf")
        self._pause = 0.0

    def pause(self, now: float) -> float:
        """A process was lost: seconds, the same for all that were lost together; 0 for the first."""
        if now - self._last > _FORGOTTEN:
            self._count = 0
        if now - self._last > _ONE_LOSS:
            self._count += 1
            self._pause = 0.0 if self._count == 1 else min(_LONGEST, 0.125 * 2**self._count)
            self._last = now
        return self._pause


class Nursery:
    """Starts and ends the processes of one pool."""

    def __init__(self, setup: Setup, *, preload: Sequence[str], start_method: str | None) -> None:
        streams.guard()  # what a lane takes for its standard streams must be no socket of ours
        self._setup = setup
        self._encoded_setup = encode(setup)
        self._preloading = bool(preload)
        self._start_method = start_method
        self._lock = threading.Lock()
        self._stopping = False
        self._context = lane_context(self._preload(preload), start_method=start_method)
        self._launcher = ThreadPoolExecutor(2, "pgflow-launch")
        self._reaper = ThreadPoolExecutor(4, "pgflow-reap")

    @property
    def server_pid(self) -> int | None:
        """The forkserver's process id."""
        return self._context.server.pid if isinstance(self._context, LaneContext) else None

    def wake(self) -> None:
        """Let a forkserver go on that somebody has stopped: without it no lane starts or is seen to end."""
        if (pid := self.server_pid) is not None:
            with contextlib.suppress(psutil.Error, OSError):
                if psutil.Process(pid).status() == psutil.STATUS_STOPPED:
                    os.kill(pid, signal.SIGCONT)

    def launch(self, make: Callable[[], LaneProcess | None], failed: OnFailure) -> None:
        """Start the process that ``make`` returns (None: it is not wanted any more), in a thread.

        ``failed(process, error, again)`` is called if it cannot be started; ``again``: another try may do.
        """
        with contextlib.suppress(RuntimeError):  # shut down
            self._launcher.submit(self._launch, make, failed)

    def _launch(self, make: Callable[[], LaneProcess | None], failed: OnFailure) -> None:
        with self._lock:
            context = self._context
        if (process := make()) is None:
            return
        try:
            process.launch(context, self._encoded_setup)
        except BaseException as error:  # noqa: BLE001 - no file descriptors, no memory, no forkserver
            process.close(0.0)
            again = isinstance(error, EOFError | ConnectionError) and self._give_up_preloading(context)
            failed(process, error, again)

    def _give_up_preloading(self, used: object) -> bool:
        """Importing the target may have killed the forkserver: take one that does not. False: no help."""
        with self._lock:
            if used is self._context and self._preloading and not self._stopping:
                self._preloading = False
                self._stop_server()
                self._context = lane_context(self._preload(()), start_method=self._start_method)
            return used is not self._context and not self._stopping

    def _preload(self, wanted: Sequence[str]) -> Preload:
        setup = self._setup
        return Preload(
            setup.target if PRELOAD_FLOW in wanted and not (setup.job or setup.shipped) else "",
            setup.flows,
            setup.sys_path,
            setup.main_path,
            setup.threads,
            [name for name in wanted if name != PRELOAD_FLOW],
            sys.argv,
            contents=setup.contents,
            handlers=setup.handlers,
        )

    def close(self, process: LaneProcess, grace: float) -> None:
        """End a process in a thread; it gets ``grace`` seconds to leave by itself."""
        with contextlib.suppress(RuntimeError):  # shut down: somebody closes it already
            self._reaper.submit(process.close, grace)

    def finish_launching(self, *, stuck: bool) -> None:
        """Start nothing more, wait for starts that are under way; ``stuck``: they wait for an import."""
        self._stopping = True
        if stuck:
            self._stop_server()
        self._launcher.shutdown(wait=True, cancel_futures=True)

    def stop(self) -> None:
        """Wait until every process that close() was called for has ended, then end the forkserver."""
        self._stopping = True
        self._reaper.shutdown(wait=True)
        self._stop_server()

    def _stop_server(self) -> None:
        if isinstance(self._context, LaneContext):
            self._context.server.stop()
