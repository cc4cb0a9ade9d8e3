"""The worker on real runs: results, failures, timeouts, crashes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
from database_server import DatabaseServer
from worker_harness import Tasks, eventually, execute, output, run_row, serve, settings, start, threaded

from pgflow_mp.errors import FlowNotFound, PgflowError, SchemaError, ShapeMismatch
from pgflow_mp.worker.stats import Ending
from pgflow_mp.worker.worker import Worker


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        yield found


@pytest.fixture
def own_dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """A database for one test."""
    with server.database(template) as found:
        yield found


def test_a_chain_of_maps_gives_what_a_plain_loop_gives(dsn: str) -> None:
    run_id, report = execute(dsn, "chain", list(range(1000)))
    assert output(dsn, run_id) == {"joined": " ".join(f"#{2 * x}" for x in range(1000))}
    assert report.ending is Ending.RUN_ENDED
    assert (report.run_status, report.stats.done, report.stats.late) == ("completed", 2001, 0)
    assert Tasks(dsn, run_id).outputs("double") == [2 * x for x in range(1000)]


def test_single_steps_follow_each_other_without_lingering(dsn: str) -> None:
    run_id, report = execute(dsn, "single", "ann", linger=5.0)
    assert output(dsn, run_id) == {"greet": {"greeting": "Hello ANN"}}
    assert report.wall < 2.0


def test_a_small_run_does_not_linger_beside_a_big_one(own_dsn: str) -> None:
    dsn = own_dsn
    big = start(dsn, "mischief", [["sleep", 0.02]] * 2000)
    with threaded(Worker(settings(dsn, "mischief", linger=600.0))):
        eventually(lambda: Tasks(dsn, big).statuses("act").get("started"))
        small = start(dsn, "mischief", [["echo", 1]] * 3)
        eventually(lambda: run_row(dsn, small).status == "completed")
        assert run_row(dsn, big).status == "started"


def test_only_a_name_that_was_given_is_known_as_one_to_keep_alive(own_dsn: str) -> None:
    execute(own_dsn, "single", "ann")
    execute(own_dsn, "single", "bob", name="my-worker")
    with psycopg.connect(own_dsn) as conn:
        known = conn.execute("select function_name, enabled from pgflow.worker_functions").fetchall()
        workers = conn.execute("select function_name from pgflow.workers order by started_at").fetchall()
    assert known == [("my-worker", True)]
    assert workers[0][0].endswith(f":{os.getpid()}")
    assert workers[1:] == [("my-worker",)]


def test_an_empty_map_completes_at_once(dsn: str) -> None:
    run_id, report = execute(dsn, "chain", [])
    assert output(dsn, run_id) == {"joined": ""}
    assert report.stats.done == 1


def test_a_failed_task_is_retried_after_its_backoff_and_its_neighbours_complete(dsn: str) -> None:
    items = [["echo", i] for i in range(50)] + [["flaky", 1]]
    run_id, report = execute(dsn, "mischief", items)
    assert output(dsn, run_id) == {"act": [*range(50), 2]}
    assert (report.stats.retried, report.stats.failed) == (1, 0)
    assert report.wall >= 2.0  # base_delay 1, doubled


def test_a_permanent_error_ends_the_run_at_its_first_attempt(dsn: str) -> None:
    run_id, report = execute(dsn, "mischief", [["permanent", "bad address"]])
    tasks = Tasks(dsn, run_id)
    assert (run_row(dsn, run_id).status, report.run_status) == ("failed", "failed")
    assert tasks.attempts("act", 0) == 1
    assert tasks.error("act", 0).startswith("pgflow_mp.errors.PermanentError: bad address")


@pytest.mark.slow
def test_a_task_over_its_timeout_is_killed_charged_and_retried(own_dsn: str) -> None:
    dsn = own_dsn
    items = [["echo", i] for i in range(40)] + [["spin", 1]]
    run_id = start(dsn, "mischief", items)
    with psycopg.connect(dsn) as conn:
        conn.execute("update pgflow.steps set opt_timeout = 1")  # shorter than the DSL allows
    _, report = serve(dsn, "mischief", run_id, compile="skip")
    assert output(dsn, run_id) == {"act": [*range(40), 2]}
    assert report.stats.retried == 1
    assert report.wall < 6.0


def test_an_item_that_always_kills_its_process_is_quarantined_and_all_others_complete(dsn: str) -> None:
    items = [["echo", i] for i in range(1000)]
    items[400] = ["segfault", None]
    run_id, report = execute(dsn, "mischief", items)
    tasks = Tasks(dsn, run_id)
    assert tasks.statuses("act") == {"completed": 999, "failed": 1}
    error = tasks.error("act", 400)
    assert error.startswith("quarantined after 2 crashes: Crashed")
    assert "SIGSEGV" in error
    assert tasks.attempts("act", 400) == 2
    assert (report.stats.crashed, report.stats.failed, report.run_status) == (2, 1, "failed")


def test_one_worker_serves_several_flows(dsn: str) -> None:
    first, second = start(dsn, "chain", [1, 2]), start(dsn, "single", "bob")
    worker = Worker(settings(dsn, "chain", flows=None))
    assert worker.run(idle_exit=True).ending is Ending.IDLE
    assert output(dsn, first) == {"joined": "#2 #4"}
    assert output(dsn, second) == {"greet": {"greeting": "Hello BOB"}}


def test_a_worker_ends_when_its_condition_is_true(dsn: str) -> None:
    worker = Worker(settings(dsn, "chain"))
    assert worker.run(until=lambda: True).ending is Ending.CONDITION
    with pytest.raises(PgflowError, match="only be started once"):
        worker.run()


def test_starting_without_a_schema_says_how_to_install_it(empty_dsn: str) -> None:
    with pytest.raises(SchemaError, match="has no pgflow schema"):
        Worker(settings(empty_dsn, "chain")).run()


def test_a_flow_that_differs_from_the_database_is_refused_and_listed(own_dsn: str) -> None:
    dsn = own_dsn
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.create_flow('chain'); select pgflow.add_step('chain', 'other')")
    with pytest.raises(ShapeMismatch) as caught:
        Worker(settings(dsn, "chain", name="refused")).run()
    assert caught.value.differences
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgflow.workers").fetchone() == (0,)
        assert conn.execute("select count(*) from pgflow.worker_functions").fetchone() == (0,)


def test_a_flow_that_is_not_there_is_refused(dsn: str) -> None:
    with pytest.raises(FlowNotFound, match='There is no flow "nothing"'):
        Worker(settings(dsn, "nothing")).run()


def test_a_step_that_the_code_does_not_know_fails_its_task_with_the_contracts_text(own_dsn: str) -> None:
    dsn = own_dsn
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.create_flow('single', max_attempts => 1)")
        conn.execute("select pgflow.add_step('single', 'vanished')")
        row = conn.execute("select run_id from pgflow.start_flow('single', '{}')").fetchone()
    assert row is not None
    serve(dsn, "single", str(row[0]), compile="skip")
    assert Tasks(dsn, str(row[0])).error("vanished", 0) == 'Step "vanished" does not exist in flow "single"'
