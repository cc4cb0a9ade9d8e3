"""How fast a step is and how long it will take, and what a worker says of runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from range_harness import start_in_ranges
from worker_harness import eventually, settings, threaded

from pgflow_mp import logs
from pgflow_mp.observe.observer import FailedAttempt, ProgressSnapshot, RunNote, Steer
from pgflow_mp.observe.plain import PlainObserver
from pgflow_mp.worker import run_notes
from pgflow_mp.worker.run_notes import RunNotes
from pgflow_mp.worker.snapshots import Pace
from pgflow_mp.worker.worker import Worker


def paced(*done: int, every: float = 0.5) -> Pace:
    pace = Pace()
    for number, count in enumerate(done):
        pace.update(number * every, count)
    return pace


def test_the_first_rate_is_that_of_all_that_was_done_and_no_burst() -> None:
    assert paced(0, 200, 200, 200, 200).rate == pytest.approx(100)
    assert paced(5000, 5010, 5020).rate == pytest.approx(20)
    assert paced(7).left(10) == (None, None)
    pace = paced(0, 200, 200)
    assert not pace.stands_still(10.0)
    assert pace.stands_still(10.6)


def test_a_spread_is_told_once_it_is_known_and_grows_with_the_unevenness() -> None:
    even = [10 * n for n in range(121)]
    assert paced(*even[:20]).left(100)[1] is None
    assert list(paced(*even).left(100)) == pytest.approx([5.0, 0.0], abs=1e-6)
    bumpy = [sum(20 * (m // 10 % 2) for m in range(n)) for n in range(121)]
    eta, spread = paced(*bumpy).left(100)
    assert eta is not None
    assert spread is not None
    assert 0.2 * eta < spread <= eta


class Watcher:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.snapshots: list[ProgressSnapshot] = []
        self.runs: list[RunNote] = []
        self.failures: list[FailedAttempt] = []
        self.steer: Steer | None = None

    def attach(self, steer: Steer) -> None:
        self.steer = steer

    def on_state(self, state: str) -> None: ...

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        self.snapshots.append(snapshot)

    def on_message(self, level: str, text: str) -> None: ...

    def on_failure(self, failure: FailedAttempt) -> None:
        self.failures.append(failure)

    def on_run(self, note: RunNote) -> None:
        self.runs.append(note)


def test_failures_of_another_run_are_not_counted_for_the_one_that_is_served(dsn: str) -> None:
    other = start_in_ranges(dsn, "mischief", [["permanent", "no"]] * 5)
    run = start_in_ranges(dsn, "mischief", [["echo", 1]] * 50 + [["sleep", 1.2]])
    watcher = Watcher()
    report = Worker(settings(dsn, "mischief"), observer=watcher).run(run_id=run)
    assert report.run_status == "completed"
    assert {failure.run for failure in watcher.failures} == {other}
    assert {step.failed for snapshot in watcher.snapshots for step in snapshot.steps} == {0}


class Pausing(Watcher):
    """Pauses the worker at its first snapshot, and lets it go on after some more."""

    def on_progress(self, snapshot: ProgressSnapshot) -> None:
        super().on_progress(snapshot)
        assert self.steer is not None
        self.steer.pause(1 <= len(self.snapshots) < 5)


def test_who_watches_sees_that_all_waits_and_when_it_goes_on(dsn: str) -> None:
    run = start_in_ranges(dsn, "mischief", [["echo", 1], ["flaky", 1], ["flaky", 2], ["sleep", 0.3]])
    watcher = Watcher()
    report = Worker(settings(dsn, "mischief"), observer=watcher).run(run_id=run)
    assert report.run_status == "completed"
    waiting = [step for snapshot in watcher.snapshots for step in snapshot.steps if step.only_waits]
    assert waiting, watcher.snapshots
    assert all(step.eta is None and step.waiting <= 2 for step in waiting)
    assert any(step.next_in is not None and 0 <= step.next_in <= 4 for step in waiting)
    assert watcher.snapshots[-1].cpu is not None
    assert any(lane.pid for snapshot in watcher.snapshots for lane in snapshot.lane_states)
    started, ended = watcher.runs
    assert (started.run, started.flow, started.status) == (run, "mischief", "started")
    assert (ended.run, ended.flow, ended.status) == (run, "mischief", "completed")
    assert (ended.items, ended.failed) == (4, 3)
    assert ended.seconds is not None
    assert {failure.flow for failure in watcher.failures} == {"mischief"}


def test_the_end_of_a_run_that_somebody_else_ends_is_told_too(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_notes, "_QUIET", 0.5)
    done, cancelled = (start_in_ranges(dsn, "naps", [0.0, seconds]) for seconds in (0.0, 30.0))
    watcher = Watcher()
    with threaded(Worker(settings(dsn, "naps"), observer=watcher)):
        eventually(lambda: {note.run for note in watcher.runs} == {done, cancelled}, 30)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pgflow.cancel_run(%s)", (cancelled,))
        ends = {(done, "completed"), (cancelled, "failed")}
        eventually(lambda: {(note.run, note.status) for note in watcher.runs} >= ends, 30)
    assert len(watcher.runs) == 4


def test_a_paused_worker_claims_nothing_and_goes_on_when_told(dsn: str) -> None:
    run = start_in_ranges(dsn, "naps", [0.2] * 40)
    watcher = Pausing()
    report = Worker(settings(dsn, "naps", batch_size=2), observer=watcher).run(run_id=run)
    assert report.run_status == "completed"
    paused = [snapshot for snapshot in watcher.snapshots if snapshot.paused]
    assert 2 <= len(paused) <= 5
    assert paused[-1].lanes_busy == 0


@pytest.fixture
def records(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    logs.set_up("info", "json")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    logger = logging.getLogger("pgflow_mp")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


def test_start_and_end_of_every_run_are_logged_once_with_what_was_done(records: Any) -> None:
    observer: Any = PlainObserver(own_run="own", for_machines=True)
    log = RunNotes(observer, lambda runs: None)
    log.claimed("f", ["a", "b", "own"])
    log.claimed("f", ["a"])
    log.settled("a", 10, failures=False)
    log.settled("a", 2, failures=True)
    log.ended("a", "f", "completed")
    log.ended("a", "f", "completed")
    log.ended("b", "f", "failed")
    log.ended("never here", "f", "completed")
    found = [(r["event"], r["flow"], r["run"], r["status"], r["level"]) for r in records()]
    assert found == [
        ("run", "f", "a", "started", "info"),
        ("run", "f", "b", "started", "info"),
        ("run", "f", "own", "started", "info"),
        ("run", "f", "a", "completed", "info"),
        ("run", "f", "b", "failed", "warn"),
        ("run", "f", "never here", "completed", "info"),
    ]


def test_machines_get_every_failure_with_its_traceback_and_people_the_first(records: Any) -> None:
    for for_machines, expected in ((True, 50), (False, 21)):
        observer = PlainObserver(for_machines=for_machines)
        for index in range(50):
            text = "ValueError: no postgresql://me:secret@host/db\n\nTraceback ..."
            observer.on_failure(FailedAttempt("r", "s", index, 2, text, True, flow="f"))
        found = records()
        assert len(found) == expected
        first = found[0]
        place = [first[name] for name in ("flow", "run", "step", "index", "attempt")]
        assert place == ["f", "r", "s", 0, 2]
        assert first["traceback"] == "ValueError: no postgresql://me:***@host/db\n\nTraceback ..."
