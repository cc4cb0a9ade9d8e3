"""Items that crash for good are recorded last of their run, whatever other runs and workers do."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_roles import role_with
from worker_harness import Tasks, adapted, eventually, kill, process, run_row, settings, start, threaded

from pgflow_mp.db import engine
from pgflow_mp.db.parked import report_parked
from pgflow_mp.executors.messages import Item, Kind, Outcome
from pgflow_mp.worker import planner
from pgflow_mp.worker.batches import Batch
from pgflow_mp.worker.inbox import ParkedSeen
from pgflow_mp.worker.parking import EVERY, MOST, PATIENCE, Parked, Parking
from pgflow_mp.worker.worker import Worker

CRASH: list[Any] = ["segfault", None]
AT_ONCE: dict[str, Any] = {"crash_budget": 1}


@contextlib.contextmanager
def worker(dsn: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A worker in a process of its own, killed at the end."""
    running = process(dsn, "mischief", **{**AT_ONCE, **options})
    try:
        yield running
    finally:
        kill(running)


def naps(count: int, seconds: float) -> list[list[Any]]:
    return [["sleep", seconds]] * count


def ended(dsn: str, run_id: str) -> bool:
    return run_row(dsn, run_id).status != "started"


def stopped(running: subprocess.Popen[str]) -> dict[str, Any]:
    """The report of a worker that is asked to stop."""
    running.send_signal(signal.SIGTERM)
    text, _ = running.communicate(timeout=20)
    assert running.returncode == 0
    report: dict[str, Any] = json.loads(text.splitlines()[-1])
    return report


# -- with workers ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_fails_soon_though_other_runs_of_its_flow_go_on(dsn: str) -> None:
    others = [start(dsn, "mischief", naps(300, 0.05)) for _ in range(3)]
    with worker(dsn):
        eventually(lambda: Tasks(dsn, others[0]).statuses("act")["completed"] > 5)
        run_id = start(dsn, "mischief", [CRASH])
        eventually(lambda: ended(dsn, run_id), timeout=6)
        assert [run_row(dsn, other).status for other in others] == ["started"] * 3
    assert Tasks(dsn, run_id).error("act", 0).startswith("quarantined after 1 crash: Crashed")


@pytest.mark.slow
def test_the_other_items_of_its_run_complete_first_though_other_runs_go_on(dsn: str) -> None:
    other = start(dsn, "mischief", naps(1500, 0.02))
    with worker(dsn):
        eventually(lambda: Tasks(dsn, other).statuses("act")["completed"] > 5)
        run_id = start(dsn, "mischief", [*naps(40, 0.01), CRASH, *naps(158, 0.01), ["flaky", 1]])
        eventually(lambda: ended(dsn, run_id), timeout=40)
        assert run_row(dsn, other).status == "started"
    assert run_row(dsn, run_id).status == "failed"
    assert Tasks(dsn, run_id).statuses("act") == {"completed": 199, "failed": 1}
    assert Tasks(dsn, run_id).attempts("act", 199) == 2  # its next attempt was waited for


@pytest.mark.slow
@pytest.mark.parametrize("inflow", [False, True])
def test_what_other_workers_hold_completes_first(dsn: str, log: Path, inflow: bool) -> None:
    run_id = start(dsn, "mischief", [["sleep", 4.0], *naps(98, 0.02), CRASH, *naps(100, 0.02)])
    with worker(dsn, workers=1, batch_size=1):
        eventually(lambda: "sleep 0" in log.read_text())
        with worker(dsn, workers=1):  # all but the long item is done here, long before that
            other = start(dsn, "mischief", naps(2000, 0.05)) if inflow else None
            eventually(lambda: ended(dsn, run_id), timeout=40)
            assert other is None or run_row(dsn, other).status == "started"
    assert Tasks(dsn, run_id).statuses("act") == {"completed": 199, "failed": 1}


@pytest.mark.slow
def test_workers_that_each_hold_back_a_crash_do_not_wait_for_each_other(dsn: str, log: Path) -> None:
    run_id = start(dsn, "mischief", [*naps(4, 0.5), CRASH, CRASH, CRASH, CRASH, *naps(20, 0.05)])
    one = {"workers": 1, "batch_size": 1}
    with worker(dsn, **one), worker(dsn, **one):
        eventually(lambda: ended(dsn, run_id), timeout=20)
    # What ended the run is recorded as failed; what the other worker held back then is cancelled.
    found = Tasks(dsn, run_id).statuses("act")
    assert (found["completed"], found["failed"] + found["cancelled"]) == (24, 4)
    assert found["failed"] >= 1
    assert log.read_text().count("segfault") == 4


def test_what_is_parked_takes_no_room_from_what_can_still_run(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "MOST_HELD", 4)
    run_id = start(dsn, "mischief", [*[CRASH] * 8, *naps(8, 0.01)])
    found = settings(dsn, "mischief", **AT_ONCE)
    with threaded(Worker(found), run_id=run_id) as running:
        assert running.join().run_status == "failed"
    assert Tasks(dsn, run_id).statuses("act") == {"completed": 8, "failed": 8}


@pytest.mark.slow
def test_the_attempts_of_a_crash_are_those_that_the_step_has_now(dsn: str, log: Path) -> None:
    """Not those that it had when the worker started."""
    run_id = start(dsn, "mischief", [["sleep", 1.0], CRASH])
    with threaded(Worker(settings(dsn, "mischief", crash_budget=9)), run_id=run_id) as running:
        eventually(lambda: "segfault 1 1" in log.read_text())
        with psycopg.connect(dsn) as conn:  # before the second attempt, a second later
            conn.execute("update pgflow.flows set opt_max_attempts = 2")
        assert running.join().run_status == "failed"
    error = Tasks(dsn, run_id).error("act", 1)
    assert error.startswith("quarantined, its last attempt (2 of 2) crashed")
    assert Tasks(dsn, run_id).statuses("act") == {"completed": 1, "failed": 1}


def test_a_worker_without_the_right_to_ask_waits_for_its_flow_only(dsn: str) -> None:
    other, run_id = start(dsn, "mischief", naps(40, 0.05)), start(dsn, "mischief", [CRASH])
    with role_with(dsn, "worker") as restricted:
        with psycopg.connect(dsn) as conn:
            role = psycopg.conninfo.conninfo_to_dict(restricted)["user"]
            conn.execute(f'revoke execute on function pgflow.report_parked from "{role}"')
        found = settings(restricted, "mischief", compile="skip", **AT_ONCE)
        Worker(found).run(idle_exit=True)
    assert [run_row(dsn, run).status for run in (other, run_id)] == ["completed", "failed"]


@pytest.mark.slow
def test_a_stop_records_the_crash_of_a_run_that_has_nothing_else(dsn: str, log: Path) -> None:
    run_id = start(dsn, "mischief", [["sleep", 1.5], CRASH])
    other = start(dsn, "mischief", naps(200, 0.1))
    with worker(dsn, workers=3) as running:
        eventually(lambda: {"sleep 0 1", "segfault 1 1"} <= set(log.read_text().splitlines()))
        eventually(lambda: Tasks(dsn, other).statuses("act")["completed"])
        assert not ended(dsn, run_id)
        stopped(running)
    assert run_row(dsn, run_id).status == "failed"
    assert Tasks(dsn, run_id).statuses("act") == {"completed": 1, "failed": 1}
    assert run_row(dsn, other).status == "started"


@pytest.mark.slow
def test_a_stop_hands_the_crash_back_where_others_of_its_run_are_left(dsn: str, log: Path) -> None:
    run_id = start(dsn, "mischief", [CRASH, *naps(200, 0.2)])
    with worker(dsn) as running:
        eventually(lambda: Tasks(dsn, run_id).statuses("act")["completed"] >= 2)
        assert "segfault" in log.read_text()
        stopped(running)
    tasks = Tasks(dsn, run_id)
    assert not ended(dsn, run_id)
    assert set(tasks.statuses("act")) == {"completed", "queued"}
    assert tasks.attempts("act", 0) == 0


# -- what the database says --------------------------------------------------------------------------


class Teller:
    """One worker of the database, as far as it is about tasks held back."""

    def __init__(self, conn: engine.Connection) -> None:
        self.id = str(uuid.uuid4())
        self._conn = conn
        engine.register_worker(conn, self.id, "naps", "test", 10.0)

    def left(self, held_back: dict[str, int]) -> dict[str, int]:
        """What is left of runs of which it holds so many tasks back."""
        held = {(self.id, run): tasks for run, tasks in held_back.items()}
        return report_parked(self._conn, [self.id], held)


def test_tasks_that_nobody_alive_holds_back_are_left(dsn: str) -> None:
    run_id, other = start(dsn, "naps", [0.0] * 3), start(dsn, "naps", [0.0] * 3)
    with adapted(dsn) as conn:
        here, there = Teller(conn), Teller(conn)  # one session is as good as any: so it is behind a pooler
        assert here.left({run_id: 1, other: 3}) == {run_id: 2, other: 0}
        assert there.left({run_id: 1}) == {run_id: 1}
        assert there.left({run_id: 2}) == {run_id: 0}
        assert here.left({run_id: 1}) == {run_id: 0}
        there.left({})
        assert here.left({run_id: 1}) == {run_id: 2}
        there.left({run_id: 2})
        conn.execute(
            "update pgflow.workers set last_heartbeat_at = now() - interval '1 min' where worker_id = %s",
            (there.id,),
        )
        assert here.left({run_id: 1}) == {run_id: 2}
        engine.heartbeat(conn, [there.id])
        assert here.left({run_id: 1}) == {run_id: 0}
        engine.stop_workers(conn, [there.id])
        assert here.left({run_id: 1}) == {run_id: 2}
        assert conn.execute("select count(*) from pgflow.parked").fetchone() == (1,)


def test_two_ids_of_one_worker_hold_back_what_each_of_them_holds(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.0] * 5)
    with adapted(dsn) as conn:
        one, two = Teller(conn), Teller(conn)
        held = {(one.id, run_id): 1, (two.id, run_id): 2}
        assert report_parked(conn, [one.id, two.id], held) == {run_id: 2}
        assert report_parked(conn, [one.id, two.id], {}) == {}
        assert one.left({run_id: 1}) == {run_id: 4}


def test_tasks_that_are_yet_to_be_spawned_are_left(dsn: str) -> None:
    run_id = start(dsn, "naps", [0.0] * 50_000)
    with adapted(dsn) as conn:
        row = conn.execute("select count(*) from pgflow.step_tasks").fetchone()
        assert row is not None
        assert row[0] < 50_000
        assert Teller(conn).left({run_id: row[0]}) == {run_id: 50_000 - row[0]}


def test_nothing_is_left_of_a_run_that_is_over_and_nothing_known_of_a_strange_one(dsn: str) -> None:
    run_id, strange = start(dsn, "naps", [0.0] * 3), "5e0fe1f8-4a4f-4a6a-8f5e-0d2c9f3b1a77"
    with adapted(dsn) as conn:
        engine.cancel_run(conn, run_id)
        left = Teller(conn).left({run_id: 1, strange: 1})
        assert set(left) == {run_id}
        assert left[run_id] <= 0


# -- questions ---------------------------------------------------------------------------------------


def parked(run: str, index: int = 0, flow: str = "f") -> Parked:
    item = Item(index, 1, index, 0, 0, b"1", None)
    batch = Batch(flow, "w", [run], ["s"], [60.0], [item], 60.0, 0.0)
    return Parked(batch, 0, item, run, "s", Outcome(0, Kind.FAILED_FOR_GOOD, b"", 0.0))


def test_one_question_at_a_time_and_none_soon_after_an_answer() -> None:
    parking = Parking()
    assert not parking.active
    parking.add(parked("a"), 10.0)
    asked = parking.question(10.0)
    assert asked is not None
    assert asked.held == {("w", "a"): 1}
    assert parking.question(20.0) is None
    assert parking.answered(ParkedSeen(asked.number, {"a"}, {"a": 3}), 20.0) == []
    assert parking.question(20.0 + 0.9 * EVERY) is None
    asked = parking.question(20.0 + 1.1 * EVERY)
    assert asked is not None
    assert parking.answered(ParkedSeen(asked.number, {"a"}, {"a": 0}), 30.0) == ["a"]
    assert [found.run for found in parking.take("a")] == ["a"]
    assert parking.active  # others are to be told
    last = parking.question(40.0)
    assert last is not None
    assert last.held == {}
    assert not parking.active


def test_a_question_asked_at_once_is_not_answered_by_an_earlier_answer() -> None:
    parking = Parking()
    parking.add(parked("a"), 0.0)
    first, second = parking.question(0.0), parking.question(0.1, at_once=True)
    assert first is not None
    assert second is not None
    parking.answered(ParkedSeen(first.number, {"a"}, {"a": 1}), 0.2)
    assert parking.awaits_answer
    parking.answered(ParkedSeen(second.number, {"a"}, {"a": 1}), 0.3)
    assert not parking.awaits_answer


def test_without_an_answer_the_worker_decides_after_a_while_and_at_once_if_there_is_none() -> None:
    parking = Parking()
    parking.add(parked("a"), 0.0)
    parking.add(parked("b", flow="g"), 0.0)
    asked = parking.question(0.0)
    assert asked is not None
    assert parking.unanswered(0.9 * PATIENCE) == []
    assert parking.unanswered(PATIENCE) == [("f", "a"), ("g", "b")]
    parking.answered(ParkedSeen(asked.number, {"a", "b"}, {"a": 1}), PATIENCE)
    assert parking.unanswered(PATIENCE) == [("g", "b")]


def test_runs_beyond_what_a_question_holds_are_asked_about_next() -> None:
    parking, seen = Parking(), set[str]()
    for number in range(2 * MOST):
        parking.add(parked(f"run {number}"), 0.0)
    for now in (0.0, 10.0):
        asked = parking.question(now)
        assert asked is not None
        seen |= set(asked.runs)
        parking.answered(ParkedSeen(asked.number, asked.runs, dict.fromkeys(asked.runs, 1)), now)
    assert len(seen) == 2 * MOST


def test_parked_items_that_are_not_wanted_are_taken_out() -> None:
    parking = Parking()
    for run, index in (("a", 0), ("a", 1), ("b", 2)):
        parking.add(parked(run, index), 0.0)
    assert [found.item.index for found in parking.take_all(lambda p: p.item.index == 1)] == [1]
    assert parking.count("f") == 2
    assert len(parking.take_all()) == 2
    assert parking.empty
