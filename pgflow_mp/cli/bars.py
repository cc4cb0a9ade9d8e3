"""A bar with a rate on standard error, where that is a terminal and something takes its time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

_QUIET: Final = 1.0
"""Seconds: what is done sooner shows nothing."""
_EVERY: Final = 0.1
_STRIDE: Final = 256  # elements between two looks at the clock

T = TypeVar("T")


def counted(elements: Iterable[T], total: int | None, what: str, *, shows: bool = True) -> Iterator[T]:
    """The elements; a bar says how many of ``total`` there were, if ``shows`` and after a second."""
    if not shows or not sys.stderr.isatty():
        yield from elements
        return
    began = time.monotonic()
    count = 0
    iterator = iter(elements)
    for element in iterator:
        yield element
        count += 1
        if count % _STRIDE == 0 and time.monotonic() - began > _QUIET:
            break
    else:
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        TextColumn("{task.completed:,.0f} items, {task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=total, completed=count, rate=0.0)
        said = 0.0
        for element in iterator:
            yield element
            count += 1
            if count % _STRIDE == 0 and (now := time.monotonic()) - said > _EVERY:
                said = now
                progress.update(task, completed=count, rate=count / (now - began))
