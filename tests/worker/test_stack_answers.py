"""A worker that is asked where its code is answers, and works on whatever comes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from worker_harness import adapted

from pgflow_mp.db import engine, stack_questions
from pgflow_mp.db.engine import Connection
from pgflow_mp.executors.stacks import Frame, LaneStack
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.handlers import prepare
from pgflow_mp.worker.heartbeat import Upkeep
from pgflow_mp.worker.stack_answers import StackAnswers

WORKER = "11111111-1111-1111-1111-111111111111"


class Shows:
    """An executor's lane whose stack is as told."""

    def __init__(self, *frames: Frame) -> None:
        self.frames = frames
        self.asked = 0

    def stacks(self, wait: float) -> Sequence[LaneStack]:
        self.asked += 1
        if not self.frames:
            raise OSError("no room")
        return [LaneStack(3, 42, self.frames, None, "s", 7, 1.5)]


@contextmanager
def serving(dsn: str, executor: object) -> Iterator[Connection]:
    """The upkeep of a worker with this executor; nothing of it fails."""
    said: list[Any] = []
    answers = StackAnswers(executor, lambda: [WORKER])
    thread = Upkeep(dsn, said.append, run_id=None, answers=answers)
    answers.wake = thread.wake
    with adapted(dsn) as conn:
        conn.execute("select pgflow.create_flow('f')")
        engine.register_worker(conn, WORKER, "f", "w", 3600)
        thread.start()
        try:
            yield conn
            assert [each for each in said if "Failed" in type(each).__name__] == []
            assert thread.is_alive()
        finally:
            thread.stop()
            thread.join()
            thread.close()


def answer(conn: Connection, seconds: float = 10.0) -> stack_questions.StackAnswer | None:
    questions, until = stack_questions.ask_stacks(conn, [WORKER]), time.monotonic() + seconds
    while time.monotonic() < until:
        if found := stack_questions.stack_answers(conn, [*questions.values()]):
            return next(iter(found.values()))
        time.sleep(0.02)
    return None


def test_it_tells_what_its_lanes_and_its_own_threads_do(dsn: str) -> None:
    frame = Frame("a\0b\udc80.py", 5, "f" * 5000, 'ü = connect("postgresql://me:secret@host")')
    with serving(dsn, Shows(frame)) as conn:
        told = answer(conn)
        assert told is not None
        [lane] = told.lanes
        assert (lane.lane, lane.pid, lane.step, lane.index, lane.seconds) == (3, 42, "s", 7, 1.5)
        assert lane.frames == [("a\ufffdb?.py", 5, "f" * 1000, 'ü = connect("postgresql://me:***@host")')]
        assert threading.main_thread().name in {thread.name for thread in told.threads}


def test_one_that_hears_questions_all_the_time_is_not_kept_busy_by_them(dsn: str) -> None:
    shows = Shows(Frame("a.py", 1, "f"))
    with serving(dsn, shows) as conn:
        assert answer(conn) is not None
        asked, until = shows.asked, time.monotonic() + 0.5
        with adapted(dsn) as other:
            while time.monotonic() < until:
                other.execute("select pg_notify('pgflow_stacks', gen_random_uuid()::text)")
        assert answer(conn) is not None
        assert shows.asked <= asked + 2


def test_of_a_thread_that_runs_an_item_the_item_s_code_is_shown(dsn: str) -> None:
    entered, released = threading.Event(), threading.Event()

    def handler(number: int) -> int:
        entered.set()
        released.wait(20)
        return number

    flow = Flow("threaded")
    flow.map("s", handler)
    step: Any = prepare(flow, "s")
    thread = threading.Thread(target=step.call, args=(b"1", b"null", None), name="an item")
    thread.start()
    try:
        entered.wait(20)
        with serving(dsn, object()) as conn:
            told = answer(conn)
            assert told is not None
            [shown] = [each for each in told.threads if each.works]
            assert shown.name == "an item"
            assert shown.frames[-1].source == "released.wait(20)"
            assert shown.frames[-1].function.endswith("handler")
    finally:
        released.set()
        thread.join()


@pytest.mark.parametrize("executor", [object(), Shows()], ids=["shows none", "fails"])
def test_one_whose_executor_shows_nothing_goes_on(dsn: str, executor: object) -> None:
    with serving(dsn, executor) as conn:
        told = answer(conn, 10.0 if not isinstance(executor, Shows) else 0.5)
        assert (told is not None and told.lanes == []) or (isinstance(executor, Shows) and executor.asked)


def test_too_many_frames_are_told_as_far_as_there_is_room(dsn: str) -> None:
    many = [Frame("x" * 900, 1, "f" * 900, "s" * 900)] * 2000
    with serving(dsn, Shows(*many)) as conn:
        told = answer(conn)
        assert told is not None
        assert 50 < len(told.lanes[0].frames) < 2000


def test_in_a_database_that_knows_no_such_questions_it_goes_on(dsn: str) -> None:
    with adapted(dsn) as conn:
        conn.execute("drop function pgflow.open_stack_questions(uuid[])")
    with serving(dsn, Shows(Frame("a.py", 1, "f"))) as conn:
        assert answer(conn, 0.5) is None
