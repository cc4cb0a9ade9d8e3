"""Reading with few rights: tables where the role may, else the functions that it was granted.

``pgflow.grant_access`` gives a role functions only (contract sql section 15). Tables are quicker, so a role
is asked once per process whether it may read them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

T = TypeVar("T")

_READER: Final = (
    "get_run_with_states",
    "recent_runs",
    "run_progress",
    "run_results",
    "run_heads",
    "run_input",
    "run_output",
    "step_output",
    "run_leaves",
    "run_results_page",
    "item",
    "run_failures",
    "run_tallies",
    "output_page",
    "finished_items",
    "failure_lines",
    "failed_items",
    "failed_since",
    "list_pauses",
    "list_limits",
    "list_requirements",
    "run_events",
    "run_reuses",
    "run_of_key",
    "keys_of_runs",
    "list_runs",
    "run_report",
    "list_steps",
    "list_items",
    "list_workers",
    "list_flows",
    "count_ended_runs",
    "flow_activity",
    "flow_settings",
    "schedules",
    "schedule_input",
    "schedule_times",
    "worker_processes",
    "item_times",
    "slowest_items",
    "run_spans",
)
_STARTER: Final = (
    "start_flow_with_states",
    "start_run",
    "open_load",
    "add_pages",
    "start_loaded_run",
    "drop_load",
    "start_run_from",
    "start_loaded_run_from",
    "start_keyed_run",
    "start_keyed_load",
    "tag_run",
    "set_schedule",
    "pause_schedule",
    "resume_schedule",
    "delete_schedule",
    "backfill_schedule",
)
_OPERATOR: Final = (
    "cancel_run",
    "retry_failed_tasks",
    "retry_items",
    "add_new_steps",
    "prune_runs",
    "remove_run",
    "known_artifact_stores",
    "gone_runs",
    "pause_flow",
    "resume_flow",
    "pause_run",
    "resume_run",
    "ask_stacks",
    "stack_answers",
    "drain_workers",
    "set_limit",
    "reset_limit",
)
_WORKER: Final = (
    "flow_options",
    "flow_queues",
    "steps_added",
    "claim_tasks",
    "claim_tasks_without_input",
    "task_input",
    "paged_input",
    "complete_tasks",
    "fail_tasks",
    "release_tasks",
    "extend_tasks",
    "register_worker",
    "heartbeat",
    "stop_workers",
    "requeue_stalled_tasks",
    "fail_stalled_tasks",
    "recover_dead_workers",
    "watched_workers",
    "recover_workers",
    "retire_worker",
    "report_parked",
    "claim_work",
    "range_pages",
    "complete_ranges",
    "fail_range_items",
    "release_ranges",
    "installation_id",
    "use_artifact_store",
    "fire_schedules",
    "schedules_wait",
    "schedules_to_plan",
    "plan_schedule",
    "report_worker",
    "open_stack_questions",
    "answer_stacks",
)
ACCESS: Final = {
    name: access
    for access, names in (
        ("reader", _READER),
        ("starter", _STARTER),
        ("operator", _OPERATOR),
        ("worker", _WORKER),
    )
    for name in names
}
"""The least access of ``pgflow.grant_access`` that includes a function; others are for the schema's owner."""

_restricted: set[tuple[str, str, int, str]] = set()


def read(
    conn: psycopg.Connection[Any],
    from_tables: Callable[[psycopg.Connection[Any]], T],
    by_functions: Callable[[psycopg.Connection[Any]], T],
) -> T:
    """What ``from_tables`` returns, or ``by_functions`` where the role may not read tables.

    In a transaction a refused statement spoils no more than itself.
    """
    who = (conn.info.user, conn.info.host, conn.info.port, conn.info.dbname)
    if who not in _restricted:
        inside = conn.info.transaction_status != TransactionStatus.IDLE
        try:
            with conn.transaction() if inside else nullcontext():
                return from_tables(conn)
        except psycopg.errors.InsufficientPrivilege:
            _restricted.add(who)
    return by_functions(conn)
