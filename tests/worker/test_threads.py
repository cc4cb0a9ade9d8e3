"""What the worker's threads share: each race that was there, brought about on purpose."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, cast

import psycopg
import pytest
from worker_harness import compiled, settings, start

from pgflow_mp.db import item_ranges
from pgflow_mp.executors.events import Cause, LaneDied, Outcomes
from pgflow_mp.executors.messages import Chunk, Item, Kind, Outcome
from pgflow_mp.worker import claim, crew, worker
from pgflow_mp.worker.batches import AnyBatch, Batch, ItemTimes
from pgflow_mp.worker.course import Course
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.outcomes import Collector
from pgflow_mp.worker.planner import ClaimRequest
from pgflow_mp.worker.progress import SafeObserver
from pgflow_mp.worker.stats import Ending, Stats
from pgflow_mp.worker.wakeup import Wakeup

WORKER = "11111111-1111-4111-8111-111111111111"


def items(count: int, run: Callable[[int], int] = lambda i: 0) -> list[Item]:
    return [Item(i, 1, 100 + i, run(i), 0, b"1", None) for i in range(count)]


def batch_of(found: list[Item], runs: int = 1) -> Batch:
    names = [f"run-{i}" for i in range(runs)]
    return Batch("f", WORKER, names, ["s"], [60.0], found, 62.0, 0.0, size=10)


class _Halting(list[Item]):
    """A list whose reader is interrupted after its first item by ``meanwhile`` on another thread."""

    meanwhile: Callable[[], None]

    def __iter__(self) -> Iterator[Item]:
        for i, item in enumerate(super().__iter__()):
            yield item
            if i == 0:
                thread = threading.Thread(target=self.meanwhile)
                thread.start()
                thread.join(0.2)  # it waits for our lock, or is through


def test_the_main_loop_may_shorten_a_batch_while_the_heartbeat_reads_it() -> None:
    dispatcher = Dispatcher(ItemTimes())
    dispatcher.times.observe("f", "s", 10.0, 1)
    found = _Halting(items(8))
    found.meanwhile = lambda: shed.extend(dispatcher.shed("f", 20.0))
    shed: list[AnyBatch] = []
    dispatcher.add(batch_of(found))
    leases, _ = dispatcher.leases(1000.0, 2.0)
    assert [lease.msg_ids for lease in leases] == [list(range(100, 108))]
    while not shed:
        time.sleep(0.01)
    (lease,) = dispatcher.leases(1000.0, 2.0)[0]
    assert len(lease.msg_ids) + len(shed[0]) == 8


def test_a_lease_is_renewed_even_if_its_batch_is_gone_by_then() -> None:
    dispatcher = Dispatcher(ItemTimes())
    dispatcher.add(batch := batch_of(items(2)))
    ((lease,), pause) = dispatcher.leases(40.0, 2.0)
    assert pause == 2.0
    dispatcher.renewed(lease, 40.0)
    assert dispatcher.leases(41.0, 2.0) == ([], 2.0)
    assert dispatcher.held_runs() == {"run-0"}
    assert dispatcher.leases_of({"run-0"}) == [lease]
    dispatcher.finish(batch, 0, 1)
    dispatcher.renewed(lease, 50.0)
    assert (dispatcher.leases(1000.0, 2.0), dispatcher.held_runs()) == (([], 2.0), set())


class _Handed:
    """A collector over one claim of 40 runs, whose chunks are numbered anew; what it hands back."""

    def __init__(self) -> None:
        self.back: list[tuple[str, int]] = []
        self.dispatcher = Dispatcher(ItemTimes())
        ids = Identities({"f": "f"})
        self.crew = crew.hire(
            settings("", "f"), lambda _: None, {"f": ["s"]}, ids, self.dispatcher, None, lambda _: {}
        )
        self.collector = Collector(
            self.dispatcher,
            self.crew,
            Stats(),
            SafeObserver(None),
            {},
            lambda batch, spans, _limit: self.back.extend(
                (batch.runs[batch.item(i).run], batch.item(i).index) for span in spans for i in range(*span)
            ),
            1,
        )
        self.dispatcher.add(batch_of(items(40, lambda i: 39 - i), 40))
        self.dispatcher.next_chunk(0, 1, 0.0)
        flight = self.dispatcher.next_chunk(0, 1, 0.0)
        assert flight is not None
        self.flight = flight
        assert cast(Chunk, flight.chunk).runs == ["run-38"]

    def close(self) -> None:
        for thread in (self.crew.claimer, self.crew.heartbeat, self.crew.upkeep):
            thread.close()


@pytest.fixture
def handed() -> Iterator[_Handed]:
    handed = _Handed()
    yield handed
    handed.close()


def test_items_that_did_not_run_are_handed_back_to_the_run_they_are_of(handed: _Handed) -> None:
    not_run = Outcome(0, Kind.NOT_RUN, b"", 0.0)
    handed.collector.outcomes(Outcomes(0, 1, handed.flight.chunk.seq, [not_run], True))
    assert handed.back == [("run-38", 1)]


def test_items_that_were_parked_are_handed_back_to_the_run_they_are_of(handed: _Handed) -> None:
    verdict = Outcome(0, Kind.FAILED, b"it crashed", 0.1)
    seq = handed.flight.chunk.seq
    handed.collector.lane_died(LaneDied(0, 1, Cause.CRASH, "exit code 1", seq, verdict, ""))
    handed.collector.judge()
    assert not handed.collector.parking.empty
    handed.collector.hand_back_parked()
    assert handed.back == [("run-38", 1)]


def test_an_id_whose_registration_failed_does_not_beat(dsn: str) -> None:
    start(dsn, "chain", [1])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "alter function pgflow.register_worker(uuid, text, text, interval) rename to register_worker_not"
        )
        conn.execute(
            "create function pgflow.register_worker(uuid, text, text, interval) returns void "
            "language plpgsql as $$ begin raise deadlock_detected; end $$"
        )
        posted: list[Any] = []
        claimer = claim.Claimer(
            dsn, posted.append, worker_name="w", dead_after=10.0, lease=None, steps={"chain": []}
        )
        claimer.start()
        claimer.request(ClaimRequest("chain", "chain", WORKER, 1))
        while not any(type(post).__name__ == "ConnectionState" and post.text for post in posted):
            time.sleep(0.01)
        claimer.stop()
        claimer.join(10)
        claimer.close()
    names = [type(post).__name__ for post in posted]
    assert "ClaimFailed" in names
    assert "Claimed" not in names


def test_what_the_heartbeat_reads_of_the_ids_never_changes() -> None:
    identities = Identities({"f": "f", "g": "g"})
    identities.registered(identities.of("f"))
    read = identities.beating
    identities.registered(identities.of("g"))
    identities.dead([read[0]])
    assert (len(read), identities.beating) == (1, (identities.of("g"),))


def test_stop_requests_of_many_threads_are_all_counted() -> None:
    course = Course()

    def ask() -> None:
        for _ in range(500):
            course.ask_to_stop()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert course.stop_requests == 4000


def test_waking_a_thread_that_does_not_listen_never_blocks() -> None:
    wakeup = Wakeup()
    for _ in range(100_000):  # more than a pipe holds
        wakeup.wake()
    assert not wakeup.wait(0.0)
    wakeup.close()


# -- a signal at each line of the start --------------------------------------------------------------


class _SignalAt:
    """Sends this process SIGTERM before the nth line that is executed of these functions."""

    def __init__(self, nth: int, *functions: Callable[..., object]) -> None:
        self._left = nth
        self._codes = {function.__code__ for function in functions}
        self.sent = False

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        if frame.f_code not in self._codes:
            return None
        if event == "line":
            self._left -= 1
            if self._left == 0:
                self.sent = True
                os.kill(os.getpid(), signal.SIGTERM)
        return self


def run_with_signal_at(dsn: str, nth: int) -> bool:
    """Whether the start has so many lines. The worker ends in order wherever the signal comes."""
    tracer = _SignalAt(nth, worker.Worker._start, crew.Crew.start)
    before = set(threading.enumerate())
    sys.settrace(tracer)
    try:
        report = worker.Worker(settings(dsn, "chain", workers=1)).run(until=lambda: not tracer.sent)
    finally:
        sys.settrace(None)
    assert report.ending is (Ending.REQUESTED if tracer.sent else Ending.CONDITION)
    left = {t for t in set(threading.enumerate()) - before if t.name.startswith("pgflow")}
    assert not left
    return tracer.sent


@pytest.mark.parametrize(
    "back", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(6, marks=pytest.mark.slow)]
)
def test_a_signal_while_the_threads_are_started_ends_the_worker_in_order(dsn: str, back: int) -> None:
    compiled(dsn, "chain")
    lines = _lines_of_start(dsn)
    assert run_with_signal_at(dsn, lines - back)


@pytest.mark.slow
def test_a_signal_at_any_line_of_the_start_ends_the_worker_in_order(dsn: str) -> None:
    compiled(dsn, "chain")
    nth = 1
    while run_with_signal_at(dsn, nth):
        nth += 1
    assert nth > 30


def _lines_of_start(dsn: str) -> int:
    tracer = _SignalAt(0, worker.Worker._start, crew.Crew.start)
    sys.settrace(tracer)
    try:
        worker.Worker(settings(dsn, "chain", workers=1)).run(until=lambda: True)
    finally:
        sys.settrace(None)
    return -tracer._left


def test_what_the_claimer_sees_of_others_the_settler_knows(handed: _Handed) -> None:
    passed_over = item_ranges.ItemLease("run-1", "s", 7, 1, 1, 60)
    handed.crew.claimer._sharing.note([passed_over])
    is_shared = handed.crew.settler._recorder._is_shared
    assert (is_shared("run-1"), is_shared("run-2")) == (True, False)
