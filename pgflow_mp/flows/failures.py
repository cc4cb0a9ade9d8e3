"""The text that is stored when a task fails: bounded, safe for PostgreSQL, user's frames only."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Final

MAX_BYTES: Final = 8 * 1024
_MAX_HEAD: Final = 2 * 1024
_MAX_FRAMES: Final = 40
_MAX_NOTES: Final = 40
_OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_EXAMPLES: Final = _OURS + "examples" + os.sep


class Failed:
    """In the answer of a handler of batches: the item in this place failed.

    ``error`` is an exception or a text. No retry is made of a PermanentError, or if it is ``permanent``.
    """

    __slots__ = ("error", "permanent")

    def __init__(self, error: BaseException | str, *, permanent: bool = False) -> None:
        self.error: BaseException | str = error
        self.permanent: bool = permanent

    def __repr__(self) -> str:
        return f"Failed({self.error!r}{', permanent=True' if self.permanent else ''})"


def describe_exception(error: BaseException) -> bytes:
    """``Type: message`` first, then the traceback without our frames; UTF-8, at most 8 kB, never raises."""
    try:
        text = _describe(error)
    except BaseException:  # noqa: BLE001 - whatever a user's exception does when it is printed
        text = f"{type(error).__name__}: <the exception cannot be printed>"
    return safe_text(text)


def safe_text(text: str, limit: int = MAX_BYTES) -> bytes:
    """``text`` as UTF-8 that PostgreSQL stores: NUL and lone surrogates are written as escapes."""
    encoded = _cut(text, limit).replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    if len(encoded) <= limit:
        return encoded
    head = min(_MAX_HEAD, limit // 2)
    gap = b"\n[...]\n"
    start = encoded[:head].decode("utf-8", "ignore").encode()
    return (
        start + gap + encoded[len(encoded) - (limit - head - len(gap)) :].decode("utf-8", "ignore").encode()
    )


def _cut(text: str, limit: int = MAX_BYTES) -> str:
    """Both ends of a text that is far too long, before anything makes copies of it or splits it."""
    return text if len(text) <= 2 * limit else f"{text[:limit]}\n[...]\n{text[-limit:]}"


def _cut_all(report: traceback.TracebackException) -> None:
    """Cut what exceptions say, theirs and those of all that are linked with them."""
    waiting, seen = [report], {id(report)}
    while waiting:
        link = waiting.pop()
        for name in ("_str", "msg", "text"):  # the first has no public name
            if isinstance(said := getattr(link, name, None), str):
                setattr(link, name, _cut(said))
        if isinstance(notes := getattr(link, "__notes__", None), list):
            link.__notes__ = [_cut(note) if isinstance(note, str) else note for note in notes[:_MAX_NOTES]]
        for other in (link.__cause__, link.__context__, *(link.exceptions or ())):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def _describe(error: BaseException) -> str:
    for link in _links(error):
        if link.__traceback__ is not None:
            link.__traceback__ = _without_ours(link.__traceback__)
    report = traceback.TracebackException.from_exception(error, limit=-_MAX_FRAMES, compact=True)
    _cut_all(report)
    head = "".join(report.format_exception_only()).strip()
    if isinstance(error, SystemExit):
        head += " (the handler called sys.exit)" if report.stack else ""
    if error.__traceback__ is None and error.__cause__ is None and error.__context__ is None:
        return head
    return f"{head}\n\n{''.join(report.format(chain=True)).rstrip()}"


def _links(error: BaseException) -> Iterator[BaseException]:
    """The exception, its causes and contexts, and the members of groups; each one once."""
    waiting, seen = [error], {id(error)}
    while waiting:
        link = waiting.pop()
        yield link
        members = link.exceptions if isinstance(link, BaseExceptionGroup) else ()
        for other in (link.__cause__, link.__context__, *members):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)


def _without_ours(trace: TracebackType) -> TracebackType | None:
    """Drop our frames from the top of a traceback; what a handler calls stays, even where it is ours."""
    current: TracebackType | None = trace
    while current is not None:
        file = os.path.abspath(current.tb_frame.f_code.co_filename)
        if not file.startswith(_OURS) or file.startswith(_EXAMPLES):
            return current
        current = current.tb_next
    return None
