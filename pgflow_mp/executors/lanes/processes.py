"""A forkserver of our own: the multiprocessing context that lanes are started with.

multiprocessing has one forkserver per process. Lanes use a private one, so that its preloaded modules
are the pool's, it ends with the pool, and the caller's own use of multiprocessing is untouched. Its
children do not import the caller's __main__ (pgflow_mp.loading does that where the target asks for it).
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from multiprocessing import (
    current_process,
    forkserver,
    get_all_start_methods,
    popen_forkserver,
    reduction,
    spawn,
    synchronize,
    util,
)
from multiprocessing.connection import wait
from multiprocessing.context import (
    BaseContext,
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    set_spawning_popen,
)
from typing import Any, Final

from pgflow_mp.executors.lanes.preloaded import Preload
from pgflow_mp.executors.lanes.slots import SharedFile
from pgflow_mp.executors.messages import encode

_EXIT_UNKNOWN: Final = 255
_passing = threading.Lock()  # multiprocessing's settings belong to the whole process


class _Imports(list[str]):
    """Names that the forkserver imports, from where this process would import them.

    multiprocessing writes the list into the server's command line, as Python source.
    """

    def __repr__(self) -> str:
        path = preparation("forkserver")["sys_path"]
        return f"[__import__('sys').path.__setitem__(slice(None), {path!r}), *{[*self]!r}][1:]"


def preparation(name: str) -> dict[str, Any]:
    """What multiprocessing tells a new process: arguments, sys.path, working directory and more."""
    main = sys.modules["__main__"]
    if not hasattr(main, "__spec__"):  # a debugger took it away
        main.__spec__ = None
    return spawn.get_preparation_data(name)


class LaneServer(forkserver.ForkServer):
    """The forkserver of one pool. ``preload`` is what it loads before it forks."""

    _forkserver_pid: int | None
    _forkserver_alive_fd: int | None
    _forkserver_address: str | None

    def __init__(self, preload: Preload) -> None:
        super().__init__()
        self._starting = threading.Lock()
        self._socket = -1
        self._orders = SharedFile(0, "pgflow_mp_preload")
        self._lifeline, self._lifeline_writer = os.pipe()
        here = f"/proc/{os.getpid()}/fd"
        preload.lifeline = f"{here}/{self._lifeline}"
        os.pwrite(self._orders.fd, encode(preload), 0)
        orders = f"{here}/{self._orders.fd}"
        # The second name is no module and importing it does nothing: it tells the first where to read.
        self._preload_modules = _Imports(["pgflow_mp.executors.lanes.zygote", orders])

    @property
    def pid(self) -> int | None:
        return self._forkserver_pid

    def ensure_running(self) -> None:
        """Start the server if there is none. Where that works, its socket then has no name any more.

        Whoever is killed at whatever moment after that, nothing is left in the file system.
        """
        with self._starting, _without_working_directory():
            if not _nameless_sockets_work():
                super().ensure_running()
            elif not self._is_running():
                preparation("forkserver")
                with _passing_directory():
                    super().ensure_running()
                    self._take_name_away()

    def _is_running(self) -> bool:
        pid = self._forkserver_pid
        try:
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return pid is not None and os.waitid(os.P_PID, pid, options) is None
        except ChildProcessError:
            return False

    def _take_name_away(self) -> None:
        address = self._forkserver_address
        if address is None:
            return
        self._close_socket()
        self._socket = os.open(address, os.O_PATH | os.O_CLOEXEC)
        os.unlink(address)
        self._forkserver_address = f"/proc/self/fd/{self._socket}"

    def _close_socket(self) -> None:
        if self._socket >= 0:
            os.close(self._socket)
            self._socket = -1

    def stop(self) -> None:
        """Kill the server, which has nothing to lose; its lanes are gone or die with it. Repeatable."""
        pid, alive, address = self._forkserver_pid, self._forkserver_alive_fd, self._forkserver_address
        self._forkserver_pid = self._forkserver_alive_fd = self._forkserver_address = None
        if pid is not None:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for fd in (alive, self._lifeline, self._lifeline_writer):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._lifeline = self._lifeline_writer = -1
        self._orders.close()
        if self._socket < 0 and address is not None:
            with contextlib.suppress(OSError):
                os.unlink(address)
        self._close_socket()


_original_flags: Final = util._args_from_interpreter_flags  # type: ignore[attr-defined]
_thread = threading.local()


def _flags() -> list[str]:
    safe: list[str] = ["-P"] if getattr(_thread, "safe", False) else []
    return [*_original_flags(), *safe]


util._args_from_interpreter_flags = _flags  # type: ignore[attr-defined]


@contextlib.contextmanager
def _without_working_directory() -> Iterator[None]:
    """Start Python so that a file in the working directory, say queue.py, hides no module from it.

    What belongs on sys.path is told to it, the working directory too where it is on ours.
    """
    _thread.safe = True
    try:
        yield
    finally:
        _thread.safe = False


@contextlib.contextmanager
def _passing_directory() -> Iterator[str]:
    """Have multiprocessing make its socket in a directory that is gone after the block.

    Its path is short, however long TMPDIR is.
    """
    config: dict[str, Any] = current_process()._config  # type: ignore[attr-defined]
    path = tempfile.mkdtemp(prefix="pgflow-mp-")
    try:
        with _passing:
            directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
            before = config.get("tempdir")
            config["tempdir"] = short = f"/proc/self/fd/{directory}"
            try:
                yield short
            finally:
                if before is None:
                    del config["tempdir"]
                else:
                    config["tempdir"] = before
                os.close(directory)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(path)


@cache
def _nameless_sockets_work() -> bool:
    """Whether a socket can be reached through a descriptor after its name was removed (Linux with /proc)."""
    if not sys.platform.startswith("linux"):
        return False
    fd = -1
    try:
        with (
            _passing_directory() as directory,
            socket.socket(socket.AF_UNIX) as listener,
            socket.socket(socket.AF_UNIX) as client,
        ):
            address = f"{directory}/try"
            listener.bind(address)
            listener.listen()
            try:
                fd = os.open(address, os.O_PATH | os.O_CLOEXEC)
            finally:
                os.unlink(address)
            client.connect(f"/proc/self/fd/{fd}")
            return True
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)


def _close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


class _Popen(popen_forkserver.Popen):
    """A child of a LaneServer. ``lost``: the server died, so how the child ended is unknown."""

    lost: bool = False
    _fds: list[int]

    def __init__(self, process: Any, server: LaneServer) -> None:
        self._server = server
        self._lock = threading.Lock()
        super().__init__(process)

    def _launch(self, process: Any) -> None:
        prepared = preparation(process.name)
        for key in ("init_main_from_name", "init_main_from_path"):
            prepared.pop(key, None)
        message = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.ForkingPickler(message, None).dump(prepared)
            reduction.ForkingPickler(message, None).dump(process)
        finally:
            set_spawning_popen(None)
        self.sentinel, writer = self._server.connect_to_new_process(self._fds)
        # Held open for as long as this process lives: its end tells the child that we are gone.
        self.finalizer = util.Finalize(self, _close, (os.dup(writer), self.sentinel))
        with open(writer, "wb") as pipe:
            pipe.write(message.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """The exit code, or None; unlike the original it may be asked from several threads at once."""
        if self.returncode is None and wait([self.sentinel], 0 if flag == os.WNOHANG else None):
            with self._lock:
                if self.returncode is None:
                    try:
                        self.returncode = forkserver.read_signed(self.sentinel)
                    except (OSError, EOFError):
                        self.lost, self.returncode = True, _EXIT_UNKNOWN
        code: int | None = self.returncode
        return code


class _LaneProcess(ForkServerProcess):
    server: LaneServer | None = None

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        server, process_obj.server = process_obj.server, None  # the child has no use for it
        return _Popen(process_obj, server)


class LaneContext(ForkServerContext):
    """The context of one pool's lanes."""

    def __init__(self, server: LaneServer) -> None:
        super().__init__()
        self.server = server

    def Process(self, *arguments: Any, **options: Any) -> Any:  # type: ignore[override]
        """A process that the pool's forkserver will fork."""
        with _passing:  # it copies the settings: not while another thread has its passing directory there
            process = _LaneProcess(*arguments, **options)
        process.server = self.server
        return process


def lane_context(preload: Preload, *, start_method: str | None = None) -> BaseContext:
    """The context to start lanes with: forkserver where there is one, else spawn."""
    method = start_method or ("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if method == "spawn":
        return SpawnContext()
    return LaneContext(LaneServer(preload))


def semaphore_names(executor: Any) -> set[str]:
    """The names of the semaphores of a ProcessPoolExecutor that has not been shut down."""
    return {
        vars(lock)["_semlock"].name
        for queue in (executor._call_queue, executor._result_queue)
        for lock in vars(queue).values()
        if isinstance(lock, synchronize.SemLock)
    }


def forget_semaphores(names: set[str]) -> None:
    """Remove the names of semaphores, once every process that needs them has opened them.

    Otherwise they stay in the file system if this process and its resource tracker are both killed.
    """
    for finalizer in list(util._finalizer_registry.values()):  # type: ignore[attr-defined]
        if finalizer._callback is synchronize.SemLock._cleanup and finalizer._args[0] in names:  # type: ignore[attr-defined]
            finalizer()


def was_lost(process: Any) -> bool:
    """Whether the process ended with its forkserver, for no reason of its own."""
    return bool(getattr(process._popen, "lost", False))
