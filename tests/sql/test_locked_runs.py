"""A run that somebody keeps locked in an open transaction, and what is to be done for all runs."""

from __future__ import annotations

import uuid

import psycopg


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
