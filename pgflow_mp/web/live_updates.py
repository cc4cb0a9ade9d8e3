"""Keeping pages up to date: one look into the database for all who look at the same page.

A page is drawn again every second at most, and so seldom that drawing takes a sixtieth of the time; only
the parts that differ are sent. Nothing is asked while nobody looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final

from pgflow_mp.errors import PgflowError

MOST_VIEWERS: Final = 200
MOST_PAGES: Final = 40
_SHARE: Final = 60
"""Of the time that drawing takes: the pause after it is at least so many times as long."""
_LONGEST_PAUSE: Final = 5.0
_QUIET: Final = 5.0
"""Seconds between looks at what is over."""

Parts = dict[str, str]


class TooMany(PgflowError):
    """So many look on that no more can be served."""


class _Viewer:
    """What a browser has not got yet; newer parts take the place of older ones, so it never grows."""

    def __init__(self) -> None:
        self.parts: Parts = {}
        self.trouble: str | None = None
        self.woken = asyncio.Event()


class _Watched:
    """A page that somebody looks at."""

    def __init__(self) -> None:
        self.viewers: set[_Viewer] = set()
        self.last: Parts = {}
        self.task: asyncio.Task[None] | None = None


class Pump:
    """``draw(page)`` answers the parts of a page, and whether it is over.

    Threads: the event loop's alone, but ``draw`` is called in others, one at a time.
    """

    def __init__(self, draw: Callable[[str], tuple[Parts, bool]], interval: float = 1.0) -> None:
        self._draw = draw
        self._interval = interval
        self._watched: dict[str, _Watched] = {}
        self._one = asyncio.Lock()
        self.looks = 0
        """How often a page was drawn."""

    @property
    def viewers(self) -> int:
        """How many look on."""
        return sum(len(watched.viewers) for watched in self._watched.values())

    def check_room(self, page: str) -> None:
        """Raise TooMany if one more cannot be served."""
        full = len(self._watched) >= MOST_PAGES and page not in self._watched
        if full or self.viewers >= MOST_VIEWERS:
            raise TooMany(f"{self.viewers} look on already; this page does not change by itself")

    async def follow(self, page: str) -> AsyncGenerator[tuple[str, str], None]:
        """(event, data) for one viewer until they leave: "parts" of JSON, or "trouble" with a text."""
        watched = self._watched.setdefault(page, _Watched())
        viewer = _Viewer()
        viewer.parts.update(watched.last)
        watched.viewers.add(viewer)
        if viewer.parts:
            viewer.woken.set()
        if watched.task is None:
            watched.task = asyncio.create_task(self._watch(page, watched))
        try:
            while True:
                await viewer.woken.wait()
                viewer.woken.clear()
                if viewer.trouble is not None:
                    trouble, viewer.trouble = viewer.trouble, None
                    yield "trouble", trouble
                if viewer.parts:
                    parts, viewer.parts = viewer.parts, {}
                    yield "parts", json.dumps(parts)
        finally:
            watched.viewers.discard(viewer)
            if not watched.viewers:
                if watched.task is not None:
                    watched.task.cancel()
                if self._watched.get(page) is watched:
                    del self._watched[page]

    async def close(self) -> None:
        """Stop looking."""
        tasks = [watched.task for watched in self._watched.values() if watched.task is not None]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _watch(self, page: str, watched: _Watched) -> None:
        was_in_trouble = False
        times: deque[float] = deque(maxlen=3)
        while watched.viewers:
            began, over = time.monotonic(), False
            try:
                async with self._one:
                    began = time.monotonic()
                    parts, over = await asyncio.to_thread(self._draw, page)
                    self.looks += 1
                changed = {name: html for name, html in parts.items() if watched.last.get(name) != html}
                watched.last = parts
                trouble = "" if was_in_trouble else None
                was_in_trouble = False
            except PgflowError as error:
                changed, trouble, was_in_trouble = {}, str(error), True
            for viewer in watched.viewers:
                viewer.parts.update(changed)
                if trouble is not None:
                    viewer.trouble = trouble
                if changed or trouble is not None:
                    viewer.woken.set()
            times.append(time.monotonic() - began)
            least = max(self._interval, _QUIET) if over else self._interval
            await asyncio.sleep(max(least, min(_LONGEST_PAUSE, _SHARE * min(times))))
