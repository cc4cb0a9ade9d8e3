"""What may not be called where it would start again and again: while a flow is imported, or in a handler.

Every process of a worker imports the flow's module. A module that executes its flow when it is imported
would do so in each of them, and so on. Whoever imports a target does it in ``importing()``; whatever
executes, serves or starts flows asks ``refuse()`` first.
"""

from __future__ import annotations

import contextlib
import linecache
import os
import sys
import threading
from collections.abc import Iterator
from typing import Final

from pgflow_mp.errors import FlowDefinitionError, PermanentError

_VARIABLE: Final = "PGFLOW_MP_IMPORTING"
"""Set while a target is imported: commands that the module starts meanwhile inherit it."""
_HERE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_is_lane = False


class _Depth(threading.local):
    """Of this thread; others of the process may have business of their own."""

    imports = 0
    handlers = 0


_depth: Final = _Depth()
_inherited: Final = os.environ.pop(_VARIABLE, "")
"""What was being imported by the process that started this one, at the time."""


@contextlib.contextmanager
def importing(place: str) -> Iterator[None]:
    """In the block a target is imported; ``place`` says which, as messages name it."""
    _depth.imports += 1
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = place
    try:
        yield
    finally:
        _depth.imports -= 1
        if before is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = before


@contextlib.contextmanager
def executing() -> Iterator[None]:
    """In the block handlers are executed."""
    _depth.handlers += 1
    try:
        yield
    finally:
        _depth.handlers -= 1


def become_lane() -> None:
    """From here on this process, with all of its threads, imports and executes handlers, nothing else."""
    global _is_lane
    _is_lane = True


def is_inside() -> bool:
    """Whether a target is being imported here, or handlers are executed."""
    return bool(_is_lane or _depth.imports or _depth.handlers)


def refuse(call: str, *, in_handlers: bool = True) -> None:
    """Raise if ``call`` (``run()``, for messages) is made while a target is imported, or by a handler.

    Raises FlowDefinitionError with the line of the call, or PermanentError: a retry would not help.
    """
    if _depth.imports or _is_being_spawned():
        where, code = _caller()
        raise FlowDefinitionError(
            f"{where} calls {call} while the file is imported" + (f": {code}" if code else ""),
            hint=_GUARD,
        )
    if _inherited:
        raise FlowDefinitionError(
            f"{call} was called in a process that was started by importing {_inherited}", hint=_GUARD
        )
    if in_handlers and (_is_lane or _depth.handlers):
        where, _ = _caller()
        raise PermanentError(
            f"{where} calls {call} in a handler: a process that executes items cannot execute a run as well",
            hint="Make it a step of this flow; or start the run with Client().start_flow() and leave it to "
            "the workers; or use pgflow_mp.testing.run_inline().",
        )


_GUARD: Final = (
    "Every process of a worker imports the file, and would make the call again. "
    "Put it under a guard:  if __name__ == '__main__':"
)


def _is_being_spawned() -> bool:
    """Whether multiprocessing imports the script of its parent in this process."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and bool(getattr(process.current_process(), "_inheriting", False))


def _caller() -> tuple[str, str]:
    """``file, line N`` of the innermost line that is not ours, and its code."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}, line {line}", linecache.getline(file, line).strip()
