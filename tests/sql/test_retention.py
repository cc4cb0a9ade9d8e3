"""``prune_runs``: runs that ended long ago go in small transactions, whatever their maps are stored in."""

from __future__ import annotations

import uuid

import pytest

from .helpers import Db, archive, flow, map_step, setup, start, work
from .range_rows import ranges_run
from .test_pages_of_runs import GONE, end, half_done
from .test_pages_of_runs import counts as range_counts
from .test_prune_data_older_than import age_run, counts, finished


def prune(db: Db, keep: str = "7 days", *flows: str, rows: int = 5000) -> list[tuple[int, int]]:
    """Calls until it is done: (runs, rows) of each."""
    calls: list[tuple[int, int]] = []
    for _ in range(200):
        call = "select * from pgflow.prune_runs(%s::interval, %s::text[], %s)"
        found = db.row(call, keep, list(flows) or None, rows)
        if found.is_done:
            assert (found.runs, found.removed) == (0, 0)
            return calls
        calls.append((found.runs, found.removed))
    raise AssertionError(calls)


def nothing_is_left(db: Db, run: uuid.UUID) -> bool:
    return counts(db, run) == [0, 0, 0] and range_counts(db, run) == GONE


@pytest.mark.parametrize("how", ["completed", "failed"])
@pytest.mark.parametrize(("days", "gone"), [(8, True), (6, False)])
def test_what_ended_before_the_cutoff_goes(db: Db, how: str, days: int, gone: bool) -> None:
    run = finished(db, days, how)
    before = counts(db, run)
    prune(db)
    assert counts(db, run) == ([0, 0, 0] if gone else before)
    assert db.value("select count(*) from pgflow.leavings") == 0


def test_what_has_not_ended_stays(db: Db) -> None:
    run = half_done(db)
    age_run(db, run, 1000)
    before = [counts(db, run), range_counts(db, run)]
    assert prune(db) == []
    assert [counts(db, run), range_counts(db, run)] == before


def test_a_run_goes_at_once_and_what_is_left_of_it_piece_by_piece(db: Db) -> None:
    tasks = start(db, flow(db, "f", map_step("m")), [*range(50)])
    work(db, "f")
    age_run(db, tasks, 9)
    pages = half_done(db)
    end(db, pages, 9)
    row = db.row("select * from pgflow.prune_runs('7 days', null, 20)")
    assert (row.runs, row.is_done) == (2, False)
    assert db.value("select count(*) from pgflow.runs") == 0
    assert db.value("select count(*) from pgflow.step_states") == 0
    assert db.value("select count(*) from pgflow.range_maps") == 0
    assert counts(db, tasks)[0] == 50
    assert range_counts(db, pages)[2] > 0
    for run in (tasks, pages):
        assert db.value("select count(*) from pgflow.items where run_id = %s", run) == 0
        assert db.rows("select * from pgflow.item(%s, 'm', 0)", run) == []
        assert db.rows("select * from pgflow.run_results(%s, 'm')", run) == []
        assert db.value("select pgflow.get_run_with_states(%s)", run) is None
    calls = prune(db, rows=20)
    assert sum(removed for _, removed in calls) == 50 + 1 + 4
    assert max(removed for _, removed in calls) <= 20
    assert nothing_is_left(db, tasks)
    assert nothing_is_left(db, pages)


def test_open_messages_of_an_old_failed_run_go_too(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), [1, 2, 3])
    db.do("update pgflow.runs set status = 'failed', failed_at = now() where run_id = %s", run)
    age_run(db, run, 10)
    young = start(db, "f", [1])
    prune(db)
    assert counts(db, run) == [0, 0, 0]
    assert db.column("select distinct message->>'run_id' from pgmq.q_f") == [str(young)]


def test_a_missing_queue_is_no_problem(db: Db) -> None:
    run = finished(db, 10)
    db.do("select pgmq.drop_queue('f')")
    prune(db)
    assert nothing_is_left(db, run)


def test_flows_that_are_named_and_no_others(db: Db) -> None:
    f, g = finished(db, 10, slug="f"), finished(db, 10, slug="g")
    db.do("update pgmq.a_f set archived_at = now() - interval '9 days'")
    db.do("update pgmq.a_g set archived_at = now() - interval '9 days'")
    prune(db, "7 days", "f")
    assert (counts(db, f), archive(db, "f")) == ([0, 0, 0], [])
    assert counts(db, g) == [2, 2, 1]
    assert len(archive(db, "g")) == 2


def test_archived_messages_and_silent_workers_go_as_in_the_contract_s_function(db: Db) -> None:
    finished(db, 0)
    db.do("update pgmq.a_f set archived_at = now() - interval '8 days' where msg_id = 1")
    db.do("update pgflow.workers set last_heartbeat_at = now() - interval '8 days'")
    prune(db)
    assert archive(db, "f") == [("b", 0)]
    assert db.value("select count(*) from pgflow.workers") == 0


def test_a_load_that_was_given_up_goes(db: Db) -> None:
    flow(db, "f", map_step("m"))
    load = db.value("select pgflow.open_load('f')")
    db.do("select pgflow.add_pages(%s, array[0], array[2], array['[1, 2]'::jsonb])", load)
    prune(db)
    assert range_counts(db, load)[2] == 1
    db.do("update pgflow.loads set touched_at = now() - interval '8 days'")
    prune(db)
    assert range_counts(db, load) == GONE
    assert db.value("select count(*) from pgflow.loads") == 0


def test_an_id_is_free_again_once_nothing_of_its_run_is_left(db: Db) -> None:
    run = finished(db, 10)
    again = "select pgflow.start_run('f', '{}', %s)"
    db.do("select pgflow.prune_runs('7 days')")
    refused = db.refused(again, run)
    assert refused.sqlstate == "23505"
    assert "was pruned" in refused.message
    assert counts(db, run) == [2, 0, 0]
    prune(db)
    assert db.value(again, run) == run


def test_deleting_the_flow_takes_what_is_left_along(db: Db) -> None:
    run, pages = finished(db, 10), half_done(db)
    end(db, pages, 10)
    db.do("select pgflow.prune_runs('7 days')")
    for slug in ("f", "r"):
        db.do("select pgflow.delete_flow_and_data(%s)", slug)
    assert nothing_is_left(db, run)
    assert nothing_is_left(db, pages)
    assert db.value("select count(*) from pgflow.leavings") == 0


def test_truncating_runs_leaves_nothing_to_remove(db: Db) -> None:
    end(db, half_done(db), 10)
    db.do("select pgflow.prune_runs('7 days')")
    db.do("truncate pgflow.runs cascade")
    assert [db.value(f"select count(*) from pgflow.{t}") for t in ("leavings", "pages", "step_tasks")] == GONE


def test_pages_go_by_their_bytes(db: Db) -> None:
    run = ranges_run(db, [1])
    for index in range(3):
        db.do(
            "insert into pgflow.pages (run_id, step_slug, is_result, first_index, items, body)"
            " values (%s, 'm', true, %s, 1, jsonb_build_array(repeat('x', 30000000)))",
            *(run, index),
        )
    end(db, run, 10)
    assert [removed for _, removed in prune(db)] == [0, 3, 1]
    assert nothing_is_left(db, run)


def test_nobody_waits_for_messages_that_another_prunes_in_an_open_transaction(alone: Db, beside: Db) -> None:
    finished(alone, 10)
    alone.do("update pgmq.a_f set archived_at = now() - interval '9 days'")
    prune(beside, "7 days")
    prune(alone, "8 days")
    assert len(archive(alone, "f")) == 2
    beside.conn.rollback()
    prune(alone, "8 days")
    assert archive(alone, "f") == []


def test_nobody_deletes_steps_from_under_their_tasks_meanwhile(db: Db) -> None:
    run, other = finished(db, 10), start(db, setup(db, "one"))
    db.do("select pgflow.prune_runs('7 days')")
    assert db.refused("delete from pgflow.step_states where run_id = %s", other).sqlstate == "23503"
    assert counts(db, run) == [2, 0, 0]


def test_how_long_is_to_be_said(db: Db) -> None:
    assert db.refused("select pgflow.prune_runs(null)").sqlstate == "22004"


def test_an_operator_may_and_a_limited_one_its_flows_only(db: Db) -> None:
    f, g = finished(db, 10, slug="f"), finished(db, 10, slug="g")
    db.do("create role pgflow_pruner")
    for access in ("starter", "worker"):
        db.do("select pgflow.grant_access('pgflow_pruner', %s)", access)
    db.do("set local role pgflow_pruner")
    assert db.refused("select pgflow.prune_runs('7 days')").sqlstate == "42501"
    db.do("reset role")
    db.do("select pgflow.grant_access('pgflow_pruner', 'operator', array['f'])")
    db.do("set local role pgflow_pruner")
    prune(db, "7 days")
    prune(db, "7 days", "f", "g")
    db.do("reset role")
    assert (counts(db, f), counts(db, g)) == ([0, 0, 0], [2, 2, 1])
