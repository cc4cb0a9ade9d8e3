"""The client: starting runs, following them, results, errors, events (contract: worker section 7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from database_server import DatabaseServer
from psycopg.conninfo import make_conninfo
from worker_harness import adapted, compiled, eventually, settings, start, threaded

from pgflow_mp import Flow
from pgflow_mp.client import Client, Run
from pgflow_mp.db import engine, wire
from pgflow_mp.errors import (
    DatabaseUnavailable,
    FlowNotFound,
    InputError,
    RunFailed,
    RunNotFound,
    WaitTimeout,
)
from pgflow_mp.worker.settings import WorkerState
from pgflow_mp.worker.worker import Worker

UNKNOWN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        yield found


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    """A client of a database that knows the flows."""
    for flow in ("chain", "mischief", "naps", "single"):
        compiled(dsn, flow)
    with Client(dsn) as found:
        yield found


@pytest.fixture
def worker(dsn: str, client: Client) -> Iterator[Worker]:
    """A worker for all flows, in a thread."""
    with psycopg.connect(dsn) as conn:  # what tests without a worker left
        conn.execute("select pgflow.cancel_run(run_id) from pgflow.runs where status = 'started'")
    found = Worker(settings(dsn, "chain", flows=None))
    with threaded(found):
        eventually(lambda: found.state is WorkerState.RUNNING)
        yield found


def test_a_run_is_started_followed_and_read(client: Client, worker: Worker) -> None:
    run = client.start_flow("chain", [1, 2, 3])
    assert (run.flow_slug, run.status, run.input, run.output, run.error) == (
        "chain",
        "started",
        [1, 2, 3],
        None,
        None,
    )
    assert list(run.steps) == ["double", "as_text", "joined"]
    assert run.wait(30) is run
    assert (run.status, run.output, run.remaining_steps) == ("completed", {"joined": "#2 #4 #6"}, 0)
    assert run.completed_at is not None
    step = run.steps["double"]
    assert (step.status, step.output, step.error, step.initial_tasks) == ("completed", [2, 4, 6], None, 3)
    assert step.completed_at is not None
    assert list(run.results("as_text")) == ["#2", "#4", "#6"]
    assert client.start_flow("single", "ann").result(30) == {"greet": {"greeting": "Hello ANN"}}


def test_waiting_is_woken_by_events_not_by_polling(client: Client, worker: Worker) -> None:
    run = client.start_flow("naps", [0.3])
    began = time.monotonic()
    run.wait(30)
    finished = time.monotonic()
    assert run.completed_at is not None
    assert finished - began < 1.2
    assert run.steps["count"].wait("completed", 5).output == 1


def test_waiting_for_a_run_that_fails_raises_at_once_with_step_and_index(
    client: Client, worker: Worker
) -> None:
    run = client.start_flow("mischief", [["echo", 1], ["permanent", "broken"]])
    with pytest.raises(RunFailed) as caught:
        run.wait(30)
    assert 'step "act" task 1' in str(caught.value)
    assert caught.value.run_id == run.run_id
    assert "PermanentError: broken" in str(caught.value)
    assert run.status == "failed"
    assert run.error is not None
    assert "broken" in run.error
    assert run.wait(status="failed") is run
    with pytest.raises(RunFailed, match=r"Step act of run .* cannot reach status 'completed'"):
        run.steps["act"].wait(timeout=5)


def test_waiting_too_long_says_so_with_the_contracts_texts(client: Client) -> None:
    run = client.start_flow("chain", [1])
    with pytest.raises(
        WaitTimeout, match=f"^Timeout waiting for run {run.run_id} to reach status 'completed'$"
    ):
        run.wait(0.2)
    text = "^Timeout waiting for step joined to reach status 'started'$"
    with pytest.raises(WaitTimeout, match=text):
        run.steps["joined"].wait("started", 0.2)
    assert run.steps["double"].wait("started", 0.2).status == "started"


def test_a_status_that_cannot_be_reached_by_waiting_is_refused(client: Client) -> None:
    run = client.start_flow("chain", [1])
    for status in ("done", "created", "Completed"):
        text = f"(?m)^No step can be waited for to reach status '{status}'$"
        with pytest.raises(InputError, match=text) as caught:
            run.steps["joined"].wait(status, 0.2)  # type: ignore[arg-type]
        assert caught.value.hint == "There are started, completed, failed, skipped."
    for status in ("done", "started", "skipped"):
        with pytest.raises(InputError, match=f"(?m)^No run can be waited for to reach status '{status}'$"):
            run.wait(0.2, status)  # type: ignore[arg-type]


def test_an_own_run_id_starts_once(client: Client) -> None:
    mine = "22222222-2222-4222-8222-222222222222"
    first = client.start_flow("chain", [1], run_id=mine)
    again = client.start_flow("chain", [1, 2], run_id=mine)
    assert first.run_id == again.run_id == mine
    assert again.input == [1]
    with pytest.raises(InputError, match='is one of flow "chain", not of "single"'):
        client.start_flow("single", "x", run_id=mine)
    with pytest.raises(InputError, match="is not the id of a run"):
        client.start_flow("chain", [], run_id="monday")


def test_an_unknown_run_is_none_and_an_unknown_step_an_error(client: Client) -> None:
    assert client.get_run(UNKNOWN) is None
    assert client.get_run("nonsense") is None
    for call in (client.cancel, client.retry_failed, lambda run_id: list(client.results(run_id, "x"))):
        with pytest.raises(RunNotFound, match=f"There is no run {UNKNOWN} in this database"):
            call(UNKNOWN)
    run = client.start_flow("single", "x")
    with pytest.raises(FlowNotFound, match='Step "nope" does not exist in flow "single"'):
        run.steps["nope"]
    assert "shout" in run.steps


def test_what_cannot_be_started_is_refused_with_the_reason(client: Client) -> None:
    with pytest.raises(FlowNotFound, match='There is no flow "nothing"'):
        client.start_flow("nothing", 1)
    with pytest.raises(InputError, match=r"Flow \"chain\" cannot be started: .*array"):
        client.start_flow("chain", {"not": "an array"})
    with pytest.raises(InputError, match="cannot be stored as JSON"):
        client.start_flow("chain", [object()])
    for priority in ("high", 2**31, 1.5):
        with pytest.raises(InputError, match=r"^The priority of a run is a whole number of 32 bits, not "):
            client.start_flow("chain", [1], priority=priority)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"Objects of type complex are not JSON \(at \$\[0\]\)"):
        client.start_flow("chain", [1j])
    with pytest.raises(InputError, match=r"NUL character \(at \$\[1\]\)"):
        client.start_flow("chain", ["a", "\0"])


def test_input_may_be_whatever_a_handler_may_return(client: Client) -> None:
    assert client.start_flow("chain", range(3)).input == [0, 1, 2]
    assert client.start_flow("chain", iter(["a", Path("/b")])).input == ["a", "/b"]


def test_cancelling_ends_a_run_as_failed_with_the_reason(client: Client) -> None:
    run = client.start_flow("chain", [1, 2])
    assert run.cancel("changed my mind").status == "failed"
    assert run.error == "changed my mind"
    assert run.cancel("again").error == "changed my mind"
    with pytest.raises(RunFailed, match="changed my mind"):
        run.result()


def test_only_what_is_not_finished_is_retried(client: Client, worker: Worker, dsn: str) -> None:
    run = client.start_flow("mischief", [["echo", 1], ["permanent", "x"], ["echo", 3]])
    with pytest.raises(RunFailed):
        run.wait(30)
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "update pgflow.step_tasks set input = '[\"echo\", 2]' where task_index = 1 and run_id = %s",
            (run.run_id,),
        )
    assert 1 <= run.retry_failed() <= 3
    assert run.status == "started" or run.wait(30)
    assert run.result(30) == {"act": [1, 2, 3]}
    with pytest.raises(InputError, match="is completed, only a failed run can be retried"):
        client.retry_failed(run.run_id)


def failed_run(client: Client, dsn: str) -> Run:
    """A run of ``single`` that failed, as a client has seen it."""
    run = client.start_flow("single", "ada")
    with adapted(dsn) as conn:
        engine.cancel_run(conn, run.run_id, "no")
    assert run.refresh().status == "failed"
    assert (run.error, run.steps["shout"].status) == ("no", "failed")
    return run


def test_a_retry_by_an_operator_is_seen(client: Client, dsn: str) -> None:
    run = failed_run(client, dsn)
    with adapted(dsn) as conn:
        assert engine.retry_failed_tasks(conn, run.run_id) == 1
        assert run.refresh().status == "started"
        step = run.steps["shout"]
        assert (step.status, step.error, step.failed_at, run.error) == ("started", None, None, None)
        with pytest.raises(WaitTimeout):
            run.wait(timeout=0.05)
        with pytest.raises(WaitTimeout):
            step.wait(timeout=0.05)
        engine.cancel_run(conn, run.run_id, "no, again")
        with pytest.raises(RunFailed, match="no, again"):
            run.wait(timeout=5)
        engine.retry_failed_tasks(conn, run.run_id)
        with threaded(Worker(settings(dsn, "single"))):
            assert run.wait(timeout=20).output == {"greet": {"greeting": "Hello ADA"}}
        assert [step.status for step in run.steps.values()] == ["completed", "completed"]


def test_a_failure_that_was_retried_meanwhile_is_not_raised(
    client: Client, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, original = failed_run(client, dsn), Run.failure
    retried: list[int] = []

    def slowly(self: Run) -> RunFailed:
        failure = original(self)
        if not retried:
            with adapted(dsn) as conn:
                retried.append(engine.retry_failed_tasks(conn, self.run_id))
        return failure

    monkeypatch.setattr(Run, "failure", slowly)
    with threaded(Worker(settings(dsn, "single"))):
        assert run.wait(timeout=20).status == "completed"
    assert retried == [1]


def test_results_of_a_step_that_is_not_there_name_those_that_are(client: Client) -> None:
    run = client.start_flow("chain", [1])
    for ask in (run.results, lambda step: client.results(run.run_id, step)):
        with pytest.raises(FlowNotFound, match='Step "nope" does not exist in flow "chain"') as caught:
            ask("nope")
        assert "double, as_text, joined" in caught.value.hint
    with pytest.raises(RunNotFound):
        client.indexed_results(UNKNOWN, "double")


def test_the_client_survives_a_cut_connection_even_while_waiting(
    client: Client, worker: Worker, dsn: str
) -> None:
    run = client.start_flow("naps", [0.8])
    results: list[object] = []
    waiting = threading.Thread(target=lambda: results.append(run.wait(30).output))
    waiting.start()
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(3):
            time.sleep(0.15)
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
    waiting.join(30)
    assert results == [{"count": 1}]
    assert client.get_run(run.run_id) is not None


def test_results_of_a_step_that_still_runs_are_those_that_are_there(dsn: str, client: Client) -> None:
    run_id = start(dsn, "chain", [1, 2, 3])
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.complete_task(%s, 'double', 1, '7')", (run_id,))
        conn.execute("update pgflow.step_tasks set status = 'started' where run_id = %s", (run_id,))
        conn.execute("select pgflow.complete_task(%s, 'double', 1, '7')", (run_id,))
    assert list(client.indexed_results(run_id, "double")) == [(1, 7)]


def test_a_server_that_only_reads_answers_and_starts_nothing(
    dsn: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a standby does, until it is promoted: that is waited for."""
    run = client.start_flow("chain", [1])
    monkeypatch.setattr("pgflow_mp.client.calls.RETRY_FOR", 0.3)
    with Client(make_conninfo(dsn, options="-c default_transaction_read_only=on")) as reader:
        found = reader.get_run(run.run_id)
        assert found is not None
        assert found.status == "started"
        with pytest.raises(DatabaseUnavailable, match=r"for 0\.3 s: cannot execute .* read-only") as caught:
            reader.start_flow("chain", [1])
        assert caught.value.hint.startswith("Name the primary")


def test_a_run_of_higher_priority_is_claimed_first(client: Client, dsn: str) -> None:
    flow = Flow("prior")
    flow.map("m", abs)
    worker = "11111111-1111-1111-1111-111111111111"
    with psycopg.connect(dsn, autocommit=True) as conn:
        wire.adapt(conn)
        conn.execute(flow.to_sql().encode())
        engine.register_worker(conn, worker, "prior", "test")
        client.start_flow("prior", [1, 2, 3])
        urgent = client.start_flow("prior", [4, 5], priority=5)
        claimed = engine.claim_tasks(conn, "prior", worker, 2)
    assert [task.run_id for task in claimed] == [urgent.run_id] * 2
