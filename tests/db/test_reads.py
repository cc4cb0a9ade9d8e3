"""What each role may read is what the package says; and reading changes nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from database_roles import role_with
from worker_harness import adapted, start

from pgflow_mp.db import engine, rights
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import documents, failed, finished, lists, records, runs, storages, tasks, worked

BEGAN = datetime(2000, 1, 1, tzinfo=UTC)
NOBODYS = "00000000-0000-4000-8000-000000000000"
READS: dict[str, Callable[[Connection, str], Any]] = {
    "run_heads": lambda conn, run: runs.run_heads(conn, [run]),
    "run_view": runs.run_view,
    "recent_runs": lambda conn, run: runs.recent_runs(conn, 5),
    "find_runs": lambda conn, run: runs.find_runs(conn, run[:8]),
    "unfinished_runs": lambda conn, run: runs.unfinished_runs(conn, "chain", NOBODYS),
    "the_run": lambda conn, run: runs.the_run(conn, run[:13]),
    "known_flows": lambda conn, run: runs.known_flows(conn),
    "check_flow": lambda conn, run: runs.check_flow(conn, "chain"),
    "list_runs": lambda conn, run: lists.list_runs(conn, 5, flow="chain", statuses=["started"], since=BEGAN),
    "one_run": lists.one_run,
    "list_steps": lambda conn, run: lists.list_steps(conn, [run]),
    "list_items": lambda conn, run: lists.list_items(conn, run, "double", 5),
    "list_workers": lambda conn, run: lists.list_workers(conn, 5),
    "list_flows": lambda conn, run: lists.list_flows(conn, 5),
    "flow_settings": lambda conn, run: lists.flow_settings(conn, "chain"),
    "list_requirements": lambda conn, run: lists.list_requirements(conn, ["chain"]),
    "flow_activity": lambda conn, run: lists.flow_activity(conn, ["chain"], BEGAN),
    "run_input": documents.run_input,
    "run_output": documents.run_output,
    "step_output": lambda conn, run: documents.step_output(conn, run, "double"),
    "beginning_of_output": lambda conn, run: documents.beginning_of_output(conn, run, 10, 5),
    "leaves": documents.leaves,
    "iter_tasks": lambda conn, run: [*documents.iter_tasks(conn, run, "double")],
    "iter_results": lambda conn, run: [*documents.iter_results(conn, run, "double")],
    "iter_map_output": lambda conn, run: [*documents.iter_map_output(conn, run, "double")],
    "iter_run_output": lambda conn, run: [*documents.iter_run_output(conn, run)],
    "look": lambda conn, run: finished.look(conn, run, "double", [(0, finished.END)], inputs=True),
    "iter_records": lambda conn, run: [
        *records.iter_records(conn, run, "double", inputs=True),
        *records.iter_records(conn, run, "double", inputs=False, statuses=["failed"]),
    ],
    "first_failed": lambda conn, run: tasks.first_failed(conn, run, 5),
    "failure_lines": lambda conn, run: [*failed.failure_lines(conn, run, "double", "o")],
    "failed_since": failed.failed_since,
    "count_ended_runs": lambda conn, run: lists.count_ended_runs(conn, None),
    "failed_rows": lambda conn, run: failed.failed_rows(conn, run, [("double", 1)], 9, 99),
    "iter_failed_rows": lambda conn, run: [*failed.iter_failed_rows(conn, run, "double", 9)],
    "ended_with_others": lambda conn, run: tasks.ended_with_others(conn, run, engine.run_progress(conn, run)),
    "storages": storages.storages,
    "stored_task": lambda conn, run: tasks.stored_task(conn, run, "double", 0),
    "worker_spans": lambda conn, run: worked.worker_spans(conn, BEGAN),
}
OWNER = {"stored_task"}
OWNER_OR_CLIENT = {"known_flows"}
LESS = {"unfinished_runs", "worker_spans", "storages"}
"""What tells less without rights on tables."""
EVERYBODY = {"unfinished_runs", "worker_spans", "storages", "check_flow"}
NO_QUERIES = {"unmet_step", "seconds", "records_of"}


def asked(dsn: str, run_id: str) -> dict[str, Any]:
    """The answers by function; the class of the error where it is refused."""
    found: dict[str, Any] = {}
    with adapted(dsn) as conn:
        for name, read in READS.items():
            try:
                found[name] = read(conn, run_id)
            except psycopg.errors.InsufficientPrivilege as error:
                found[name] = type(error)
    return found


def test_every_function_is_tried() -> None:
    public = {
        name
        for module in (documents, failed, finished, lists, records, runs, storages, tasks, worked)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert public - NO_QUERIES == set(READS)


@pytest.fixture
def failed_run(dsn: str) -> str:
    """A run of which one task failed, and the others ended with it."""
    run_id = start(dsn, "chain", [1, 2, 3])
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "update pgflow.step_tasks set status = 'failed', failed_at = now(), error_message = 'no'"
            " where run_id = %s and task_index = 1",
            (run_id,),
        )
        conn.execute("update pgflow.step_states set failed_tasks = 1 where run_id = %s", (run_id,))
    return run_id


@pytest.mark.parametrize("access", ["starter", "operator", "worker", "client", None])
def test_what_a_role_may_read_is_what_the_package_says(dsn: str, failed_run: str, access: str | None) -> None:
    owners = asked(dsn, failed_run)
    refused = psycopg.errors.InsufficientPrivilege
    assert refused not in owners.values()
    assert owners["first_failed"] == ([("double", 1)], 1)
    assert owners["failure_lines"] == [failed.FailureLine("no", True, 1, [1])]
    row = failed.FailedRow("double", 1, 0, "no", "2", 1, b"2")
    assert owners["failed_rows"] == [row]
    assert owners["iter_failed_rows"] == [row._replace(input=None)]
    with role_with(dsn, access) as mine:
        found = asked(mine, failed_run)
    denied = {name for name, answer in found.items() if answer is refused}
    if access in (None, "client"):
        assert denied == set(READS) - EVERYBODY - (OWNER_OR_CLIENT if access == "client" else set())
        return
    assert denied == OWNER | OWNER_OR_CLIENT
    differs = {name for name in set(READS) - denied if found[name] != owners[name]}
    assert differs <= LESS
    assert found["unfinished_runs"] == ([], 0)


def test_a_role_is_asked_once_whether_it_may_read_tables(dsn: str, failed_run: str) -> None:
    with role_with(dsn, "starter") as mine, adapted(mine) as conn:
        before = len(rights._restricted)
        assert runs.run_view(conn, failed_run) == runs.run_view(conn, failed_run)
        assert len(rights._restricted) == before + 1
