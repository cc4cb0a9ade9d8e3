"""What a handler reaches through its Context in a real database."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest

from pgflow_mp import Context, DatabaseUnavailable, Flow, PermanentError, RunNotFound
from pgflow_mp.flows.context import Runtime


@pytest.fixture
def task(dsn: str, conn: psycopg.Connection[Any]) -> Context:
    """The one task of a started run of the flow Demo, as a lane would describe it."""
    conn.execute(Flow("Demo").step("first", lambda: 1).to_sql().encode())
    row = conn.execute("""SELECT run_id FROM pgflow.start_flow('Demo', '{"a": 1}')""").fetchone()
    assert row is not None
    found = conn.execute("SELECT message_id FROM pgflow.step_tasks").fetchone()
    assert found is not None
    return Context(str(row[0]), "Demo", "first", msg_id=found[0], runtime=Runtime(dsn=dsn))


def test_the_flow_input_is_loaded_from_the_run_where_the_task_brought_none(task: Context) -> None:
    assert task.flow_input == {"a": 1}
    missing = Context(str(uuid.uuid4()), runtime=task.runtime)
    with pytest.raises(RunNotFound, match=f"^Run not found: {missing.run_id}$"):
        _ = missing.flow_input
    task.runtime.close()


def test_the_raw_message_is_the_queue_row(task: Context) -> None:
    message = task.raw_message
    assert (message.msg_id, message.read_ct) == (task.msg_id, 0)
    assert isinstance(message.message, dict)
    assert message.message["step_slug"] == "first"
    task.runtime.close()


def test_an_item_in_ranges_has_no_message_and_says_so_for_good() -> None:
    """For good: at a second attempt the item would be a task, and have one."""
    item = Context(str(uuid.uuid4()), "Demo", "first", 3, runtime=Runtime(dsn="host=/nonexistent dbname=x"))
    with pytest.raises(PermanentError, match=r'^first\[3\] has no message .*: storage="tasks"'):
        _ = item.raw_message


def test_tasks_share_one_connection_which_is_opened_again_once_closed(task: Context) -> None:
    first = task.connect()
    assert task.connect() is first
    first.execute("BEGIN")
    assert task.connect() is first
    assert first.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    with task.connect() as conn:
        conn.execute("SELECT 1")
    second = task.connect()
    assert second is not first
    assert second.autocommit
    task.runtime.close()


def test_a_database_that_is_gone_is_an_error_of_ours() -> None:
    runtime = Runtime(dsn="host=/nonexistent dbname=x")
    with pytest.raises(DatabaseUnavailable, match="Cannot connect to the database"):
        runtime.connect()
