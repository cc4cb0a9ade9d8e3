"""The processes of a ProcessPoolExecutor that runs items: none outlives its pool or its program."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from executor_owner import Owner, kinds
from lane_harness import FLOWS, eventually, gone

from pgflow_mp.executors import tied_processes
from pgflow_mp.executors.call_engines import CallFault, PoolEngine
from pgflow_mp.executors.choosing import factory

FORK = multiprocessing.get_context("fork")

PARENT = """
import multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor

sys.path.insert(0, {tests!r})
import executor_owner

def make():
    return ProcessPoolExecutor(3, mp_context=multiprocessing.get_context({method!r}))

def main():
    executor_owner.MAKERS["these"] = lambda: executor_owner.factory({given})
    owner = executor_owner.Owner("these")
    owner.executor.start()
    owner.submit(["run_a_sleeper", 100])
    owner.submit(["spin_for", 100])
    print("ready", flush=True)
    time.sleep(100)

if __name__ == "__main__":
    main()
"""


def on(make: Callable[[], Executor], monkeypatch: pytest.MonkeyPatch) -> Owner:
    """A started executor over the pools that ``make`` makes."""
    monkeypatch.setitem(sys.modules["executor_owner"].__dict__["MAKERS"], "these", lambda: factory(make))
    owner = Owner("these")
    owner.executor.start()
    return owner


def managers() -> list[threading.Thread]:
    """Threads that wait for processes, and that a program waits for when it ends."""
    return [thread for thread in threading.enumerate() if type(thread).__name__ == "_ExecutorManagerThread"]


def nothing_left(seconds: float = 5.0) -> bool:
    return eventually(lambda: not multiprocessing.active_children() and not managers(), seconds)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("fork", "make"),
        pytest.param("fork", "make()", marks=pytest.mark.slow),
        pytest.param("spawn", "make", marks=pytest.mark.slow),
        pytest.param("forkserver", "make", marks=pytest.mark.slow),
    ],
)
def test_the_processes_of_a_pool_end_with_a_killed_program_and_what_they_started_too(
    tmp_path: Path, method: str, given: str
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(FLOWS).parent), method=method, given=given))
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        program = psutil.Process(parent.pid)
        family: list[psutil.Process] = []

        def all_there() -> bool:
            family[:] = program.children(recursive=True)
            sleeps = any(process.name() == "sleep" for process in family)
            return sleeps and any(sum(process.cpu_times()[:2]) > 0.1 for process in family)

        assert eventually(all_there, 20.0)
        assert len(family) >= 3
        program.kill()
    assert eventually(lambda: all(gone(process.pid) for process in family))


def test_a_program_that_runs_the_items_itself_outlives_the_one_that_started_it(
    tmp_path: Path,
) -> None:
    """Only processes of pools end with their parents, not programs."""

    def program() -> None:
        owner = Owner("threads")
        owner.executor.start()
        owner.run(["echo", 1])
        (tmp_path / "pid").write_text(str(os.getpid()))
        time.sleep(60)

    def launcher() -> None:
        FORK.Process(target=program).start()
        assert eventually((tmp_path / "pid").exists, 10.0)
        os._exit(0)

    process = FORK.Process(target=launcher)
    process.start()
    process.join()
    pid = int((tmp_path / "pid").read_text())
    time.sleep(0.3)
    assert not gone(pid)
    os.kill(pid, signal.SIGKILL)


def test_a_process_whose_handler_closed_its_files_is_not_taken_for_an_orphan() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    ended = threading.Event()

    def watch() -> None:
        tied_processes._watch(reader, (0, 0), os.getppid())
        ended.set()

    threading.Thread(target=watch, daemon=True).start()
    assert not ended.wait(0.3)


class SlowDict(dict[int, Any]):
    """Slow to take something, while this is set."""

    slow = threading.Event()

    def __setitem__(self, key: int, value: Any) -> None:
        if self.slow.is_set():
            time.sleep(0.3)
        super().__setitem__(key, value)


class BreaksMeanwhile(ProcessPoolExecutor):
    """Breaks just after a call's look whether it may be made, or while it starts a process for that."""

    def __init__(self, *, after_look: bool) -> None:
        self.breaking = threading.Event()
        self.after_look = after_look
        self.seen: dict[str, Any] = {}
        super().__init__(2, mp_context=multiprocessing.get_context("spawn"))
        self._processes = SlowDict()
        self._processes.slow = self.breaking

    @property
    def _broken(self) -> Any:
        return self.seen["broken"]

    @_broken.setter
    def _broken(self, value: Any) -> None:
        if value:
            self.breaking.set()
            time.sleep(0.1)
        self.seen["broken"] = value

    @property
    def _shutdown_thread(self) -> Any:
        value = self.seen["shut down"]
        if self.after_look and self.breaking.is_set() and not value:
            time.sleep(0.3)
        return value

    @_shutdown_thread.setter
    def _shutdown_thread(self, value: Any) -> None:
        self.seen["shut down"] = value


@pytest.mark.parametrize("ours", [True, False])
@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize("after_look", [True, False])
def test_a_call_that_is_made_while_its_pool_breaks_is_answered_and_leaves_no_process(
    ours: bool, idle: bool, after_look: bool
) -> None:
    pool = BreaksMeanwhile(after_look=after_look)
    engine = PoolEngine(pool, 2, again=(lambda: ThreadPoolExecutor(1)) if ours else None)
    place = engine.submit(os.getpid).result()
    running = engine.submit(time.sleep, 30)
    if idle:
        engine.submit(os.getpid).result()
    assert eventually(running.running)
    os.kill(place, signal.SIGKILL)
    assert pool.breaking.wait(5.0)
    late: BaseException | None = None
    try:
        call = engine.submit(os.getpid)
    except BaseException as error:
        late = error
    assert engine.fault(running.exception(5.0) or AssertionError()) is CallFault.ENGINE
    assert engine.renew(0) is ours
    late = late or call.exception(5.0)
    assert engine.fault(late or AssertionError()) is CallFault.ENGINE
    assert nothing_left()
    engine.close()


class HoldsItsLock(Executor):
    """Breaks at the call of this number, and fails calls under its lock, as pools do since Python 3.12."""

    def __init__(self, calls: int) -> None:
        self._lock = threading.Lock()
        self._left = calls
        self._threads = ThreadPoolExecutor(1)

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        with self._lock:
            self._left -= 1
            if self._left:
                return self._threads.submit(function, *args, **options)
            future: Future[Any] = Future()
            threading.Thread(target=self._break, args=(future,), daemon=True).start()
            return future

    def _break(self, future: Future[Any]) -> None:
        time.sleep(0.1)
        with self._lock:
            future.set_exception(BrokenExecutor())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self._lock:
            self._threads.shutdown(wait=False)


def test_a_pool_that_fails_calls_while_it_holds_its_lock_is_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pools = [HoldsItsLock(2), HoldsItsLock(99)]
    owner = on(lambda: pools.pop(0), monkeypatch)
    assert kinds(owner.run(["echo", 1])) == [0]
    assert pools == []
    owner.executor.abort()


def test_nobody_is_charged_for_a_call_that_was_made_in_a_pool_already_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = [0.0, *[0.3] * 9]

    def make() -> Executor:
        time.sleep(pauses.pop(0))
        return ProcessPoolExecutor(1, mp_context=FORK)

    owner = on(make, monkeypatch)
    seqs = [owner.submit(["os_exit", 3]), owner.submit(["echo", 1])]
    owner.until(lambda: owner.done >= set(seqs))
    assert [kinds(owner.of(seq)) for seq in seqs] == [[1], [0]]
    owner.executor.abort()
    assert nothing_left()


@pytest.mark.slow
def test_a_broken_pool_leaves_nobody_not_even_one_that_passes_over_sigterm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = on(lambda: ProcessPoolExecutor(2, mp_context=FORK), monkeypatch)
    owner.submit(["ignore_sigterm", None])
    time.sleep(0.5)
    owner.submit(["os_exit", 3])
    time.sleep(0.5)  # both are suspects now: the first runs again, in another pool
    owner.executor.abort()
    assert nothing_left(15.0)


@pytest.mark.slow
def test_a_call_that_nobody_reads_any_more_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = on(lambda: ProcessPoolExecutor(1, mp_context=FORK), monkeypatch)
    seqs = [owner.submit(["os_exit", 3]), owner.submit(["echo", "x" * 300_000])]
    owner.until(lambda: owner.done >= set(seqs))
    assert [kinds(owner.of(seq)) for seq in seqs] == [[1], [0]]
    owner.executor.abort()
    assert nothing_left(15.0)


@pytest.mark.slow
def test_what_runs_when_a_pool_of_ours_is_over_is_ended_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owner = on(lambda: ProcessPoolExecutor(1, mp_context=FORK), monkeypatch)
    owner.submit(["sleep", 100])
    time.sleep(0.3)
    assert owner.executor.stop(0.1) is False
    assert nothing_left(15.0)
