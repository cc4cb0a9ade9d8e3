"""Tells when a handler calls what changes its process in ways that only system calls can show.

Looking at limits, timers, masks and the like after every item would take longer than short items do. So
the functions of the standard library that change them are replaced by ones that note the call and pass it on.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

_CALLS: Final = {
    ("os", "posix"): (
        "chdir fchdir chroot umask nice setpriority sched_setaffinity sched_setscheduler sched_setparam "
        "setuid seteuid setreuid setresuid setgid setegid setregid setresgid setgroups initgroups "
        "dup2 putenv unsetenv"
    ),
    ("signal", "_signal"): "alarm setitimer set_wakeup_fd siginterrupt",
    ("_signal",): "signal pthread_sigmask",
    ("resource",): "setrlimit prlimit",
    ("locale", "_locale"): "setlocale",
    ("gc",): "set_threshold enable disable",
    ("sys",): "setrecursionlimit setswitchinterval set_int_max_str_digits settrace setprofile",
    ("socket", "_socket"): "setdefaulttimeout",
    ("threading", "_thread"): "stack_size",
    ("random",): "seed setstate",
}


class Heard:
    """What was called since the last look."""

    __slots__ = ("anything", "seeded")

    def __init__(self) -> None:
        self.anything = False
        self.seeded = False


heard: Final = Heard()


class Listener:
    """Stands for a function of the standard library; unlike a Python function it becomes no method."""

    __slots__ = ("__wrapped__", "_place", "_seeds")

    def __init__(self, function: Any, place: tuple[str, str], *, seeds: bool) -> None:
        self.__wrapped__ = function
        self._place = place
        self._seeds = seeds

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        heard.anything = True
        if self._seeds:
            heard.seeded = True
        return self.__wrapped__(*arguments, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> tuple[Any, ...]:
        return _attribute, self._place


def _attribute(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def original(module: str, name: str) -> Any:
    """The function itself: what we call is not to be noted."""
    function = _attribute(module, name)
    return function.__wrapped__ if isinstance(function, Listener) else function


def begin() -> None:
    """Listen from here on; before user code is imported, which may keep the functions. Repeatable."""
    for names, functions in _CALLS.items():
        modules = [importlib.import_module(name) for name in names]
        for function in functions.split():
            _listen(modules, function)
    streams: tuple[Any, ...] = (sys.stdout, sys.stderr)
    for stream in streams:
        method = getattr(stream, "reconfigure", None)
        if hasattr(stream, "__dict__") and method is not None and not isinstance(method, Listener):
            stream.reconfigure = Listener(method, ("sys", ""), seeds=False)


def listen_to_numpy() -> None:
    """Its global generator, if it has been imported."""
    module = sys.modules.get("numpy.random")
    if module is not None:
        for function in ("seed", "set_state"):
            _listen([module], function)


def _listen(modules: list[Any], name: str) -> None:
    function = getattr(modules[0], name, None)
    if function is None or isinstance(function, Listener):
        return
    listener = Listener(
        function, (modules[0].__name__, name), seeds=name in ("seed", "setstate", "set_state")
    )
    for module in modules:
        if getattr(module, name, None) is function:
            setattr(module, name, listener)
