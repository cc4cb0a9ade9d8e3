"""A worker that lets go of old runs (``retention.Retention``), without the worker around it."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from database_roles import role_with
from worker_harness import adapted, eventually, start

from pgflow_mp.errors import DatabaseError
from pgflow_mp.worker import retention
from pgflow_mp.worker.inbox import Said
from pgflow_mp.worker.retention import Retention


def ended(dsn: str, flow: str) -> str:
    """A run that failed an hour ago."""
    run_id = start(dsn, flow, [1, 2])
    with psycopg.connect(dsn) as conn:
        conn.execute("select pgflow.cancel_run(%s)", (run_id,))
        conn.execute(
            "update pgflow.runs set started_at = now() - interval '2 hours',"
            " failed_at = now() - interval '1 hour' where run_id = %s",
            (run_id,),
        )
    return run_id


def test_runs_of_its_flows_go_and_it_says_so(dsn: str) -> None:
    theirs, others = ended(dsn, "chain"), ended(dsn, "naps")
    young = start(dsn, "chain", [3])
    said: list[Any] = []
    thread = Retention(dsn, said.append, keep=600.0, flows=["chain"])
    thread.start()
    try:
        found = eventually(lambda: [told for told in said if isinstance(told, Said)])
    finally:
        thread.stop()
        thread.join(20)
        thread.close()
    assert found == [Said("info", "removed 1 run that ended more than 10 min ago")]
    with psycopg.connect(dsn) as conn:
        left = conn.execute("select run_id::text from pgflow.runs").fetchall()
        tasks = conn.execute("select count(*) from pgflow.step_tasks where run_id = %s", (theirs,)).fetchone()
    assert {run for (run,) in left} == {others, young}
    assert tasks == (0,)


def test_what_is_refused_meanwhile_is_told_and_ends_nothing(dsn: str) -> None:
    with role_with(dsn, "worker") as mine:
        said: list[Any] = []
        thread = Retention(mine, said.append, keep=600.0, flows=["chain"])
        thread.start()
        try:
            (told,) = eventually(lambda: [told for told in said if isinstance(told, Said)])
            assert thread.is_alive()
        finally:
            thread.stop()
            thread.join(20)
            thread.close()
    assert told == Said("warn", "old runs cannot be removed: permission denied for function prune_runs")


@pytest.mark.parametrize(("access", "may"), [("worker", False), ("operator", True)])
def test_who_may_not_remove_runs_is_told_before_the_work(dsn: str, access: str, may: bool) -> None:
    with role_with(dsn, access) as mine, adapted(mine) as conn:
        if may:
            retention.check(conn)
            return
        with pytest.raises(DatabaseError, match="permission denied for function prune_runs") as refused:
            retention.check(conn)
        assert "'operator'" in str(refused.value.hint)
