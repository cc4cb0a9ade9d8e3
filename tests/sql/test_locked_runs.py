"""A run that somebody keeps locked in an open transaction, and what is to be done for all runs."""

from __future__ import annotations

import uuid

import psycopg

from pgflow_mp.db.pruning import remove_run


def test_the_tasks_of_the_dead_are_taken_over_beside_a_run_that_is_locked(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as theirs:
        runs = {}
        for slug in ("a", "b"):
            conn.execute("select pgflow.create_flow(%s)", (slug,))
            conn.execute("select pgflow.add_step(%s, 'm', step_type => 'map')", (slug,))
            runs[slug] = conn.execute("select pgflow.start_run(%s, '[1, 2]')", (slug,)).fetchone()
            worker = uuid.uuid4()
            conn.execute("select pgflow.register_worker(%s, %s, 'w', '1 second')", (worker, slug))
            conn.execute("select pgflow.claim_tasks(%s, %s, 5)", (slug, worker))
        conn.execute("set statement_timeout = '5s'; set lock_timeout = '4s'")
        theirs.execute("select pgflow.cancel_run(%s)", runs["a"])
        conn.execute("update pgflow.workers set last_heartbeat_at = now() - interval '1 minute'")
        for taken in (2, 0):
            assert conn.execute("select pgflow.recover_dead_workers()").fetchone() == (taken,)
            assert conn.execute("show lock_timeout").fetchone() == ("4s",)
            conn.execute("update pgflow.workers set stopped_at = stopped_at - interval '1 minute'")
        theirs.rollback()
        assert conn.execute("select pgflow.recover_dead_workers()").fetchone() == (2,)
        found = conn.execute("select distinct status from pgflow.step_tasks").fetchall()
        assert found == [("queued",)]


def test_what_is_left_of_a_run_goes_beside_a_task_of_it_that_is_locked(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as theirs:
        conn.execute("select pgflow.create_flow('a')")
        conn.execute("select pgflow.add_step('a', 'm', step_type => 'map')")
        conn.execute("select pgflow.set_step_policy('a', 'm', tolerated_failures => 1)")
        worker = uuid.uuid4()
        removed, pruned = (
            conn.execute("select pgflow.start_run('a', '[1, 2]')").fetchone() for _ in range(2)
        )
        conn.execute("select pgflow.register_worker(%s, 'a', 'w', '1 day')", (worker,))
        conn.execute("select pgflow.claim_tasks('a', %s, 5)", (worker,))
        # What stalled too often stays its worker's, tolerated.
        conn.execute(
            "update pgflow.step_tasks set permanently_stalled_at = now() - interval '1 h' "
            "where task_index = 1"
        )
        conn.execute("select pgflow.fail_stalled_tasks()")
        for run in (removed, pruned):
            assert run is not None
            conn.execute("select pgflow.complete_task(%s, 'm', 0, '1')", run)
        found = conn.execute(
            "select r.status, t.status from pgflow.runs r join pgflow.step_tasks t using (run_id)"
        )
        assert sorted(found) == 2 * [("completed", "completed")] + 2 * [("completed", "started")]

        conn.execute("set statement_timeout = '2s'")
        ids = "(select array_agg(message_id) from pgflow.step_tasks where task_index = 1)"
        theirs.execute(f"select pgflow.extend_tasks('a', %s, {ids}, 60)", (worker,))
        calls = "select * from pgflow.remove_run(%s)"
        gone = [conn.execute(calls, removed).fetchone() for _ in range(3)]
        assert gone == [(0, False), (1, False), (0, False)]
        prune = "select * from pgflow.prune_runs('-1 hour')"
        assert [conn.execute(prune).fetchone() for _ in range(2)] == [(1, 0, False), (0, 1, False)]
        left = "select count(*) from pgflow.step_tasks t join pgflow.leavings using (run_id)"
        assert conn.execute(left).fetchone() == (2,)
        remove_run(conn, str(next(iter(removed or ()))))  # gives up in the end
        theirs.rollback()
        while conn.execute(prune).fetchone() != (0, 0, True):
            pass
        assert conn.execute("select count(*) from pgflow.step_tasks").fetchone() == (0,)
        assert conn.execute("select count(*) from pgflow.leavings").fetchone() == (0,)
