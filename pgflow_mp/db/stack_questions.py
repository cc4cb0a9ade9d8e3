"""Asking workers where their code is, and answering that (sql/functions/0698_stacks.sql)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec

from pgflow_mp.db.engine import Connection

CHANNEL: Final = "pgflow_stacks"
"""What a worker hears that it may have been asked."""


class FrameRow(NamedTuple):
    """A function that was called: its file, the line it is at (0: not known), its name, that line's text."""

    file: str
    line: int
    function: str
    source: str


class LaneAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a lane's code is, the innermost frame first, and the item that it runs; ``note``: why nothing."""

    lane: int
    pid: int = 0
    run: str | None = None
    step: str | None = None
    index: int | None = None
    seconds: float | None = None
    note: str = ""
    frames: list[FrameRow] = []


class ThreadAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a thread of a worker's own is; ``works``: it runs an item."""

    name: str
    works: bool = False
    frames: list[FrameRow]


class StackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker answers."""

    lanes: list[LaneAnswer] = []
    threads: list[ThreadAnswer] = []


def ask_stacks(conn: Connection, worker_ids: Sequence[str]) -> dict[str, str]:
    """Put a question to these workers; by worker id those that are alive and may be asked, and its id."""
    rows = conn.execute("select * from pgflow.ask_stacks(%s::uuid[])", ([*worker_ids],)).fetchall()
    return {str(worker_id): str(question_id) for worker_id, question_id in rows}


def stack_answers(conn: Connection, questions: Sequence[str]) -> Mapping[str, StackAnswer]:
    """By id the questions that have been answered."""
    rows = conn.execute(
        "select question_id, answer::text from pgflow.stack_answers(%s::uuid[])", ([*questions],)
    ).fetchall()
    return {str(question): msgspec.json.decode(answer, type=StackAnswer) for question, answer in rows}


def open_questions(conn: Connection, worker_ids: Sequence[str]) -> list[str]:
    """What these workers, which are we, are asked."""
    rows = conn.execute("select pgflow.open_stack_questions(%s::uuid[])", ([*worker_ids],)).fetchall()
    return [str(row[0]) for row in rows]


def answer(conn: Connection, question: str, told: StackAnswer) -> bool:
    """Answer; False if the question is gone, or has been answered."""
    row = conn.execute(
        "select pgflow.answer_stacks(%s::uuid, %s::jsonb)", (question, msgspec.json.encode(told).decode())
    ).fetchone()
    return cast(bool, cast("tuple[Any, ...]", row)[0])
