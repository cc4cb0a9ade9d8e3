"""Runs whose items have failed, made by hand: as many as are wanted, in no time."""

from __future__ import annotations

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection


def failed_run(conn: Connection, items: int, error: str, step: str = "started") -> str:
    """A run whose map in tasks has so many failed items; ``error`` is SQL of their numbers ``i``."""
    conn.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 'm', step_type => 'map')")
    run_id = engine.start_flow(conn, "f", b"[0]")
    conn.execute("delete from pgflow.step_tasks")
    conn.execute(
        "insert into pgflow.step_tasks (flow_slug, run_id, step_slug, task_index, status, attempts_count,"
        " started_at, queued_at, failed_at, error_message, input)"
        f" select 'f', '{run_id}', 'm', i, 'failed', 1, now(), now(), now(), {error}, to_jsonb(i)"
        f" from generate_series(0, {items - 1}) i".encode()
    )
    conn.execute(
        "update pgflow.step_states set failed_tasks = %s, initial_tasks = %s, status = %s,"
        " remaining_tasks = 0, failed_at = case when %s = 'failed' then now() end",
        (items, items, step, step),
    )
    return run_id
