"""Failures in groups: exact counts, however many and however different, and the same whoever asks."""

from __future__ import annotations

import json
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from failed_runs import failed_run
from failing_flows import alone, twice_ranges, twice_tasks
from worker_harness import adapted

from pgflow_mp import Client, RunFailed, run
from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import failed
from pgflow_mp.errors import FlowNotFound, RunNotFound
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.verdicts import crash_error, timeout_error
from pgflow_mp.observe import grouping
from pgflow_mp.observe.grouping import MOST_PATTERNS, iter_items, read_failures
from pgflow_mp.observe.reports import RunFailures


@pytest.fixture
def db(dsn: str) -> Iterator[Connection]:
    with adapted(dsn) as conn:
        yield conn


def read(conn: Connection, run_id: str, **asked: Any) -> RunFailures:
    return read_failures(conn, run_id, engine.run_progress(conn, run_id), **asked)


def indexes(conn: Connection, run_id: str, text: str | None) -> list[int]:
    steps = engine.run_progress(conn, run_id)
    return [item.index for item in iter_items(conn, run_id, steps, text=text)]


def test_counts_over_several_pages_are_exact(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failed, "PAGE", 70)
    monkeypatch.setattr(failed, "_ITEMS", 70)
    error = "case when i % 3 = 0 then format('ValueError: no %s at %L', i, i) else 'KeyError: 1' end"
    run_id = failed_run(db, 210, error, "failed")
    found = read(db, run_id)
    assert [(g.error, g.pattern, g.items, g.outcome) for g in found.groups] == [
        ("KeyError: 1", "KeyError: *", 140, "failed"),
        ("ValueError: no * at '*'", "ValueError: no * at '*'", 70, "failed"),
    ]
    assert [[example.index for example in group.examples] for group in found.groups] == [[1, 2, 4], [0, 3, 6]]
    assert (found.failed, found.by_step()) == (210, {"m": 210})
    assert indexes(db, run_id, None) == [*range(210)]


def test_examples_are_shared_among_the_groups(db: Connection) -> None:
    run_id = failed_run(db, 30, "format('E%s: x', chr(97 + i %% 10))".replace("%%", "%"))
    assert [len(group.examples) for group in read(db, run_id, groups=4, examples=4).groups] == [1] * 4 + [
        0
    ] * 6
    assert [len(group.examples) for group in read(db, run_id, groups=2).groups][:3] == [3, 3, 0]
    assert read(db, run_id, examples=0).groups[0].examples == []


def test_of_too_many_errors_types_are_counted(db: Connection) -> None:
    """Words that differ cannot be folded: then memory would grow with the failures."""
    words = "translate(md5(i::text), '0123456789', 'ghijklmnop')"
    run_id = failed_run(db, 1000, f"case when i % 2 = 0 then 'ValueError: ' else 'KeyError: ' end || {words}")
    found = read(db, run_id)
    assert (found.failed, sum(group.items for group in found.groups)) == (1000, 1000)
    assert len(found.groups) == MOST_PATTERNS + 2
    left = {group.error: group.items for group in found.groups if group.items > 1}
    assert left.keys() == {"ValueError: *", "KeyError: *"}
    assert sum(left.values()) == 1000 - MOST_PATTERNS
    assert read(db, run_id, text="ValueError: *").failed == 500  # as it is shown


def test_what_is_asked_for_by_a_text_is_the_same_in_groups_and_one_by_one(db: Connection) -> None:
    error = (
        "case i when 0 then E'ValueError: no 7\\n\\nTraceback\\n  in parse' when 1 then 'ValueError: no 8'"
    )
    run_id = failed_run(db, 4, error + " when 2 then null else E'Traceback \\n  x\\nKeyError: ''a''' end")
    for text, expected in {
        "no 7": [0],
        "ValueError: no *": [0, 1],
        "in parse": [0],
        "KeyError: '*'": [3],
        "KeyError: *": [3],
        "%": [],
        "Unknown error": [2],
    }.items():
        assert indexes(db, run_id, text) == expected, text
        found = read(db, run_id, text=text)
        assert (found.failed, sum(group.items for group in found.groups)) == (len(expected),) * 2


def test_time_outs_and_crashes_of_ours_are_told_from_errors_that_handlers_raise(db: Connection) -> None:
    run_id = failed_run(db, 5, "'x'")
    crash = crash_error("m", 2, Cause.CRASH, "signal 11 (SIGSEGV)")
    texts = [
        timeout_error("m", 0, 3),
        timeout_error("m", 1, 3),
        f"quarantined after 2 crashes: {crash}\nFatal Python error: Aborted",
        "TimeoutError: timed out",
        "TimeoutError: exceeded its timeout of 3 s",
    ]
    for index, text in enumerate(texts):
        db.execute("update pgflow.step_tasks set error_message = %s where task_index = %s", (text, index))
    found = read(db, run_id)
    assert {kind: found.count(kind) for kind in ("error", "timed out", "crashed")} == {
        "error": 2,
        "timed out": 2,
        "crashed": 1,
    }
    assert (found.groups[0].kind, found.groups[0].items) == ("timed out", 2)
    assert found.groups[0].error == "TimeoutError: exceeded its timeout of 3 s and its process was terminated"
    assert "quarantined after 2 crashes: Crashed: its process died from signal 11 (SIGSEGV)" in {
        group.error for group in found.groups
    }


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_an_item_of_a_map_over_a_map_is_named_by_what_the_other_returned(dsn: str, storage: Any) -> None:
    flow = twice_tasks if storage == "tasks" else twice_ranges
    run_id = str(uuid.uuid4())
    with pytest.raises(RunFailed, match=r'step "total" task 0 \(\{"read_it": \[1, null, 1\]\}\): ValueError'):
        run(flow, [0, 1, 2], dsn=dsn, run_id=run_id, executor="inline")
    with Client(dsn) as client:
        groups = client.failures(run_id)
        assert [(g.step, g.outcome, g.error) for g in groups] == [
            ("total", "failed", "ValueError: no total"),
            ("read_it", "tolerated", "ValueError: no 'f1.gz'"),
        ]
        (item,) = groups[1].examples
        assert item.index == 1
        assert item.input == {"path": "f1.gz", "body": 5000 * "x"}
        assert item.shown(80) == '{"body": "xxxxxxxxxxxxxxxxxxxxxxxx...", "path": "f1.gz"}'
        assert client.failures(run_id, "name") == []
        assert [g.items for g in client.failures(run_id, error="no '*'")] == [1]
        found = client.get_run(run_id)
        assert found is not None
        assert found.failures("total") == groups[:1]
        with pytest.raises(FlowNotFound):
            client.failures(run_id, "zork")
        with pytest.raises(RunNotFound):
            client.failures(str(uuid.uuid4()))


def test_of_a_step_without_parents_the_runs_input_is_told(dsn: str) -> None:
    with pytest.raises(RunFailed, match=r'step "only" task 0 \(\{"a": "b"\}\): ValueError: no'):
        run(alone, {"a": "b"}, dsn=dsn, executor="inline")


def test_whole_inputs_are_read_only_where_they_are_asked_for(db: Connection) -> None:
    run_id = failed_run(db, 2, "'x'")
    db.execute("update pgflow.step_tasks set input = to_jsonb(repeat('y', 2000000)) where task_index = 1")
    small, large = read(db, run_id, whole=grouping.WHOLE).groups[0].examples
    assert (small.input, small.input_bytes, small.shown()) == (0, 1, "0")
    assert (large.input, large.shown(12)) == (None, '"yyyyyyyy...')
    assert large.input_bytes is not None
    assert large.input_bytes > 2_000_000
    assert [item.input for item in read(db, run_id).groups[0].examples] == [None, None]
    db.execute("update pgflow.step_tasks set input = to_jsonb(repeat('y', 20000000)) where task_index = 1")
    assert read(db, run_id).groups[0].examples[1].shown() == "(20.0 MB)"
    digits = "[1.10, 9223372036854775808, 1e400]"
    db.execute("update pgflow.step_tasks set input = %s::jsonb where task_index = 1", (digits,))
    raw = bytes(read(db, run_id, whole=99).groups[0].examples[1].raw_input)
    assert json.loads(raw, parse_float=str)[:2] == ["1.10", 2**63]


def test_memory_does_not_grow_with_the_failures(db: Connection) -> None:
    error = "format(E'ValueError: no %s at %L\\n\\nTraceback%s', i, i, repeat(' x', 999))"
    run_id = failed_run(db, 15_000, error)
    read(db, run_id, text="none")
    tracemalloc.start()
    found = read(db, run_id)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(group.error, group.items) for group in found.groups] == [("ValueError: no * at '*'", 15_000)]
    assert peak < 6 << 20  # a page of 5,000 lines
