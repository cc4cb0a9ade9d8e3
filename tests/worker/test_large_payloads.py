"""Payloads that pass a limit of the database: one task fails, or none; no worker ends, and none swells."""

from __future__ import annotations

import time

import psycopg
import pytest
from database_roles import role_with
from worker_harness import (
    Tasks,
    compiled,
    eventually,
    output,
    peak,
    run_row,
    serve,
    settings,
    start,
    threaded,
)

from pgflow_mp.client import Client
from pgflow_mp.worker.stats import Ending
from pgflow_mp.worker.worker import Worker


def execute(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def limit(dsn: str, name: str, value: int) -> None:
    execute(
        dsn,
        f"create or replace function pgflow.{name}() returns bigint language sql immutable "
        f"set search_path = pg_catalog, pg_temp as 'select {value}::bigint'",
    )


def serve_all(dsn: str, flow: str, *runs: str, **options: float) -> Worker:
    """Serve a flow with one worker, which must not end by itself, until these runs have ended."""
    worker = Worker(settings(dsn, flow, **options))
    with threaded(worker) as running:
        eventually(lambda: running.error or all(run_row(dsn, run).status != "started" for run in runs), 300.0)
        worker.request_stop()
        assert running.join().ending is Ending.REQUESTED
    return worker


def test_parents_that_fit_no_json_value_together_are_read_by_the_process_in_need(dsn: str) -> None:
    limit(dsn, "_largest_json", 20_000)
    large, small = start(dsn, "bulky", [6000, 6000]), start(dsn, "bulky", [10, 10])
    worker = serve_all(dsn, "bulky", large, small)
    assert (output(dsn, large), output(dsn, small)) == ({"both": 24_000}, {"both": 40})
    assert Tasks(dsn, large).attempts("both", 0) == 1
    assert worker.stats.failed == 0


@pytest.mark.parametrize("storage", [pytest.param("tasks", marks=pytest.mark.slow), "ranges"])
def test_parents_that_are_more_than_a_claim_holds_are_read_by_the_process_in_need(
    dsn: str, storage: str
) -> None:
    limit(dsn, "_claim_bytes", 20_000)
    compiled(dsn, "deep")
    policies = (
        "select pgflow.set_step_policy('deep', slug, storage => '{}')"
        " from unnest(array['swell', 'shrink']) slug"
    )
    execute(dsn, policies.format(storage))
    lengths = [6000, 6000, 7]
    run = start(dsn, "deep", lengths)
    serve_all(dsn, "deep", run)
    assert output(dsn, run) == {"shrink": [length - 1 for length in lengths], "extent": [3, sum(lengths)]}
    with psycopg.connect(dsn) as conn:
        in_ranges = conn.execute("select count(*) from pgflow.range_maps").fetchone()
    assert in_ranges == ((2,) if storage == "ranges" else (0,))


def test_a_role_without_rights_on_tables_reads_them_too(dsn: str) -> None:
    limit(dsn, "_claim_bytes", 20_000)
    run = start(dsn, "deep", [6000, 6000, 7])
    with role_with(dsn, "worker") as restricted:
        serve(restricted, "deep", run)
    assert output(dsn, run)["extent"] == [3, 12_007]


def test_an_input_that_cannot_be_read_fails_its_task_and_costs_no_other_run(dsn: str) -> None:
    bad, good = start(dsn, "bulky", [1, 2]), start(dsn, "bulky", [3])
    both = '{"left": ["l"], "right": ["r"]}'
    broken = (
        " returns {0} language plpgsql set search_path = pg_catalog, pg_temp as $$ begin"
        f" if run_id = '{bad}' then raise exception using errcode = 'XX000',"
        " message = 'invalid memory alloc request size 1073741824'; end if; {1} end $$"
    )
    execute(
        dsn,
        "create or replace function pgflow._deps_outputs(flow_slug text, run_id uuid, step_slug text)"
        + broken.format("jsonb", f"return '{both}';"),
        "create or replace function pgflow.paged_input(run_id uuid, step_slug text, task_index int)"
        + broken.format(
            "table (input jsonb, flow_input jsonb, paged jsonb)",
            f"return query select '{both}'::jsonb, null::jsonb, null::jsonb;",
        ),
    )
    serve_all(dsn, "bulky", bad, good)
    assert (run_row(dsn, bad).status, output(dsn, good)) == ("failed", {"both": 2})
    assert Tasks(dsn, bad).error("both", 0) == (
        'step "both" task 0: its input cannot be read: invalid memory alloc request size 1073741824'
    )


REFUSE = """
create function public.refuse() returns trigger language plpgsql as $$ begin
  if new.task_index = 3 and new.status in ({statuses}) then raise exception 'not that one'; end if;
  return new;
end $$;
create trigger refuse before update on pgflow.step_tasks for each row execute function public.refuse();
"""


@pytest.mark.parametrize(
    ("statuses", "status", "error"),
    [
        ("'completed'", "failed", 'The database refuses the output of step "grow" task 3: not that one'),
        ("'completed', 'failed'", "started", None),
    ],
)
def test_what_a_trigger_raises_about_one_task_ends_no_worker(
    dsn: str, statuses: str, status: str, error: str | None
) -> None:
    compiled(dsn, "wide")
    execute(dsn, REFUSE.format(statuses=statuses))
    stuck, other = start(dsn, "wide", [1] * 6), start(dsn, "wide", [1] * 3)
    worker = Worker(settings(dsn, "wide"))
    with threaded(worker) as running:
        eventually(lambda: running.error or run_row(dsn, other).status == "completed")
        eventually(lambda: running.error or Tasks(dsn, stuck).statuses("grow")["completed"] == 5)
        eventually(lambda: running.error or run_row(dsn, stuck).status == status)
        worker.request_stop()
        assert running.join().unsettled == 0
    assert Tasks(dsn, stuck).error("grow", 3) == error


def test_a_run_whose_leaves_do_not_fit_together_completes(dsn: str) -> None:
    limit(dsn, "_largest_json", 20_000)
    run = start(dsn, "leaves", [6000, 6000])
    serve_all(dsn, "leaves", run)
    assert output(dsn, run) == {"one": ["1" * 6000, "1" * 6000], "two": None}
    with Client(dsn) as client:
        told = client.get_run(run)
        assert told is not None
        assert told.output == {"one": ["1" * 6000, "1" * 6000], "two": ["2" * 6000, "2" * 6000]}
    assert Tasks(dsn, run).outputs("two") == ["2" * 6000] * 2


# -- at full size ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_worker_does_not_grow_with_what_its_steps_hold(dsn: str) -> None:
    """30 outputs of 1 MB into a second map, with limits of 1 MB."""
    limit(dsn, "_claim_bytes", 1 << 20)
    run = start(dsn, "wide", [1 << 20] * 30)
    with peak() as grown:
        serve_all(dsn, "wide", run)
    assert Tasks(dsn, run).statuses("measure") == {"completed": 30}
    assert grown[0] < 100e6


@pytest.mark.slow
def test_300_outputs_of_5_MB_into_a_second_map(dsn: str) -> None:
    run, began = start(dsn, "wide", [5_000_000] * 300), time.monotonic()
    with peak() as grown:
        serve_all(dsn, "wide", run)
    print(f"{grown[0] / 1e6:.0f} MB, {time.monotonic() - began:.1f} s")
    with psycopg.connect(dsn) as conn:
        counts = conn.execute(
            "select count(*), max(output::int) from pgflow.step_tasks"
            " where step_slug = 'measure' and status = 'completed'"
        ).fetchone()
    assert counts == (300, 5_000_000)
    assert grown[0] < 300e6
