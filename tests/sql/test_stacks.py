"""Asking workers where their code is: who may, whom, and what of the answer they see."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from .helpers import Db, flow, map_step, start, worker

WORKERS = [uuid.UUID(int=n) for n in (1, 2)]


@pytest.fixture
def asked(db: Db) -> Db:
    """Flows a and b with a worker that is alive; roles "all" and "some", who may use flow a only."""
    for slug, each in zip(("a", "b"), WORKERS, strict=True):
        flow(db, slug, map_step("m"))
        worker(db, slug, each)
    db.do("update pgflow.workers set dead_after = '1 hour', last_heartbeat_at = now()")
    for role, flows in (("pgflow_all", None), ("pgflow_some", ["a"])):
        db.do(f"create role {role}")
        for access in ("operator", "worker"):
            db.do("select pgflow.grant_access(%s, %s, %s::text[])", role, access, flows)
    return db


def ask(db: Db, role: str, workers: list[uuid.UUID] = WORKERS) -> dict[uuid.UUID, uuid.UUID]:
    db.do(f"set local role {role}")
    rows = db.rows("select * from pgflow.ask_stacks(%s)", workers)
    db.do("reset role")
    return {row.worker_id: row.question_id for row in rows}


def answers(db: Db, role: str, questions: Any) -> list[Any]:
    db.do(f"set local role {role}")
    found = db.column("select answer from pgflow.stack_answers(%s)", [*questions])
    db.do("reset role")
    return found


def test_a_question_waits_for_its_worker_and_is_not_put_twice(asked: Db) -> None:
    first = ask(asked, "pgflow_all")
    assert set(first) == set(WORKERS)
    assert ask(asked, "pgflow_all") == first
    [question] = asked.column("select pgflow.open_stack_questions(%s)", WORKERS[:1])
    assert question == first[WORKERS[0]]
    assert answers(asked, "pgflow_all", first.values()) == []
    assert asked.value("""select pgflow.answer_stacks(%s, '{"lanes": []}')""", question) is True
    assert asked.value("""select pgflow.answer_stacks(%s, '{"lanes": [1]}')""", question) is False
    assert answers(asked, "pgflow_all", first.values()) == [{"lanes": []}]
    assert asked.column("select pgflow.open_stack_questions(%s)", WORKERS[:1]) == []
    assert ask(asked, "pgflow_all")[WORKERS[0]] != question


def test_whoever_is_gone_is_not_asked(asked: Db) -> None:
    silent = "update pgflow.workers set last_heartbeat_at = now() - interval '2 hours' where worker_id = %s"
    asked.do(silent, WORKERS[0])
    asked.do("update pgflow.workers set stopped_at = now() where worker_id = %s", WORKERS[1])
    assert ask(asked, "pgflow_all") == {}


def test_a_role_for_some_flows_asks_their_workers_and_sees_lanes_of_theirs(asked: Db) -> None:
    ours, theirs = str(start(asked, "a", [1])), str(start(asked, "b", [1]))
    found = ask(asked, "pgflow_some")
    assert set(found) == {WORKERS[0]}
    question = found[WORKERS[0]]
    lanes = [
        {"lane": 0, "run": ours, "frames": ["ours"]},
        {"lane": 1, "run": theirs, "frames": ["theirs"]},
        {"lane": 2, "frames": ["whose"]},
    ]
    asked.do(
        "update pgflow.stack_questions set answered_at = now(),"
        " answer = jsonb_build_object('lanes', %s::jsonb, 'threads', '[1]'::jsonb)",
        json.dumps(lanes),
    )
    assert answers(asked, "pgflow_some", [question]) == [
        {
            "threads": [],
            "lanes": [
                lanes[0],
                {"lane": 1, "note": "works for another flow"},
                {"lane": 2, "note": "idle, or not yet at work"},
            ],
        }
    ]
    assert answers(asked, "pgflow_all", [question]) == []  # who has not asked is not told


def test_a_role_for_some_flows_answers_for_its_own_workers_only(asked: Db) -> None:
    found = ask(asked, "pgflow_all")
    asked.do("set local role pgflow_some")
    assert asked.column("select pgflow.open_stack_questions(%s)", WORKERS) == [found[WORKERS[0]]]
    assert asked.value("select pgflow.answer_stacks(%s, '{}')", found[WORKERS[1]]) is False
    assert asked.value("select pgflow.answer_stacks(%s, '{}')", found[WORKERS[0]]) is True
    asked.do("reset role")


def test_answers_are_bounded_and_forgotten(asked: Db) -> None:
    question = ask(asked, "pgflow_all")[WORKERS[0]]
    large = "select pgflow.answer_stacks(%s, to_jsonb(repeat('x', 2100000)))"
    assert asked.refused(large, question).sqlstate == "54000"
    asked.do("update pgflow.stack_questions set asked_at = now() - interval '1 hour'")
    later = ask(asked, "pgflow_all")
    assert question not in later.values()
    assert asked.value("select count(*)::int from pgflow.stack_questions") == 2
