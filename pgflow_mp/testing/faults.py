"""Faults that handlers and tests inject on purpose, the same ones in every run with the same seed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import NoReturn

from pgflow_mp.errors import PermanentError
from pgflow_mp.flows.context import Context

_inline: ContextVar[bool] = ContextVar("pgflow_mp_inline", default=False)
_leaked: list[bytearray] = []


class FaultInjected(RuntimeError):
    """The exception that ``raise`` and ``raise_once`` raise."""


class SimulatedCrash(BaseException):
    """Stands for the death of the process where a handler runs inline; counts as a crash."""


class SimulatedTimeout(BaseException):
    """Stands for the step's timeout where a handler that would never end runs inline."""


class Fault(StrEnum):
    """What can go wrong."""

    RAISE = "raise"
    RAISE_ONCE = "raise_once"
    PERMANENT = "permanent"
    SLEEP = "sleep"
    KILL_SELF = "kill_self"
    SEGFAULT = "segfault"
    ABORT = "abort"
    EXIT = "exit"
    STOP = "stop"
    HANG = "hang"
    HANG_IN_C = "hang_in_c"
    LEAK_MEMORY = "leak_memory"


class Faults:
    """Chooses faults by chance, or for named items, and strikes.

    ``rates`` are probabilities per kind: ``Faults(seed=7, segfault=0.001, raise_once=0.05)``. ``at`` names
    the fault of an item by its index. The choice depends on seed, step, index and attempt only, so
    that a test can ask for it beforehand: :meth:`chosen`. An attempt after ``attempts`` is left alone (None:
    none is). The methods named after faults strike at once::

        faults = Faults(seed=1, raise_once=0.1, at={3: "segfault"}, attempts=1)

        @flow.map
        def work(x: int, ctx: Context) -> int:
            faults.strike(ctx)
            return x

    Where a flow runs inline (``run_inline``), what would kill or block the test's own process is simulated:
    the item is charged with a crash or a timeout instead.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        at: Mapping[int, Fault | str] | None = None,
        attempts: int | None = None,
        sleep_seconds: float = 0.05,
        leak_megabytes: int = 256,
        **rates: float,
    ) -> None:
        self._seed = seed
        self._at = {index: Fault(kind) for index, kind in (at or {}).items()}
        self._rates = {Fault(kind): rate for kind, rate in rates.items()}
        self._attempts = attempts
        self._sleep_seconds = sleep_seconds
        self._leak_megabytes = leak_megabytes
        total = sum(self._rates.values())
        if total > 1 or any(rate < 0 for rate in self._rates.values()):
            raise ValueError(f"the rates of all faults must add up to at most 1, not {total}")

    def chosen(self, step: str, index: int, attempt: int = 1) -> Fault | None:
        """The fault of this attempt of this item; None: it is left alone."""
        if self._attempts is not None and attempt > self._attempts:
            return None
        if index in self._at:
            return self._at[index]
        if not self._rates:
            return None
        chance = random.Random(f"{self._seed}/{step}/{index}/{attempt}").random()  # noqa: S311
        for kind, rate in self._rates.items():
            if chance < rate:
                return kind
            chance -= rate
        return None

    def strike(self, ctx: Context) -> None:
        """Do what was chosen for this task, if anything."""
        if (kind := self.chosen(ctx.step_slug, ctx.task_index, ctx.attempt)) is not None:
            self.inflict(kind, ctx)

    def inflict(self, kind: Fault | str, ctx: Context) -> None:
        """Do this to this task."""
        kind = Fault(kind)
        where = f"{kind} at {ctx.step_slug}[{ctx.task_index}], attempt {ctx.attempt}"
        if kind is Fault.RAISE or (kind is Fault.RAISE_ONCE and ctx.attempt == 1):
            raise FaultInjected(where)
        if kind is Fault.PERMANENT:
            raise PermanentError(where)
        if kind is Fault.SLEEP:
            time.sleep(self._sleep_seconds)
        elif kind is Fault.LEAK_MEMORY:
            self.leak_memory(self._leak_megabytes)
        elif kind is not Fault.RAISE_ONCE:
            _DEADLY[kind]()

    @staticmethod
    def raise_once(ctx: Context) -> None:
        """Raise FaultInjected on the first attempt of every task."""
        if ctx.attempt == 1:
            raise FaultInjected(f"first attempt of {ctx.step_slug}[{ctx.task_index}]")

    @staticmethod
    def sleep(seconds: float) -> None:
        """Be slow."""
        time.sleep(seconds)

    @staticmethod
    def kill_self(number: int = signal.SIGKILL) -> None:
        """Send this process a signal."""
        _simulate_crash(f"signal {number}")
        os.kill(os.getpid(), number)

    @staticmethod
    def segfault() -> None:
        """Read from address 0."""
        _simulate_crash("signal 11 (SIGSEGV)")
        ctypes.string_at(0)

    @staticmethod
    def abort() -> NoReturn:
        """End the process by SIGABRT."""
        _simulate_crash("signal 6 (SIGABRT)")
        os.abort()

    @staticmethod
    def exit(code: int = 0) -> NoReturn:
        """Leave without any clean-up, by os._exit."""
        _simulate_crash(f"exit code {code}")
        os._exit(code)

    @staticmethod
    def stop() -> None:
        """Stop this process (SIGSTOP): it neither works nor answers."""
        _simulate_timeout("stopped")
        os.kill(os.getpid(), signal.SIGSTOP)

    @staticmethod
    def hang() -> NoReturn:
        """Loop for ever in Python."""
        _simulate_timeout("endless loop")
        while True:
            pass

    @staticmethod
    def hang_in_c() -> None:
        """One C call of hours that never lets go of the interpreter."""
        _simulate_timeout("endless loop in C")
        sum(range(10**13))

    @staticmethod
    def leak_memory(megabytes: int) -> None:
        """Take memory, touch it, and keep it as long as the process lives."""
        _leaked.append(bytearray(b"\1") * (megabytes << 20))


_DEADLY: Mapping[Fault, Callable[[], object]] = {
    Fault.KILL_SELF: Faults.kill_self,
    Fault.SEGFAULT: Faults.segfault,
    Fault.ABORT: Faults.abort,
    Fault.EXIT: Faults.exit,
    Fault.STOP: Faults.stop,
    Fault.HANG: Faults.hang,
    Fault.HANG_IN_C: Faults.hang_in_c,
}


def _simulate_crash(how: str) -> None:
    if _inline.get():
        raise SimulatedCrash(how)


def _simulate_timeout(how: str) -> None:
    if _inline.get():
        raise SimulatedTimeout(how)


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Faults that would kill or block this process raise instead, within the block."""
    token = _inline.set(True)
    try:
        yield
    finally:
        _inline.reset(token)
