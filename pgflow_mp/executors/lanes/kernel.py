"""What the kernel knows of this process, as it was when the target was loaded, and put back to that."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

from pgflow_mp.executors.lanes import stack_dumps
from pgflow_mp.executors.lanes.listening import original

_signal: Final[Any] = importlib.import_module("_signal")  # as signal, but makes no enums of what it tells
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_LIMITS: Final = sorted({value for name, value in vars(resource).items() if name.startswith("RLIMIT_")})
_IDS: Final = ("getresuid", "getresgid", "getgroups")
_GET_PDEATHSIG, _SET_PDEATHSIG = 2, 1
_ONE_WAY: Final = (39, 21)  # PR_GET_NO_NEW_PRIVS, PR_GET_SECCOMP


class Kernel:
    """Made once the target is loaded. ``mend`` takes some 15 microseconds."""

    def __init__(self) -> None:
        self._setrlimit, self._umask = original("resource", "setrlimit"), original("os", "umask")
        self._setitimer, self._set_signal = original("signal", "setitimer"), original("_signal", "signal")
        self._sigmask, self._wakeup = (
            original("_signal", "pthread_sigmask"),
            original("signal", "set_wakeup_fd"),
        )
        self._setaffinity = original("os", "sched_setaffinity") if hasattr(os, "sched_setaffinity") else None
        self._prctl: Callable[..., int] | None = None
        if sys.platform.startswith("linux"):
            with contextlib.suppress(OSError, AttributeError):
                self._prctl = ctypes.CDLL(None).prctl
        self._limits = [(which, resource.getrlimit(which)) for which in _LIMITS]
        self._timers = [which for which in _TIMERS if _signal.getitimer(which)[0] == 0]
        self._numbers = sorted(_signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
        self._handlers = [_signal.getsignal(number) for number in self._numbers]
        self._mask = self._sigmask(signal.SIG_BLOCK, ())
        self._mode = self._look_at_umask()
        self._fd = self._look_at_wakeup()
        self._nice = os.getpriority(os.PRIO_PROCESS, 0)
        self._affinity = self._look_at_affinity()
        self._irrevocable = self._look_at_irrevocable()
        self._death = self._look_at_death()

    def mend(self) -> bool:
        """Put back what was changed. False if something cannot be."""
        for which in self._timers:
            if _signal.getitimer(which)[0] > 0:
                self._setitimer(which, 0)
        if self._sigmask(signal.SIG_BLOCK, ()) != self._mask:
            self._sigmask(signal.SIG_SETMASK, self._mask)
        now = [_signal.getsignal(number) for number in self._numbers]
        if now != self._handlers:
            for number, before, found in zip(self._numbers, self._handlers, now, strict=True):
                if before is not None and before != found:
                    self._set_signal(number, before)
                    if number == stack_dumps.ASK:
                        stack_dumps.listen_again()
        if self._look_at_umask() != self._mode:
            self._umask(self._mode)
        if self._look_at_wakeup() != self._fd:
            self._wakeup(self._fd)
        return self._mend_rights()

    def _mend_rights(self) -> bool:
        for which, before in self._limits:
            if resource.getrlimit(which) != before:
                try:
                    self._setrlimit(which, before)
                except (OSError, ValueError):
                    if which != resource.RLIMIT_CORE:  # nobody misses that one
                        return False
        try:
            if os.getpriority(os.PRIO_PROCESS, 0) != self._nice:
                original("os", "setpriority")(os.PRIO_PROCESS, 0, self._nice)
            if self._setaffinity is not None and os.sched_getaffinity(0) != self._affinity:
                self._setaffinity(0, self._affinity)
        except OSError:
            return False
        if self._look_at_death() != self._death and self._prctl is not None:
            self._prctl(_SET_PDEATHSIG, self._death, 0, 0, 0)
        return self._look_at_irrevocable() == self._irrevocable

    # -- looking -----------------------------------------------------------------------------------

    def _look_at_umask(self) -> int:
        mode: int = self._umask(0o022)
        if mode != 0o022:
            self._umask(mode)
        return mode

    def _look_at_wakeup(self) -> int:
        fd: int = self._wakeup(-1)
        if fd != -1:
            self._wakeup(fd, warn_on_full_buffer=False)
        return fd

    def _look_at_affinity(self) -> set[int]:
        return os.sched_getaffinity(0) if self._setaffinity is not None else set()

    def _look_at_irrevocable(self) -> list[Any]:
        """Ids, the scheduler's policy, the root directory, and what prctl() allows in one direction only."""
        found: list[Any] = [getattr(os, name)() for name in _IDS if hasattr(os, name)]
        if hasattr(os, "sched_getscheduler"):
            found.append(os.sched_getscheduler(0))
        root = os.stat("/")
        found.append((root.st_dev, root.st_ino))
        if self._prctl is not None:
            found += [self._prctl(option, 0, 0, 0, 0) for option in _ONE_WAY]
        return found

    def _look_at_death(self) -> int:
        number = ctypes.c_int(0)
        if self._prctl is not None:
            self._prctl(_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
        return number.value
