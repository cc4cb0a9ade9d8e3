"""Maps in ranges for tests: started so whatever their flow says, and an audit of what is recorded of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
from worker_harness import compiled, start

from pgflow_mp.testing.audit import audit_run


def store_in_ranges(dsn: str, flow: str) -> None:
    """Have the maps of a flow that the database knows be stored in ranges."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into pgflow.step_policies (flow_slug, step_slug, storage) "
            "select flow_slug, step_slug, 'ranges' from pgflow.steps "
            "where flow_slug = %s and step_type = 'map' "
            "on conflict (flow_slug, step_slug) do update set storage = 'ranges'",
            (flow,),
        )


def start_in_ranges(dsn: str, flow: str, input: Any, **options: Any) -> str:
    """Start a run whose maps are stored in ranges; its id.

    ``options`` are columns of the flow's steps, or of their policies, to be set for a worker that leaves them
    (compile="skip").
    """
    compiled(dsn, flow)
    store_in_ranges(dsn, flow)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name, value in options.items():
            table = "steps" if name.startswith("opt_") else "step_policies"
            conn.execute(
                f"update pgflow.{table} set {name} = %s where flow_slug = %s".encode(), (value, flow)
            )
    return start(dsn, flow, input)


def problems(dsn: str, run_id: str) -> list[str]:
    """What the audit has to say."""
    with psycopg.connect(dsn) as conn:
        return audit_run(conn, run_id)


class Ranges:
    """What the database has of one map in ranges, by direct SQL."""

    def __init__(self, dsn: str, run_id: str, step: str) -> None:
        with psycopg.connect(dsn) as conn:
            (self.items, self.next_index) = conn.execute(
                "select items, next_index from pgflow.range_maps where run_id = %s and step_slug = %s",
                (run_id, step),
            ).fetchone() or (0, 0)
            self.pages = conn.execute(
                "select first_index, items, body, worker_id::text from pgflow.pages "
                "where run_id = %s and step_slug = %s and is_result order by first_index",
                (run_id, step),
            ).fetchall()
            self.leases = conn.execute(
                "select first_index, end_index, worker_id::text, lease_no, deaths from pgflow.ranges "
                "where run_id = %s and step_slug = %s order by first_index",
                (run_id, step),
            ).fetchall()
            self.tasks = {
                row[0]: row[1:]
                for row in conn.execute(
                    "select task_index, status, attempts_count, error_message, output "
                    "from pgflow.step_tasks where run_id = %s and step_slug = %s order by 1",
                    (run_id, step),
                ).fetchall()
            }

    @property
    def outputs(self) -> list[Any]:
        """All outputs in index order; fails unless result pages cover each index exactly once."""
        found: list[Any] = []
        for first, items, body, _ in self.pages:
            assert first == len(found), f"pages cover item {min(first, len(found))} twice or not at all"
            assert len(body) == items
            found += body
        assert len(found) == self.items
        assert self.leases == []
        return found

    def statuses(self) -> Counter[str]:
        """How many of the exceptions, which are tasks, have which status."""
        return Counter(row[0] for row in self.tasks.values())
