"""What lies in the queue (contract section 5)."""

from __future__ import annotations

from .helpers import Db, claim, complete, flow, map_step, queue, setup, start, step, table, tasks


def test_a_message_has_exactly_four_keys(db: Db) -> None:
    run = start(db, flow(db, "f", map_step("m")), ["x", "y"])
    bodies = db.column("select message from pgmq.q_f order by msg_id")
    assert bodies == [
        {"flow_slug": "f", "run_id": str(run), "step_slug": "m", "task_index": i} for i in range(2)
    ]


def test_message_values_have_json_types(db: Db) -> None:
    start(db, setup(db, "one"))
    row = db.row(
        "select jsonb_typeof(message->'run_id') as run, jsonb_typeof(message->'task_index') as"
        " index from pgmq.q_one"
    )
    assert (row.run, row.index) == ("string", "number")


def test_a_message_has_no_headers_and_was_never_read(db: Db) -> None:
    start(db, setup(db, "one"))
    row = db.row("select headers, read_ct from pgmq.q_one")
    assert (row.headers, row.read_ct) == (None, 0)


def test_tasks_know_their_message(db: Db) -> None:
    run = start(db, setup(db, "root_map"), ["x", "y", "z"])
    by_id = {
        r.msg_id: r.message["task_index"] for r in db.rows("select msg_id, message from pgmq.q_root_map")
    }
    assert {t.message_id: t.task_index for t in tasks(db, run)} == by_id


def test_ids_ascend_by_step_slug_and_index_within_one_call(db: Db) -> None:
    flow(db, "f", map_step("z_map"), "b_single", map_step("a_map"))
    start(db, "f", [1, 2, 3])
    assert queue(db, "f") == [
        ("a_map", 0),
        ("a_map", 1),
        ("a_map", 2),
        ("b_single", 0),
        ("z_map", 0),
        ("z_map", 1),
        ("z_map", 2),
    ]


def test_slug_order_wins_over_definition_order(db: Db) -> None:
    flow(db, "f", "root_b", "root_a")
    start(db, "f")
    assert queue(db, "f") == [("root_a", 0), ("root_b", 0)]


def test_children_started_by_one_completion_are_queued_in_slug_order(db: Db) -> None:
    flow(db, "f", "root", map_step("map_b", "root"), map_step("map_a", "root"), step("end_it", "root"))
    run = start(db, "f")
    claim(db, "f")
    complete(db, run, "root", [1, 2])
    assert queue(db, "f") == [("end_it", 0), ("map_a", 0), ("map_a", 1), ("map_b", 0), ("map_b", 1)]


def test_with_start_delays_ids_still_ascend_within_a_step(db: Db) -> None:
    flow(db, "f", map_step("a", start_delay=10), map_step("b"), map_step("c", start_delay=10))
    start(db, "f", list(range(5)))
    by_step: dict[str, list[int]] = {}
    for slug, index in queue(db, "f"):
        by_step.setdefault(slug, []).append(index)
    assert by_step == {"a": list(range(5)), "b": list(range(5)), "c": list(range(5))}


def test_tasks_are_read_in_index_order_one_by_one(db: Db) -> None:
    setup(db, "root_map")
    run = start(db, "root_map", ["a", "b", "c", "d"])
    for index in range(4):
        (task,) = claim(db, "root_map", 1)
        assert (task.task_index, task.input) == (index, "abcd"[index])
        complete(db, run, "items", index, index)


def test_each_flow_has_its_own_queue(db: Db) -> None:
    start(db, flow(db, "f", "a"))
    start(db, flow(db, "g", "b"))
    assert (queue(db, "f"), queue(db, "g")) == ([("a", 0)], [("b", 0)])


def test_equal_message_ids_of_two_flows_do_not_mix(db: Db) -> None:
    run_f = start(db, flow(db, "f", "a"))
    run_g = start(db, flow(db, "g", "a"))
    assert db.column(f"select msg_id from pgmq.{table('q', 'f')}") == [1]
    assert db.column(f"select msg_id from pgmq.{table('q', 'g')}") == [1]
    assert [t.run_id for t in claim(db, "f")] == [run_f]
    complete(db, run_f, "a")
    assert queue(db, "g") == [("a", 0)]
    assert [t.run_id for t in claim(db, "g")] == [run_g]
