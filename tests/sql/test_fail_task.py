"""``fail_task``: retries, backoff, exhaustion (contract section 9)."""

from __future__ import annotations

import uuid

import pytest

from .helpers import (
    Db,
    archive,
    claim,
    complete,
    drain,
    event,
    event_names,
    events,
    fail,
    flow,
    lease,
    make_visible,
    map_step,
    message_timing,
    poll_and_fail,
    queue,
    reasons,
    run_row,
    setup,
    snapshot,
    start,
    state,
    statuses,
    step,
    task,
    task_statuses,
    tasks,
)


def exhaust(db: Db, slug: str, times: int = 1) -> None:
    """Fail the first visible task ``times`` times."""
    for _ in range(times):
        make_visible(db, slug)
        (found,) = claim(db, slug)
        fail(db, found.run_id, found.step_slug, f"{found.step_slug} FAILED", found.task_index)


# -- retry -----------------------------------------------------------------------------------------------


def test_a_failed_task_with_attempts_left_is_queued_again(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    (row,) = fail(db, run, "first", "boom")
    assert (row.status, row.started_at, row.failed_at, row.error_message) == ("queued", None, None, "boom")
    assert (row.attempts_count, row.output) == (1, None)
    assert row == db.row("select * from pgflow.step_tasks where run_id = %s", run)
    assert (state(db, run, "first").status, state(db, run, "first").error_message) == ("started", None)
    assert (run_row(db, run).status, run_row(db, run).remaining_steps) == ("started", 3)
    assert queue(db, "sequential") == [("first", 0)]
    assert event_names(db, run) == ["run:started", "step:first:started"]


def test_it_is_called_by_name(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    row = db.row(
        "select * from pgflow.fail_task(run_id => %s, step_slug => 'only', task_index => 0,"
        " error_message => 'e')",
        run,
    )
    assert row.error_message == "e"


@pytest.mark.parametrize("base", [1, 5])
def test_delays_double_from_twice_the_base(db: Db, base: int) -> None:
    flow(db, "f", "a", max_attempts=5, base_delay=base, timeout=60)
    start(db, "f")
    for attempt in (1, 2, 3, 4):
        exhaust(db, "f")
        (timing,) = message_timing(db, "f", "a")
        delay = base * 2**attempt
        assert delay == db.value("select pgflow.calculate_retry_delay(%s, %s)", base, attempt)
        # a suite rounds vt - enqueued_at; the clock has run on since the transaction began
        assert 0 <= (timing.vt - timing.enqueued_at).total_seconds() - delay < 5
        assert delay - 1.5 < lease(db, "f", timing.msg_id) <= delay


def test_the_delay_counts_from_the_call_and_replaces_the_lease(db: Db) -> None:
    flow(db, "f", "a", base_delay=3, timeout=600)
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    assert 4.5 < lease(db, "f", 1) <= 6


def test_a_step_s_own_base_delay_wins(db: Db) -> None:
    flow(db, "f", step("a", base_delay=20), "b", base_delay=2)
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "a")
    fail(db, run, "b")
    assert 38 < lease(db, "f", message_timing(db, "f", "a")[0].msg_id) <= 40
    assert 2 < lease(db, "f", message_timing(db, "f", "b")[0].msg_id) <= 4


def test_without_a_base_delay_the_task_is_visible_at_once(db: Db) -> None:
    flow(db, "f", "a", base_delay=0)
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    assert [t.run_id for t in claim(db, "f")] == [run]


def test_a_step_may_switch_the_delay_off(db: Db) -> None:
    flow(db, "f", step("a", base_delay=0), base_delay=50)
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    assert lease(db, "f", 1) <= 0


def test_a_delayed_task_is_not_delivered_before_its_time(db: Db) -> None:
    run = start(db, setup(db, "one"))
    claim(db, "one")
    fail(db, run, "only")
    assert claim(db, "one") == []
    make_visible(db, "one")
    assert len(claim(db, "one")) == 1


def test_a_huge_backoff_does_not_break_the_failure(db: Db) -> None:
    flow(db, "f", "a", max_attempts=1000, base_delay=2000000000)
    run = start(db, "f")
    claim(db, "f")
    db.do("update pgflow.step_tasks set attempts_count = 500")
    (row,) = fail(db, run, "a")
    assert row.status == "queued"


@pytest.mark.parametrize(("limit", "executions"), [(0, 1), (1, 1), (2, 2), (4, 4)])
def test_max_attempts_is_the_number_of_executions(db: Db, limit: int, executions: int) -> None:
    flow(db, "f", "a", max_attempts=limit, base_delay=0)
    run = start(db, "f")
    for n in range(1, executions + 1):
        (row,) = poll_and_fail(db, "f")
        assert row.status == ("failed" if n == executions else "queued")
        assert row.attempts_count == n
    assert run_row(db, run).status == "failed"


@pytest.mark.parametrize(("flow_limit", "step_limit"), [(1, 3), (5, 3), (3, None)])
def test_a_step_s_own_limit_wins(db: Db, flow_limit: int, step_limit: int | None) -> None:
    flow(db, "f", step("a", max_attempts=step_limit), max_attempts=flow_limit, base_delay=0)
    run = start(db, "f")
    exhaust(db, "f", 3)
    assert task(db, run, "a").attempts_count == 3
    assert run_row(db, run).status == "failed"


def test_a_retried_task_can_complete(db: Db) -> None:
    run = start(db, setup(db, "one"))
    exhaust(db, "one", 2)
    make_visible(db, "one")
    claim(db, "one")
    (row,) = complete(db, run, "only", "at last")
    assert (row.status, row.attempts_count) == ("completed", 3)
    assert run_row(db, run).status == "completed"


def test_the_latest_error_is_kept(db: Db) -> None:
    run = start(db, flow(db, "f", "a", base_delay=0, max_attempts=3))
    for text in ("one", "two", "three"):
        claim(db, "f")
        fail(db, run, "a", text)
        assert task(db, run, "a").error_message == text


def test_a_queued_task_is_not_failed_and_its_message_stays(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    before = snapshot(db, run)
    (row,) = fail(db, run, "first")
    assert (row.status, row.error_message) == ("queued", None)
    assert snapshot(db, run) == before


@pytest.mark.parametrize(("slug", "index"), [("nope", 0), ("first", 9), ("last", 0)])
def test_without_such_a_task_no_row_comes_back(db: Db, slug: str, index: int) -> None:
    run = start(db, setup(db, "sequential"))
    before = snapshot(db, run)
    assert fail(db, run, slug, "e", index) == []
    assert snapshot(db, run) == before


def test_an_unknown_run_is_no_error(db: Db) -> None:
    assert fail(db, uuid.uuid4(), "first") == []
    assert db.rows("select * from pgflow.fail_task(null, null, null, null)") == []


def test_no_error_text_is_accepted(db: Db) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=1))
    claim(db, "f")
    row = db.row("select * from pgflow.fail_task(%s, 'a', 0, null)", run)
    assert row.status == "failed"
    assert run_row(db, run).status == "failed"


# -- exhausted: fail -------------------------------------------------------------------------------------


def test_exhausted_fails_task_step_and_run(db: Db) -> None:
    run = start(db, flow(db, "f", "a", step("b", "a"), max_attempts=1))
    claim(db, "f")
    (row,) = fail(db, run, "a", "the end")
    assert (row.status, row.error_message, row.completed_at) == ("failed", "the end", None)
    assert row.failed_at is not None
    found = state(db, run, "a")
    assert (found.status, found.error_message, found.skip_reason) == ("failed", "the end", None)
    assert db.value("select failed_at = now() from pgflow.step_states where step_slug = 'a'")
    assert run_row(db, run).status == "failed"
    assert db.value("select failed_at = now() and completed_at is null from pgflow.runs")
    assert run_row(db, run).output_is_null
    child = state(db, run, "b")
    assert (child.status, child.remaining_deps) == ("created", 1)
    assert (queue(db, "f"), archive(db, "f")) == ([], [("a", 0)])


def test_exhausted_is_announced_step_first_then_run(db: Db) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=1))
    claim(db, "f")
    fail(db, run, "a", "the end")
    assert event_names(db, run)[-2:] == ["step:a:failed", "run:failed"]
    payload = event(db, run, "step:failed", "a")
    assert (payload["error_message"], payload["status"], payload["step_slug"]) == ("the end", "failed", "a")
    assert payload["failed_at"]
    payload = event(db, run, "run:failed")
    assert (payload["flow_slug"], payload["error_message"], payload["status"]) == ("f", "the end", "failed")
    assert payload["failed_at"]


def test_exhausted_cancels_every_open_task_of_the_run_and_archives_its_message(db: Db) -> None:
    flow(db, "f", step("bad", max_attempts=1), "running", "waiting", "done")
    run = start(db, "f")
    found = {t.step_slug for t in claim(db, "f", 3)}
    assert found == {"bad", "done", "running"}
    complete(db, run, "done", 1)
    fail(db, run, "bad")
    assert queue(db, "f") == []
    assert archive(db, "f") == [("bad", 0), ("done", 0), ("running", 0), ("waiting", 0)]
    assert task_statuses(db, run, "running") == ["cancelled"]
    assert task_statuses(db, run, "waiting") == ["cancelled"]
    assert task_statuses(db, run, "done") == ["completed"]
    assert statuses(db, run) == {
        "bad": "failed",
        "done": "completed",
        "running": "started",
        "waiting": "started",
    }


def test_another_run_of_the_flow_is_untouched(db: Db) -> None:
    flow(db, "f", "a", max_attempts=1)
    one, two = start(db, "f"), start(db, "f")
    claim(db, "f")
    fail(db, one, "a")
    assert (run_row(db, one).status, run_row(db, two).status) == ("failed", "started")
    assert db.value("select message->>'run_id' from pgmq.q_f") == str(two)


def test_a_failed_map_task_fails_the_map_and_archives_its_siblings(db: Db) -> None:
    flow(db, "f", map_step("m", max_attempts=1))
    run = start(db, "f", [1, 2, 3, 4])
    claim(db, "f", 2)
    complete(db, run, "m", "ok", 0)
    fail(db, run, "m", "boom", 1)
    assert task_statuses(db, run, "m") == ["completed", "failed", "cancelled", "cancelled"]
    assert state(db, run, "m").status == "failed"
    assert queue(db, "f") == []
    assert len(archive(db, "f")) == 4


def test_a_map_task_is_retried_alone(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    fail(db, run, "items", "boom", 1)
    assert [(t.status, t.attempts_count) for t in tasks(db, run, "items")] == [("started", 1), ("queued", 1)]
    complete(db, run, "items", "a", 0)
    assert state(db, run, "items").remaining_tasks == 1
    make_visible(db, "root_map")
    claim(db, "root_map")
    complete(db, run, "items", "b", 1)
    assert state(db, run, "items").output == ["a", "b"]


# -- exhausted: skip -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_exhausted_skip_skips_the_step_and_keeps_its_error(db: Db, mode: str) -> None:
    flow(db, "f", step("a", max_attempts=1, when_exhausted=mode), "other")
    run = start(db, "f")
    claim(db, "f")
    (row,) = fail(db, run, "a", "boom")
    assert (row.status, row.error_message) == ("failed", "boom")
    assert row.failed_at is not None
    found = state(db, run, "a")
    assert (found.status, found.skip_reason, found.remaining_tasks) == ("skipped", "handler_failed", None)
    assert (found.error_message, found.failed_at, found.completed_at) == ("boom", None, None)
    assert db.value("select skipped_at = now() from pgflow.step_states where step_slug = 'a'")
    assert (run_row(db, run).status, run_row(db, run).remaining_steps) == ("started", 1)
    assert (queue(db, "f"), archive(db, "f")) == ([("other", 0)], [("a", 0)])


@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_a_skip_is_announced_once(db: Db, mode: str) -> None:
    flow(db, "f", step("a", max_attempts=1, when_exhausted=mode), "other")
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a", "boom")
    payload = event(db, run, "step:skipped", "a")
    assert (payload["skip_reason"], payload["error_message"]) == ("handler_failed", "boom")
    assert (payload["status"], payload["step_slug"]) == ("skipped", "a")
    assert payload["skipped_at"]
    assert events(db, run, "step:failed") == []
    assert events(db, run, "run:failed") == []


def test_after_a_skip_the_children_run_without_the_step(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1, when_exhausted="skip"), "b", step("c", "a", "b"))
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "a")
    assert (state(db, run, "c").status, state(db, run, "c").remaining_deps) == ("created", 1)
    complete(db, run, "b", 7)
    (found,) = claim(db, "f")
    assert (found.step_slug, found.input) == ("c", {"b": 7})
    complete(db, run, "c", 1)
    assert (run_row(db, run).status, run_row(db, run).output) == ("completed", {"c": 1})


def test_a_sole_child_of_a_skipped_step_starts_with_nothing(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1, when_exhausted="skip"), step("b", "a"))
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    assert state(db, run, "b").status == "started"
    (found,) = claim(db, "f")
    assert (found.input_text, found.flow_input_text) == ("{}", None)
    assert event_names(db, run, "step:")[-2:] == ["step:a:skipped", "step:b:started"]


@pytest.mark.parametrize("ends", ["completes", "skipped"])
def test_a_step_that_is_skipped_already_loses_its_dependencies_all_the_same(db: Db, ends: str) -> None:
    skipping = step("b", when_exhausted="skip", max_attempts=1)
    cascading = step("a", when_exhausted="skip-cascade", max_attempts=1)
    flow(db, "f", cascading, skipping, step("j", "a", "b"))
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "a")
    assert (state(db, run, "j").status, state(db, run, "j").remaining_deps) == ("skipped", 2)
    if ends == "completes":
        complete(db, run, "b", 1)
    else:
        fail(db, run, "b")
    assert (state(db, run, "j").status, state(db, run, "j").remaining_deps) == ("skipped", 1)
    assert (run_row(db, run).status, run_row(db, run).remaining_steps) == ("completed", 0)


def test_a_map_over_a_skipped_step_becomes_empty_and_its_children_start(db: Db) -> None:
    flow(
        db,
        "f",
        step("a", max_attempts=1, when_exhausted="skip"),
        map_step("m", "a"),
        map_step("n", "m"),
        step("z", "n"),
    )
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    assert statuses(db, run) == {"a": "skipped", "m": "completed", "n": "completed", "z": "started"}
    assert (state(db, run, "m").output, state(db, run, "m").initial_tasks) == ([], 0)
    assert claim(db, "f")[0].input == {"n": []}
    assert run_row(db, run).remaining_steps == 1


def test_a_run_of_one_skipped_step_completes(db: Db) -> None:
    for mode in ("skip", "skip-cascade"):
        slug = mode.replace("-", "_")
        flow(db, slug, step("a", max_attempts=1, when_exhausted=mode))
        run = start(db, slug)
        claim(db, slug)
        fail(db, run, "a")
        found = run_row(db, run)
        assert (found.status, found.remaining_steps, found.output_is_null) == ("completed", 0, True)
        assert len(events(db, run, "run:completed")) == 1


@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_a_skipped_map_archives_its_siblings_only(db: Db, mode: str) -> None:
    flow(db, "f", map_step("m", max_attempts=1, when_exhausted=mode), "other")
    run = start(db, "f", [1, 2, 3, 4])
    claim(db, "f", 2)
    complete(db, run, "m", 1, 0)
    fail(db, run, "m", "boom", 1)
    assert queue(db, "f") == [("other", 0)]
    assert archive(db, "f") == [("m", i) for i in range(4)]
    assert task_statuses(db, run, "m")[:2] == ["completed", "failed"]
    assert state(db, run, "m").status == "skipped"
    assert run_row(db, run).remaining_steps == 1


def test_skip_waits_for_the_last_attempt(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=3, when_exhausted="skip"), base_delay=0)
    run = start(db, "f")
    for expected in ("started", "started", "skipped"):
        exhaust(db, "f")
        assert state(db, run, "a").status == expected


def test_a_condition_behind_a_skip_is_evaluated(db: Db) -> None:
    flow(
        db,
        "f",
        step("a", max_attempts=1, when_exhausted="skip"),
        step("needs", "a", required_input_pattern={"a": {}}),
        step("fallback", "a", forbidden_input_pattern={"a": {}}),
    )
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a")
    assert statuses(db, run) == {"a": "skipped", "needs": "skipped", "fallback": "started"}
    assert reasons(db, run)["needs"] == "condition_unmet"


def test_a_fail_condition_behind_a_skip_fails_the_run_and_archives_this_message(db: Db) -> None:
    flow(
        db,
        "f",
        step("a", max_attempts=1, when_exhausted="skip"),
        step("b", "a", required_input_pattern={"a": {}}, when_unmet="fail"),
    )
    run = start(db, "f")
    claim(db, "f")
    (row,) = fail(db, run, "a", "boom")
    assert (row.status, row.error_message) == ("failed", "boom")
    assert run_row(db, run).status == "failed"
    assert (state(db, run, "b").status, state(db, run, "b").error_message) == ("failed", "Condition not met")
    assert (queue(db, "f"), archive(db, "f")) == ([], [("a", 0)])
    assert len(events(db, run, "run:failed")) == 1


# -- exhausted: skip-cascade -----------------------------------------------------------------------------


def test_skip_cascade_skips_every_descendant(db: Db) -> None:
    flow(
        db,
        "f",
        step("a", max_attempts=1, when_exhausted="skip-cascade"),
        step("b", "a"),
        map_step("c", "b"),
        step("d", "c"),
        "other",
        step("joined", "d", "other"),
        step("free", "other"),
    )
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a", "boom")
    assert reasons(db, run) == {
        "a": "handler_failed",
        "b": "dependency_skipped",
        "c": "dependency_skipped",
        "d": "dependency_skipped",
        "joined": "dependency_skipped",
        "other": None,
        "free": None,
    }
    assert run_row(db, run).remaining_steps == 2
    assert drain(db, "f") == 2
    assert run_row(db, run).output == {"free": 0}
    assert event_names(db, run, "step:")[2:7] == [f"step:{s}:skipped" for s in ("a", "b", "c", "d", "joined")]


def test_skip_cascade_leaves_no_error_on_descendants(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1, when_exhausted="skip-cascade"), step("b", "a"))
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a", "boom")
    assert (state(db, run, "a").error_message, state(db, run, "b").error_message) == ("boom", None)
    assert run_row(db, run).status == "completed"


# -- replays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_replaying_a_failure_that_skipped_changes_nothing(db: Db, mode: str) -> None:
    flow(
        db, "f", step("a", max_attempts=1, when_exhausted=mode), "o", step("b", "a", "o"), map_step("m", "a")
    )
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a", "first error")
    before = snapshot(db, run)
    (row,) = fail(db, run, "a", "second error")
    assert (row.status, row.error_message) == ("failed", "first error")
    assert snapshot(db, run) == before


def test_failing_a_failed_task_keeps_the_first_error(db: Db) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=1))
    claim(db, "f")
    fail(db, run, "a", "first error")
    before = snapshot(db, run)
    (row,) = fail(db, run, "a", "second error")
    assert (row.status, row.error_message) == ("failed", "first error")
    assert snapshot(db, run) == before
    assert len(events(db, run, "run:failed")) == 1


def test_failing_a_completed_task_changes_nothing(db: Db) -> None:
    run = start(db, setup(db, "sequential"))
    claim(db, "sequential")
    complete(db, run, "first", 1)
    before = snapshot(db, run)
    (row,) = fail(db, run, "first")
    assert (row.status, row.error_message) == ("completed", None)
    assert snapshot(db, run) == before


def test_failing_a_completed_task_of_an_unfinished_map_changes_nothing(db: Db) -> None:
    run = start(db, setup(db, "root_map"), [1, 2])
    claim(db, "root_map", 2)
    complete(db, run, "items", 1, 0)
    before = snapshot(db, run)
    fail(db, run, "items", "late", 0)
    assert snapshot(db, run) == before


def test_a_late_failure_on_a_failed_run_changes_nothing(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1), "b")
    run = start(db, "f")
    claim(db, "f", 2)
    fail(db, run, "a", "first")
    names = event_names(db, run)
    (row,) = fail(db, run, "b", "second")
    assert (row.status, row.error_message, row.failed_at) == ("cancelled", None, None)
    assert (row.attempts_count, row.started_at is not None) == (1, True)
    assert state(db, run, "b").status == "started"
    assert event_names(db, run) == names
    assert (queue(db, "f"), archive(db, "f")) == ([], [("a", 0), ("b", 0)])


def test_a_queued_task_of_a_failed_run_is_cancelled(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1), "b")
    run = start(db, "f")
    claim(db, "f")
    fail(db, run, "a", "first")
    (row,) = fail(db, run, "b", "second")
    assert (row.status, row.error_message) == ("cancelled", None)


def test_a_started_task_of_a_run_that_failed_before_statuses_were_final_only_loses_its_message(
    db: Db,
) -> None:
    flow(db, "f", step("a", max_attempts=1), "b")
    run = start(db, "f")
    claim(db, "f", 2)
    db.do("update pgflow.runs set status = 'failed', failed_at = now()")
    for _ in range(2):
        (row,) = fail(db, run, "b", "late")
        assert (row.status, row.error_message, row.failed_at) == ("started", None, None)
    assert (queue(db, "f"), archive(db, "f")) == ([("a", 0)], [("b", 0)])
    assert event_names(db, run) == ["run:started", "step:a:started", "step:b:started"]


def test_a_task_without_a_message_can_be_failed(db: Db) -> None:
    run = start(db, flow(db, "f", "a", max_attempts=2, base_delay=0))
    claim(db, "f")
    db.do("update pgflow.step_tasks set message_id = null")
    assert fail(db, run, "a")[0].status == "queued"
    db.do("update pgflow.step_tasks set status = 'started', started_at = now(), attempts_count = 2")
    assert fail(db, run, "a")[0].status == "failed"
    assert run_row(db, run).status == "failed"


def test_a_claimed_but_never_counted_task_may_be_failed_by_hand(db: Db) -> None:
    """Suites put a task to ``started`` by hand: its attempts are then 0 and a retry is due."""
    run = start(db, setup(db, "one"))
    db.do("update pgflow.step_tasks set status = 'started', started_at = now()")
    assert fail(db, run, "only")[0].status == "queued"
