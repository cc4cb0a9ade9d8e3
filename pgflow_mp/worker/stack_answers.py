"""A worker that is asked where its code is answers: what its lanes run, and its own threads.

Lanes are asked on a thread of its own, which nobody waits for; the answer goes by the connection of the
thread that ticks.

Threads: tick() belongs to the thread with the connection; what collects only appends to what that one takes
from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import psycopg

from pgflow_mp.db import stack_questions
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.hints import REST, Hints
from pgflow_mp.db.stack_questions import FrameRow, LaneAnswer, StackAnswer, ThreadAnswer
from pgflow_mp.executors.stacks import Frame, LaneStack, ShowsStacks, stacks_of_threads, with_source
from pgflow_mp.redaction import redact

_log: Final = logging.getLogger("pgflow_mp")

_EVERY: Final = 3.0  # seconds between looks, where nothing is heard
_WAIT: Final = 2.0  # seconds that lanes have
_MOST: Final = 400_000  # characters of an answer
_HOPELESS: Final = (psycopg.errors.UndefinedFunction, psycopg.errors.InsufficientPrivilege)


class StackAnswers:
    """``executor`` may be one that shows no stacks. ``wake`` is called when there is something for tick()."""

    def __init__(self, executor: object, worker_ids: Callable[[], Sequence[str]]) -> None:
        self.wake: Callable[[], None] = lambda: None
        self._executor = executor
        self._worker_ids = worker_ids
        self._collected: deque[tuple[list[str], StackAnswer]] = deque()
        self._collecting = threading.Event()
        self._listening: tuple[Connection, Hints] | None = None
        self._off = False
        self._looked = self._heard = 0.0

    def tick(self, conn: Connection) -> None:
        """Look whether somebody asks, where it may be; pass on what has been collected.

        To be called every few seconds, and when the connection can be read. Raises only where it is lost.
        """
        heard, now = self._hear(conn), time.monotonic()
        if self._off or not (heard or self._collected or now >= self._looked + _EVERY):
            return
        self._looked = now
        try:
            self._pass_on(conn)
            ids = self._worker_ids()
            if ids and not self._collecting.is_set() and (asked := stack_questions.open_questions(conn, ids)):
                self._collecting.set()
                threading.Thread(
                    target=self._collect, args=(asked,), name="pgflow-stacks", daemon=True
                ).start()
        except psycopg.Error as error:
            if conn.closed or conn.broken:
                raise
            self._off = isinstance(error, _HOPELESS)
            self._collected.clear()
            _log.debug("stacks cannot be told: %s", error)

    def _hear(self, conn: Connection) -> bool:
        """Whether this connection has heard that somebody asks; it rests a while after that."""
        if self._listening is None or self._listening[0] is not conn:
            self._listening = conn, Hints(conn, stack_questions.CHANNEL, lambda _: b"")
            return True
        hints = self._listening[1]
        if not hints.read():
            return False
        hints.take()
        if (left := self._heard + REST - time.monotonic()) > 0:
            time.sleep(left)
        self._heard = time.monotonic()
        return True

    def _pass_on(self, conn: Connection) -> None:
        while self._collected:
            questions, told = self._collected[0]
            for question in questions:
                stack_questions.answer(conn, question, told)
            self._collected.popleft()

    def _collect(self, questions: list[str]) -> None:
        try:
            lanes: Iterable[LaneStack] = ()
            if isinstance(self._executor, ShowsStacks):
                lanes = self._executor.stacks(_WAIT)
            room = _Room()
            told = StackAnswer(
                lanes=[_lane(lane, room.rows(lane.frames)) for lane in lanes],
                threads=[
                    ThreadAnswer(
                        name=stack.name, works=stack.works, frames=room.rows(with_source(stack.frames))
                    )
                    for stack in stacks_of_threads()
                ],
            )
            self._collected.append((questions, told))
        except Exception:  # noqa: BLE001 - whoever asked waits in vain; the work goes on
            _log.debug("stacks cannot be told", exc_info=True)
        finally:
            self._collecting.clear()
            self.wake()


class _Room:
    """An answer has its bounds: frames are told as long as there is room."""

    def __init__(self) -> None:
        self._left = _MOST

    def rows(self, frames: Iterable[Frame]) -> list[FrameRow]:
        """What is no text in UTF-8, or a NUL, is none in the database either, nor is a password."""
        found = []
        for each in frames:
            source = _plain(redact(each.source))
            row = FrameRow(_plain(each.file), each.line, _plain(each.function), source)
            self._left -= 30 + len(row.file) + len(row.function) + len(row.source)
            if self._left < 0:
                break
            found.append(row)
        return found


def _lane(lane: LaneStack, frames: list[FrameRow]) -> LaneAnswer:
    return LaneAnswer(
        lane=lane.lane,
        pid=lane.pid,
        run=lane.run,
        step=lane.step,
        index=lane.index,
        seconds=lane.seconds,
        note=lane.note,
        frames=frames,
    )


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:1000]
