"""Counting a run again, row by row, and comparing with what the engine says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.testing.audit_ranges import range_problems

if TYPE_CHECKING:
    import psycopg

_STEPS: Final = """
    select ss.step_slug, s.step_type, ss.status, ss.initial_tasks, ss.remaining_tasks, ss.failed_tasks,
      count(t.task_index),
      count(t.task_index) filter (where t.status = 'completed'),
      count(t.task_index) filter (where t.status = 'failed'),
      count(t.task_index) filter (where t.status = 'failed' and t.error_message is null),
      count(t.task_index) filter (where t.status = 'started'),
      min(t.task_index), max(t.task_index),
      s.step_type <> 'map' or ss.status <> 'completed' or ss.output is null or ss.output = coalesce(
        jsonb_agg(coalesce(t.output, 'null'::jsonb) order by t.task_index)
          filter (where t.task_index is not null), '[]'::jsonb),
      m.items is not null
    from pgflow.step_states ss
    join pgflow.steps s on s.flow_slug = ss.flow_slug and s.step_slug = ss.step_slug
    left join pgflow.range_maps m on m.run_id = ss.run_id and m.step_slug = ss.step_slug
    left join pgflow.step_tasks t on t.run_id = ss.run_id and t.step_slug = ss.step_slug
    where ss.run_id = %(run)s::uuid
    group by ss.step_slug, s.step_type, ss.status, ss.initial_tasks, ss.remaining_tasks, ss.failed_tasks,
      ss.output, s.step_index, m.items
    order by s.step_index
"""
_MESSAGES: Final = """
    select
      (select count(*) from pgmq.{queue} q where (q.message ->> 'run_id')::uuid = %(run)s::uuid),
      (select count(*) from pgflow.step_tasks t where t.run_id = %(run)s::uuid and t.queue_name = %(name)s
        and t.status in ('completed', 'failed', 'skipped', 'cancelled') and t.message_id is not null
        and 1 <> (select count(*) from pgmq.{archive} a where a.msg_id = t.message_id)),
      (select count(*) from pgmq.{archive} a where (a.message ->> 'run_id')::uuid = %(run)s::uuid)
        - (select count(distinct a.msg_id) from pgmq.{archive} a
           where (a.message ->> 'run_id')::uuid = %(run)s::uuid)
"""


def audit_run(conn: psycopg.Connection[Any], run_id: str) -> list[str]:
    """What is wrong with a run: nothing, or a line for each thing.

    Every task of a completed step is recorded exactly once, as completed or as failed with an error;
    remaining_tasks, failed_tasks and remaining_steps equal a recount; a map's output is its tasks'; of a run
    that has ended nothing is queued or under way, and each of its tasks' messages is in the archive once.
    Steps that had begun beside the one that failed a run stay as they were. For maps in ranges see
    ``pgflow_mp.testing.audit_ranges``.
    The role needs rights on pgflow's and the queue's tables.
    """
    from psycopg import sql

    run = conn.execute(
        "select flow_slug, status, remaining_steps from pgflow.runs where run_id = %s::uuid",
        (run_id,),
    ).fetchone()
    if run is None:
        return [f"run {run_id} is not there"]
    flow_slug, run_status, remaining_steps = run
    rows = conn.execute(_STEPS, {"run": run_id}).fetchall()
    problems = [f"{row[0]}: {text}" for row in rows for text in _step_problems(row, run_status)]
    problems += range_problems(conn, run_id)
    open_steps = sum(row[2] in ("created", "started", "failed") for row in rows)
    if remaining_steps != open_steps:
        problems.append(f"remaining_steps is {remaining_steps}, recounted {open_steps}")
    if run_status == "started":
        return problems
    queues = conn.execute("select distinct queue_name from pgflow.steps where flow_slug = %s", (flow_slug,))
    counts = [0, 0, 0]
    for (name,) in queues.fetchall():
        tables = {"queue": sql.Identifier(f"q_{name}"), "archive": sql.Identifier(f"a_{name}")}
        row = conn.execute(sql.SQL(_MESSAGES).format(**tables), {"run": run_id, "name": name}).fetchone()
        counts = [total + found for total, found in zip(counts, row or (0, 0, 0), strict=True)]
    texts = (
        "messages are still queued",
        "tasks whose message is not archived once",
        "messages archived twice",
    )
    problems += [f"{count} {text}" for count, text in zip(counts, texts, strict=True) if count]
    return problems


def _step_problems(row: Any, run_status: str) -> list[str]:
    (_, step_type, status, initial, remaining, failed_tasks, rows, completed, failed, silent, started) = row[
        :11
    ]
    first, last, output_is_its_tasks, in_ranges = row[11:]
    problems: list[str] = []
    if silent:
        problems.append(f"{silent} tasks failed without an error")
    if started and status == "completed":
        problems.append(f"completed with {started} tasks that are under way")
    if started and run_status == "failed":
        problems.append(f"{started} tasks under way in a run that is failed")
    if status == "started" and run_status == "completed":
        problems.append("started in a run that is completed")
    if in_ranges:
        return problems
    if rows and (first != 0 or last != rows - 1):
        problems.append(f"{rows} tasks with the indexes {first} to {last}")
    if status == "completed":
        if initial != completed + failed or rows != initial:
            problems.append(f"{initial} tasks, of which {completed} completed and {failed} failed")
        if remaining != 0:
            problems.append(f"completed, yet remaining_tasks is {remaining}")
        if not output_is_its_tasks:
            problems.append("its output is not that of its tasks")
    elif status == "started" and run_status == "started" and remaining != initial - completed - failed:
        problems.append(f"remaining_tasks is {remaining}, recounted {initial - completed - failed}")
    if status in ("completed", "started") and step_type == "map" and failed_tasks != failed:
        problems.append(f"failed_tasks is {failed_tasks}, recounted {failed}")
    return problems
