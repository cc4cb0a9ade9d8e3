"""``retry_items``: failed items are tried again, and what followed from them is computed again."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import Db, event_names, map_step, queue, run_row, start, state, statuses, step
from .range_work import everything
from .repairing import Handlers, Repair, begun

STORAGES = ("tasks", "ranges")
CHAIN = [map_step("m"), step("total", "m"), map_step("each", "total"), step("last", "each")]


def number(text: Any) -> int:
    return int(text)


def mended(text: Any) -> int:
    return 0 if text == "x" else int(text)


HANDLERS: Handlers = {
    "m": number,
    "total": lambda given: [0 if v is None else v for v in given["m"]],
    "each": lambda value: value + 1,
    "last": lambda given: sum(given["each"]),
}
MENDED: Handlers = {**HANDLERS, "m": mended}


def chain(db: Db, storage: str, *, tolerated: int = 5, items: Any = ("1", "x", "3", "x", "5")) -> Repair:
    return begun(
        db,
        CHAIN,
        list(items),
        HANDLERS,
        storages={"m": storage, "each": storage},
        tolerated={"m": tolerated},
    )


@pytest.mark.parametrize("storage", STORAGES)
def test_a_completed_run_with_tolerated_items_is_repaired(db: Db, storage: str) -> None:
    repair = chain(db, storage)
    repair.work()
    assert (repair.status, repair.output) == ("completed", {"last": 14})
    before = everything(db, repair.run)
    plan = repair.retry(dry_run=True)
    assert everything(db, repair.run) == before
    done = repair.retry()
    assert done == plan
    assert list(done) == ["m", "total", "each", "last"]
    assert (done["m"].status, done["m"].retried, done["m"].first_indexes) == ("completed", 2, [1, 3])
    assert [done[s].recomputed for s in done] == [None, 1, 5, 1]
    assert statuses(db, repair.run) == {
        "m": "started", "total": "created", "each": "created", "last": "created",
    }  # fmt: skip
    found = run_row(db, repair.run)
    assert (found.status, found.completed_at, found.output_is_null, found.remaining_steps) == (
        "started", None, True, 4,
    )  # fmt: skip
    assert queue(db, "f") == [("m", 1), ("m", 3)]
    repair.seen.clear()
    assert repair.work(handlers=MENDED) == 2 + 1 + 5 + 1
    assert repair.seen[:2] == [("m", 1), ("m", 3)]
    assert (repair.status, repair.output) == ("completed", {"last": 14})
    assert state(db, repair.run, "m").failed_tasks == 0
    assert repair.retry() == {}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_second_call_finds_nothing_to_do_and_changes_nothing(db: Db, storage: str) -> None:
    repair = chain(db, storage)
    repair.work()
    assert repair.retry()
    before = everything(db, repair.run)
    assert repair.retry() == {}
    assert repair.retry(dry_run=True) == {}
    assert everything(db, repair.run) == before


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(
    ("choice", "chosen"),
    [
        ({}, [1, 3, 5]),
        ({"step_slugs": ["m"]}, [1, 3, 5]),
        ({"step_slugs": ["total"]}, []),
        ({"item_indexes": "{[3,4)}"}, [3]),
        ({"item_indexes": "{[0,2),[5,9)}"}, [1, 5]),
        ({"item_indexes": "{}"}, []),
        ({"error_texts": ["'x'"]}, [1, 3]),
        ({"error_texts": ["'x'", "'y'"]}, [1, 3, 5]),
        ({"error_texts": ["%"]}, []),
        ({"error_texts": ["'x'"], "item_indexes": "{[2,9)}", "step_slugs": ["m", "last"]}, [3]),
    ],
)
def test_items_are_chosen_by_step_index_and_error(
    db: Db, storage: str, choice: dict[str, Any], chosen: list[int]
) -> None:
    repair = chain(db, storage, items=["1", "x", "3", "x", "5", "y"])
    repair.work()
    done = repair.retry(**choice)
    assert (done["m"].first_indexes if done else []) == chosen
    if not chosen:
        assert repair.status == "completed"
        return
    assert (done["m"].kept, done["m"].most) == (3 - len(chosen), 5)
    assert state(db, repair.run, "m").failed_tasks == 3 - len(chosen)
    repair.work()
    assert (repair.status, repair.output) == ("completed", {"last": 15})
    assert state(db, repair.run, "m").failed_tasks == 3


@pytest.mark.parametrize("storage", STORAGES)
def test_a_failed_run_goes_on_with_what_failed_and_what_was_not_finished(db: Db, storage: str) -> None:
    repair = chain(db, storage, tolerated=0, items=["1", "2", "x", "4"])
    held = repair.claim(3)
    repair.settle(held)
    assert repair.status == "failed"
    done = repair.retry()
    assert list(done) == ["m"]
    assert (done["m"].retried, done["m"].unfinished, done["m"].kept, done["m"].status) == (1, 1, 0, "failed")
    assert state(db, repair.run, "m").remaining_tasks == 2
    repair.seen.clear()
    repair.work(handlers=MENDED)
    assert sorted(repair.seen[:2]) == [("m", 2), ("m", 3)]
    assert (repair.status, repair.output) == ("completed", {"last": 11})


@pytest.mark.parametrize("storage", STORAGES)
def test_failed_items_that_are_not_chosen_fail_the_run_again_once_the_rest_is_done(
    db: Db, storage: str
) -> None:
    repair = chain(db, storage, tolerated=1, items=["1", "x", "y", "4"])
    repair.settle(repair.claim(3))
    assert repair.status == "failed"
    repair.db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 0)")
    done = repair.retry(item_indexes="{[1,2)}")
    assert (done["m"].retried, done["m"].kept, done["m"].most) == (1, 1, 0)
    repair.work(handlers=MENDED)
    assert repair.status == "failed"
    assert "'y'" in state(db, repair.run, "m").error_message
    again = repair.retry()
    assert (again["m"].retried, again["m"].first_indexes, again["m"].unfinished) == (1, [2], 0)
    repair.work(handlers={**MENDED, "m": lambda _text: 7})
    assert (repair.status, repair.output) == ("completed", {"last": 1 + 0 + 7 + 4 + 4})


@pytest.mark.parametrize("storage", STORAGES)
def test_a_failed_step_of_which_nothing_is_open_is_done_where_it_tolerates_that_now(
    db: Db, storage: str
) -> None:
    steps = [map_step("m"), map_step("other"), step("total", "m")]
    handlers: Handlers = {"m": number, "other": number, "total": lambda given: given["m"]}
    storages = {"m": storage, "other": storage}
    repair = begun(db, steps, ["1", "x"], handlers, storages=storages, tolerated={"other": 1})
    repair.settle(sorted(repair.claim(), key=lambda item: (item.step == "m", item.index)))
    assert statuses(db, repair.run) == {"m": "failed", "other": "completed", "total": "created"}
    db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 1)")
    done = repair.retry(step_slugs=["other"])
    assert (done["m"].unfinished, done["m"].kept, done["other"].retried) == (0, 1, 1)
    assert state(db, repair.run, "m").status == "completed"
    repair.work(handlers={**handlers, "other": mended})
    assert repair.output == {"other": [1, 0], "total": [1, None]}


def test_a_selection_that_would_fail_again_at_once_is_refused(db: Db) -> None:
    repair = begun(
        db, [map_step("m"), "bad"], ["1", "x"], {**HANDLERS, "bad": number},
        storages={"m": "ranges"}, tolerated={"m": 1},
    )  # fmt: skip
    held = repair.claim()
    repair.settle(sorted(held, key=lambda item: item.step != "m"))
    assert statuses(db, repair.run) == {"m": "completed", "bad": "failed"}
    before = everything(db, repair.run)
    for dry_run in (True, False):
        refusal = db.refused(
            "select pgflow.retry_items(%s, step_slugs => '{m}', dry_run => %s)", repair.run, dry_run
        )
        assert (refusal.sqlstate, refusal.message.startswith('Step "bad" has failed, and none')) == (
            "PF007",
            True,
        )
    assert everything(db, repair.run) == before
    assert set(repair.retry()) == {"m", "bad"}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_step_that_failed_of_what_it_was_given_is_computed_again(db: Db, storage: str) -> None:
    """The reader of a tolerated item fails of its null: both are named by the retry, one of them follows."""
    strict: Handlers = {**HANDLERS, "total": lambda given: [v + 0 for v in given["m"]]}
    repair = chain(db, storage)
    repair.work(handlers=strict)
    assert statuses(db, repair.run)["total"] == "failed"
    done = repair.retry()
    assert (done["m"].retried, done["total"].recomputed, done["total"].retried) == (2, 1, 0)
    repair.work(handlers={**strict, "m": mended})
    assert (repair.status, repair.output) == ("completed", {"last": 14})


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("mode", ["skip", "skip-cascade"])
def test_a_step_that_was_skipped_as_its_item_failed_is_repaired(db: Db, storage: str, mode: str) -> None:
    steps = [
        map_step("m", when_exhausted=mode),
        map_step("each", "m"),
        step("total", "each"),
        "other",
        step("last", "total", "other"),
    ]
    handlers: Handlers = {
        "m": number,
        "each": lambda value: value * 2,
        "total": lambda given: sum(given["each"]) if "each" in given else -1,
        "other": lambda given: 100,
        "last": lambda given: sum(given.values()),
    }
    repair = begun(db, steps, ["1", "x", "3"], handlers, storages={"m": storage, "each": storage})
    repair.work()
    assert repair.status == "completed"
    assert statuses(db, repair.run)["m"] == "skipped"
    assert repair.output == ({"last": 100} if mode == "skip" else None)
    done = repair.retry()
    assert (done["m"].status, done["m"].retried, done["m"].unfinished) == ("skipped", 1, 1)
    assert set(done) == {"m", "each", "total", "last"}
    repair.seen.clear()
    repair.work(handlers={**handlers, "m": mended})
    assert ("other", 0) not in repair.seen
    assert (repair.status, repair.output) == ("completed", {"last": 108})


@pytest.mark.parametrize("storage", STORAGES)
def test_conditions_are_tested_again_by_what_is_new(db: Db, storage: str) -> None:
    steps = [
        map_step("m"),
        step("good", "m", required_input_pattern={"m": [0]}),
        step("bad", "m", forbidden_input_pattern={"m": [0]}),
        step("last", "good", "bad"),
    ]
    handlers: Handlers = {**HANDLERS, "good": lambda _: 1, "bad": lambda _: 2, "last": lambda given: given}
    repair = begun(db, steps, ["1", "x"], handlers, storages={"m": storage}, tolerated={"m": 1})
    repair.work()
    assert repair.output == {"last": {"bad": 2}}
    done = repair.retry()
    assert (done["good"].status, done["good"].recomputed) == ("skipped", 1)
    repair.work(handlers={**handlers, "m": mended})
    assert repair.output == {"last": {"good": 1}}
    assert statuses(db, repair.run) == {
        "m": "completed",
        "good": "completed",
        "bad": "skipped",
        "last": "completed",
    }


@pytest.mark.parametrize("end", ["live", "failed", "completed"])
def test_a_map_that_began_with_a_null_begins_anew(db: Db, end: str) -> None:
    """barrier=false: the child was given the tolerated item before its parent was done."""
    steps = [map_step("m"), map_step("each", "m"), map_step("more", "each"), step("last", "more")]
    add: Any = lambda value: -1000 if value is None else value + 1  # noqa: E731
    handlers: Handlers = {"m": number, "each": add, "more": add, "last": lambda given: sum(given["more"])}
    repair = begun(
        db, steps, ["1", "2", "x", "4", "5"], handlers,
        storages=dict.fromkeys(["m", "each", "more"], "ranges"), tolerated={"m": 1}, early=["each", "more"],
    )  # fmt: skip
    held = repair.claim(4)
    repair.settle(held[:3])
    repair.settle(repair.claim(2), handlers)
    if end == "failed":
        db.do("select pgflow.cancel_run(%s)", repair.run)
    elif end == "completed":
        repair.settle(held[3:])
        repair.work()
        assert repair.status == "completed"
    done = repair.retry()
    assert (done["m"].retried, done["each"].recomputed, done["more"].recomputed) == (1, 5, 5)
    if end == "live":
        repair.settle(held[3:])
        repair.check()
    repair.work(handlers={**handlers, "m": mended})
    assert (repair.status, repair.output) == ("completed", {"last": 1 + 2 + 0 + 4 + 5 + 10})


def test_a_child_ahead_that_was_not_given_the_item_is_kept(db: Db) -> None:
    steps = [map_step("m"), map_step("each", "m")]
    handlers: Handlers = {"m": number, "each": lambda value: value + 1}
    repair = begun(
        db, steps, ["1", "2", "x", "4"], handlers, storages={"m": "ranges", "each": "ranges"}, early=["each"]
    )  # fmt: skip
    held = repair.claim(3)
    repair.settle(held[:2])
    repair.settle(repair.claim(2))
    repair.settle(held[2:])
    assert repair.status == "failed"
    done = repair.retry()
    assert (done["each"].recomputed, done["each"].unfinished) == (None, 3)
    repair.seen.clear()
    repair.work(handlers={**handlers, "m": mended})
    assert repair.output == {"each": [2, 3, 1, 5]}
    assert ("each", 0) not in repair.seen


def test_a_child_ahead_that_was_skipped_gets_what_its_parent_has_done_since(db: Db) -> None:
    steps = [map_step("m"), map_step("each", "m", when_exhausted="skip"), step("last", "each")]
    handlers: Handlers = {
        "m": int,
        "each": lambda value: value + 1 if value < 2 else int("x"),
        "last": lambda given: sum(given.get("each", [])),
    }
    repair = begun(
        db, steps, ["1", "2", "3", "4"], handlers, storages={"m": "ranges", "each": "ranges"}, early=["each"]
    )  # fmt: skip
    held = repair.claim(4)
    repair.settle(held[:2])
    repair.settle(repair.claim(2))
    assert state(db, repair.run, "each").status == "skipped"
    repair.settle(held[2:])
    repair.work()
    assert repair.output == {"last": 0}
    done = repair.retry()
    assert (done["each"].retried, done["each"].unfinished, done["last"].recomputed) == (1, 2, 1)
    repair.work(handlers={**handlers, "each": lambda value: value + 1})
    assert repair.output == {"last": 14}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("by", ["complete", "fail"])
def test_a_late_result_from_before_is_not_taken_even_of_the_same_worker(
    db: Db, storage: str, by: str
) -> None:
    """It has the item again, at the same attempt: with another input."""
    repair = chain(db, storage, items=["1", "x", "3"])
    repair.db.do(
        "select pgflow.set_step_policy('f', 'each', tolerated_failures => 3, storage => %s)", storage
    )
    repair.settle(repair.claim())
    repair.settle(repair.claim())
    stale = repair.claim()
    assert {item.step for item in stale} == {"each"}
    repair.retry()

    def late() -> list[int]:
        settle: Any = repair.complete if by == "complete" else repair.fail
        return [settle(item, "stale").accepted for item in stale]

    assert late() == [0, 0, 0]
    repair.settle(repair.claim(), MENDED)
    assert late() == [0, 0, 0]
    repair.settle(repair.claim(), MENDED)
    fresh = repair.claim()
    assert [(item.step, item.input) for item in fresh] == [("each", 1), ("each", 0), ("each", 3)]
    assert late() == [0, 0, 0]
    repair.settle(fresh)
    repair.work()
    assert (repair.status, repair.output) == ("completed", {"last": 7})


def test_a_late_result_from_before_a_retry_is_not_taken_either(db: Db) -> None:
    repair = begun(db, ["a", "bad"], {}, {"a": lambda _: 1, "bad": number})
    stale = sorted(repair.claim(), key=lambda item: item.step)
    repair.fail(stale[1], "no")
    db.do("select pgflow.retry_failed_tasks(%s)", repair.run)
    assert len(repair.claim()) == 2
    assert [repair.complete(item, "stale").accepted for item in stale] == [0, 0]


def test_items_of_a_run_that_goes_on_are_tried_again(db: Db) -> None:
    repair = chain(db, "ranges", items=["1", "x", "3"])
    held = repair.claim(2)
    repair.settle(held)
    held = repair.claim(1)
    done = repair.retry()
    assert (list(done), done["m"].status, done["m"].retried) == (["m"], "started", 1)
    assert event_names(db, repair.run) == ["run:started", "step:m:started"]
    repair.settle(held, MENDED)
    repair.work(handlers=MENDED)
    assert (repair.status, repair.output) == ("completed", {"last": 7})


@pytest.mark.parametrize("storage", STORAGES)
def test_whoever_listens_sees_the_run_and_its_steps_start_and_end_again(db: Db, storage: str) -> None:
    repair = chain(db, storage)
    repair.work()
    first = event_names(db, repair.run)
    repair.retry()
    assert event_names(db, repair.run)[len(first) :] == ["step:m:started", "run:started"]
    repair.work(handlers=MENDED)
    assert event_names(db, repair.run)[len(first) + 2 :] == first[2:]


def test_each_step_s_own_queue_is_used(db: Db) -> None:
    undefined = {"defined": False}
    steps = [
        {
            "slug": slug,
            "stepType": "map",
            "dependencies": deps,
            "whenUnmet": "skip",
            "whenExhausted": "fail",
            "requiredInputPattern": undefined,
            "forbiddenInputPattern": undefined,
        }
        for slug, deps in [("m", []), ("each", ["m"])]
    ]
    shape = {"steps": steps, "options": {"maxAttempts": 1}}
    db.do("select pgflow.ensure_flow_compiled('f', %s, 'step')", shape)
    db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 1)")
    handlers: Handlers = {"m": number, "each": lambda value: value}
    workers = {}
    for slug in ("m", "each"):
        workers[slug] = uuid.uuid4()
        db.do(
            "insert into pgflow.workers (worker_id, queue_name, function_name, dead_after)"
            " values (%s, %s, 'x', '1 hour')",
            *(workers[slug], f"f__{slug}"),
        )
    repair = Repair(db, start(db, "f", ["1", "x"]), handlers)

    def work(handlers: Handlers) -> None:
        for slug in ("m", "each"):
            repair.worker = workers[slug]
            repair.settle(repair.claim(), handlers)
            repair.check()

    work(handlers)
    assert repair.output == {"each": [1, None]}
    repair.retry()
    assert db.column("select message ->> 'task_index' from pgmq.q_f__m") == ["1"]
    assert db.column("select 1 from pgmq.q_f__each") == []
    work({**handlers, "m": mended})
    assert repair.output == {"each": [1, 0]}


def test_messages_of_what_is_set_back_leave_the_queue(db: Db) -> None:
    repair = chain(db, "tasks", items=["1", "x", "3"])
    repair.settle(repair.claim())
    repair.settle(repair.claim())
    assert queue(db, "f") == [("each", 0), ("each", 1), ("each", 2)]
    repair.claim(1)
    repair.retry()
    assert queue(db, "f") == [("m", 1)]
    assert db.column("select count(*) from pgflow.step_tasks where step_slug = 'each'") == [0]


def test_a_run_that_is_not_there_is_an_error_of_ours(db: Db) -> None:
    for dry_run in (True, False):
        refusal = db.refused("select pgflow.retry_items(gen_random_uuid(), dry_run => %s)", dry_run)
        assert refusal.sqlstate == "PF003"
