"""Failure policies of map steps: tolerated failures and stopping early."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from pgflow_mp.db import engine, recovery, wire
from pgflow_mp.db.reads import documents

WORKER = "11111111-1111-1111-1111-111111111111"


class Driver:
    """Claims everything of the flow ``f`` and settles it as told."""

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        wire.adapt(conn)
        self.conn = conn
        engine.register_worker(conn, WORKER, "f", "test")

    def flow(
        self, items: int, *, attempts: int = 1, delay: int = 60, then: bool = False, **policy: Any
    ) -> str:
        self.conn.execute("select pgflow.create_flow('f', %s, %s)", (attempts, delay))
        self.conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
        if then:
            self.conn.execute("select pgflow.add_step('f', 'z', array['m'])")
        arguments = ", ".join(f"{name} => {value}" for name, value in policy.items())
        if policy:
            self.conn.execute(f"select pgflow.set_step_policy('f', 'm', {arguments})")
        return engine.start_flow(self.conn, "f", str(list(range(items))).encode())

    def work(self, run: str, failing: dict[int, str], only: int = 100) -> engine.Settled:
        tasks = engine.claim_tasks(self.conn, "f", WORKER, only)
        good = [t for t in tasks if t.task_index not in failing]
        bad = [t for t in tasks if t.task_index in failing]
        done = engine.Settled(0, [], None, None)
        if good:
            done = engine.complete_tasks(
                self.conn,
                run,
                good[0].step_slug,
                [t.task_index for t in good],
                [b"1"] * len(good),
                WORKER,
                [t.attempt for t in good],
            )
        if bad:
            done = engine.fail_tasks(
                self.conn,
                run,
                bad[0].step_slug,
                [t.task_index for t in bad],
                [failing[t.task_index] for t in bad],
                WORKER,
                [t.attempt for t in bad],
                [False] * len(bad),
            )
        return done

    def step(self, run: str) -> engine.StepProgress:
        return engine.run_progress(self.conn, run)[0]


@pytest.fixture
def driver(tx: psycopg.Connection[Any]) -> Driver:
    return Driver(tx)


def test_without_a_policy_one_failed_task_fails_the_run(driver: Driver) -> None:
    run = driver.flow(10)
    assert driver.work(run, {3: "broken"}).run_status == "failed"


def test_tolerated_failures_complete_the_step_with_null_in_their_places(driver: Driver) -> None:
    run = driver.flow(4, tolerated_failures=2)
    done = driver.work(run, {1: "broken", 3: "broken too"})
    assert (done.accepted, done.step_status, done.run_status) == (2, "completed", "completed")
    assert documents.run_output(driver.conn, run) == b'{"m": [1, null, 1, null]}'
    assert driver.step(run).failed_tasks == 2


def test_one_failure_more_than_tolerated_fails_the_run(driver: Driver) -> None:
    run = driver.flow(10, tolerated_failures=2)
    assert driver.work(run, {0: "a", 1: "b"}, only=5).run_status == "started"
    assert driver.work(run, {7: "c"}).run_status == "failed"
    assert driver.step(run).error_message == "c"


def test_a_share_counts_against_all_items(driver: Driver) -> None:
    run = driver.flow(10, tolerated_share=0.2)
    assert driver.work(run, {0: "a", 1: "b"}).run_status == "completed"


def test_the_larger_of_count_and_share_holds(driver: Driver) -> None:
    run = driver.flow(10, tolerated_share=0.1, tolerated_failures=3)
    assert driver.work(run, {0: "a", 1: "b", 2: "c"}).run_status == "completed"


def test_a_dependent_gets_null_for_the_failed_items(driver: Driver) -> None:
    run = driver.flow(3, tolerated_failures=1, then=True)
    driver.work(run, {2: "broken"})
    (task,) = engine.claim_tasks(driver.conn, "f", WORKER, 5)
    assert task.input == b'{"m": [1, 1, null]}'


def test_retries_come_before_tolerance(driver: Driver) -> None:
    run = driver.flow(2, attempts=2, delay=0, tolerated_failures=1)
    assert driver.work(run, {0: "first"}).run_status == "started"
    assert driver.step(run).failed_tasks == 0
    assert driver.work(run, {0: "second"}).run_status == "completed"


def test_first_items_that_all_fail_alike_stop_the_step_early(driver: Driver) -> None:
    run = driver.flow(50, attempts=5, tolerated_share=1, stop_after_alike=10)
    same = dict.fromkeys(range(50), "NameError: no such thing\n  File one, line 1")
    assert driver.work(run, same, only=9).run_status == "started"
    assert driver.work(run, same, only=1).run_status == "failed"
    assert driver.step(run).error_message == "NameError: no such thing\n  File one, line 1"


def test_failures_that_differ_do_not_stop_it_early(driver: Driver) -> None:
    run = driver.flow(50, tolerated_share=1, stop_after_alike=10)
    assert driver.work(run, {i: f"bad item {i}" for i in range(50)}, only=20).run_status == "started"


def test_one_success_means_that_the_code_works(driver: Driver) -> None:
    run = driver.flow(50, tolerated_share=1, stop_after_alike=10)
    driver.work(run, {}, only=1)
    assert driver.work(run, dict.fromkeys(range(50), "same"), only=30).run_status == "started"


def test_a_single_step_cannot_tolerate(driver: Driver) -> None:
    driver.conn.execute("select pgflow.create_flow('g')")
    driver.conn.execute("select pgflow.add_step('g', 's')")
    with pytest.raises(psycopg.Error, match="is not a map step") as caught:
        driver.conn.execute("select pgflow.set_step_policy('g', 's', 1)")
    assert caught.value.sqlstate == "PF005"


def test_a_shape_carries_the_policy(driver: Driver) -> None:
    shape = (
        b'{"steps": [{"slug": "m", "stepType": "map", "dependencies": [],'
        b' "options": {"toleratedFailures": 3, "toleratedShare": 0.01, "stopAfterAlike": 20}}]}'
    )
    engine.ensure_flow_compiled(driver.conn, "g", shape)
    assert driver.conn.execute(
        "select tolerated_failures, tolerated_share::float8, stop_after_alike from pgflow.step_policies"
    ).fetchall() == [(3, 0.01, 20)]


def test_retrying_a_failed_run_queues_only_what_failed_or_was_not_finished(driver: Driver) -> None:
    run = driver.flow(10, tolerated_failures=1)
    assert driver.work(run, {0: "a", 1: "b"}, only=6).run_status == "failed"
    assert engine.retry_failed_tasks(driver.conn, run) == 6
    step = driver.step(run)
    assert (step.status, step.remaining_tasks, step.failed_tasks) == ("started", 6, 0)
    assert driver.work(run, {}).run_status == "completed"


def test_a_task_that_stalls_too_often_is_tolerated_like_a_failed_one(driver: Driver) -> None:
    run = driver.flow(3, tolerated_failures=1)
    (first, *others) = engine.claim_tasks(driver.conn, "f", WORKER, 3)
    stall = "update pgflow.step_tasks set queued_at = now() - interval '1 day', "
    stall += "started_at = now() - interval '1 hour', requeued_count = 3 where task_index = 0"
    driver.conn.execute(stall.encode())
    assert recovery.requeue_stalled_tasks(driver.conn) == 0
    driver.conn.execute(
        "update pgflow.step_tasks set permanently_stalled_at = permanently_stalled_at - interval '1 s'"
    )
    assert recovery.fail_stalled_tasks(driver.conn) == 1
    assert (driver.step(run).failed_tasks, driver.step(run).remaining_tasks) == (1, 2)
    late = engine.complete_tasks(driver.conn, run, "m", [0], [b"1"], WORKER, [first.attempt])
    assert late.rejected == [0]
    indexes = [task.task_index for task in others]
    done = engine.complete_tasks(driver.conn, run, "m", indexes, [b"1"] * 2, WORKER, [1, 1])
    assert done.run_status == "completed"
