"""The interpreter's settings, as they were when the target was loaded, and put back to that."""

from __future__ import annotations

import contextlib
import gc
import io
import locale
import logging
import multiprocessing
import os
import random
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any, Final

from pgflow_mp.executors.lanes.decimals import Decimals
from pgflow_mp.executors.lanes.listening import heard, original

_root: Final = logging.getLogger()
_manager: Final[Any] = _root.manager
_default: Final[Any] = multiprocessing.context._default_context
_Put = Callable[[Any], object]


def _state() -> tuple[Any, ...]:
    """What costs next to nothing to look at, and is changed without a call; _PUT has the same order."""
    return (
        sys.stdin,
        sys.stdout,
        sys.stderr,
        sys.excepthook,
        sys.displayhook,
        sys.dont_write_bytecode,
        sys.unraisablehook,
        threading.excepthook,
        warnings.showwarning,
        tempfile.tempdir,
        _root.level,
        _manager._disable,
        _default._actual_context,
    )


def _attribute(owner: Any, name: str) -> _Put:
    return lambda value: setattr(owner, name, value)


def _set_tempdir(before: Any) -> None:
    """It is found out when it is first asked for, and that takes a while."""
    tempfile.tempdir = before
    if before is None:
        tempfile.gettempdir()


_PUT: Final[tuple[_Put, ...]] = (
    _attribute(sys, "stdin"),
    _attribute(sys, "stdout"),
    _attribute(sys, "stderr"),
    _attribute(sys, "excepthook"),
    _attribute(sys, "displayhook"),
    _attribute(sys, "dont_write_bytecode"),
    _attribute(sys, "unraisablehook"),
    _attribute(threading, "excepthook"),
    _attribute(warnings, "showwarning"),
    _set_tempdir,
    _root.setLevel,
    logging.disable,
    _attribute(_default, "_actual_context"),
)
_TEMPDIR: Final = 9
_CALLED: Final[tuple[tuple[Callable[[], Any], str, str], ...]] = (
    (sys.getrecursionlimit, "sys", "setrecursionlimit"),
    (sys.getswitchinterval, "sys", "setswitchinterval"),
    (sys.get_int_max_str_digits, "sys", "set_int_max_str_digits"),
    (sys.gettrace, "sys", "settrace"),
    (sys.getprofile, "sys", "setprofile"),
    (socket.getdefaulttimeout, "socket", "setdefaulttimeout"),
    (threading.stack_size, "threading", "stack_size"),
)
"""(how to look, module and name of what puts it back)."""


def _watch(before: tuple[Any, ...], lists: list[list[Any]], decimals: Decimals) -> Callable[[], bool]:
    """A function that says whether anything was heard, _state(), one of the lists or the context of decimals
    is not as it was, or a stream is closed.

    Written out, since it is called after every item: a loop over them would take three times as long.
    """
    stdin, stdout, stderr, hook, display, bytecode, unraisable = before[:7]
    thread_hook, show, directory, level, disabled, method = before[7:]
    path, filters, handlers, arguments = lists
    number, precision, more = decimals.number, decimals.number.prec, decimals.is_changed

    def is_changed() -> bool:
        return not (
            not heard.anything
            and sys.stdout is stdout
            and sys.stderr is stderr
            and sys.stdin is stdin
            and sys.excepthook is hook
            and sys.displayhook is display
            and sys.dont_write_bytecode == bytecode
            and sys.unraisablehook is unraisable
            and threading.excepthook is thread_hook
            and warnings.showwarning is show
            and tempfile.tempdir == directory
            and _root.level == level
            and _manager._disable == disabled
            and _default._actual_context is method
            and sys.path == path
            and warnings.filters == filters
            and _root.handlers == handlers
            and sys.argv == arguments
            and number.prec == precision
            and not stdout.closed
            and not stderr.closed
            and (more is None or not more())
        )

    return is_changed


class Interpreter:
    """Made once the target is loaded. ``is_changed`` is for every item, ``mend`` for when it says so."""

    is_changed: Callable[[], bool]
    """Whether something is not as it was, or a standard stream is closed; raises if that cannot be told."""

    def __init__(self) -> None:
        self._before = _state()
        self._path, self._filters, self._handlers = sys.path, warnings.filters, _root.handlers
        self._arguments = sys.argv
        lists: list[list[Any]] = [sys.path, list(warnings.filters), _root.handlers, sys.argv]
        self._copies = [list(each) for each in lists]
        self._streams: list[tuple[Any, dict[str, Any]]] = [
            (stream, _form_of(stream)) for stream in (sys.stdout, sys.stderr)
        ]
        self._called = [look() for look, _, _ in _CALLED]
        self._collects = gc.isenabled()
        self._data: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
        self._environment = dict(self._data)
        self._thresholds = gc.get_threshold()
        self._decimals = Decimals()
        self.contexts = self._decimals.contexts
        """Makes the context of variables that the next item runs in."""
        self.is_changed = self._watch()
        self._policy = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
        self._locale = original("locale", "setlocale")
        self._language = _text(self._locale)

    def _watch(self) -> Callable[[], bool]:
        return _watch(self._before, self._copies, self._decimals)

    def mend(self) -> bool:
        """Put back what is_changed() has found."""
        for before, now, put in zip(self._before, _state(), _PUT, strict=True):
            if before is not now and before != now:
                with contextlib.suppress(Exception):
                    put(before)
        found = (*self._before[:_TEMPDIR], tempfile.tempdir, *self._before[_TEMPDIR + 1 :])
        self._before = found
        self._decimals.mend()
        self.is_changed = self._watch()
        path, filters, handlers, arguments = self._copies
        if sys.path != path:
            sys.path = self._path
            sys.path[:] = path
        if warnings.filters != filters:
            warnings.filters = self._filters
            self._filters[:] = filters  # type: ignore[index]
            warnings._filters_mutated()  # type: ignore[attr-defined]
        if _root.handlers != handlers:
            _root.handlers = self._handlers
            _root.handlers[:] = handlers
        if sys.argv != arguments:
            sys.argv = self._arguments
            sys.argv[:] = arguments
        return True

    def mend_rest(self) -> None:
        """Put back what takes longer to look at."""
        for (look, module, name), known in zip(_CALLED, self._called, strict=True):
            if look() != known:
                original(module, name)(known)
        if gc.isenabled() != self._collects:
            original("gc", "enable" if self._collects else "disable")()
        if self._data != self._environment:
            self._mend_environment()
        for stream, form in self._streams:
            if form and not stream.closed and _form_of(stream) != form:
                io.TextIOWrapper.reconfigure(stream, **form)
        if gc.get_threshold() != self._thresholds:
            original("gc", "set_threshold")(*self._thresholds)
        self._decimals.mend()
        if _text(self._locale) != self._language:
            self._locale(locale.LC_ALL, self._language)
        events: Any = sys.modules.get("asyncio.events")
        policy = getattr(events, "_event_loop_policy", None)
        if policy is not self._policy and type(policy).__name__ != "_UnixDefaultEventLoopPolicy":
            events._event_loop_policy = self._policy
        if heard.seeded:
            heard.seeded = False
            _reseed()

    def _mend_environment(self) -> None:
        put, remove = original("os", "putenv"), original("os", "unsetenv")
        data, before = self._data, self._environment
        zone = data.get(b"TZ")
        for name in data.keys() - before.keys():
            del data[name]
            remove(name)
        for name, value in before.items():
            if data.get(name) != value:
                data[name] = value
                put(name, value)
        if zone != data.get(b"TZ"):
            time.tzset()


def _form_of(stream: Any) -> dict[str, Any]:
    """What reconfigure() changes of a stream; nothing where it is none of Python's own."""
    names = ("encoding", "errors", "line_buffering", "write_through")
    is_ours = isinstance(stream, io.TextIOWrapper) and not stream.closed
    return {name: getattr(stream, name) for name in names} if is_ours else {}


def _text(setlocale: Callable[..., str]) -> str:
    return setlocale(locale.LC_ALL)


def _reseed() -> None:
    """What an item draws is not to depend on the seed of another one."""
    random.Random.seed(random._inst)
    module: Any = sys.modules.get("numpy.random")
    if module is not None:
        getattr(module.seed, "__wrapped__", module.seed)()
