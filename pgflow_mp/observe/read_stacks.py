"""Where the code of workers is: they are asked through the database, and answer within a moment."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from pgflow_mp.db import stack_questions
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import runs
from pgflow_mp.db.stack_questions import FrameRow, LaneAnswer, StackAnswer
from pgflow_mp.observe.worker_reports import WorkerInfo

WAIT: Final = 5.0
"""Seconds that workers have to answer, unless told otherwise."""
_LOOK: Final = 0.05  # seconds between looks for answers
_LOOK_LATER: Final = 0.5


class StackFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A function that was called, and where it is: ``line`` is 0, ``source`` empty where nothing is known."""

    file: str
    line: int
    function: str
    source: str


class LaneStackReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a lane's code is, the latest call last, and the item that it runs, for how many seconds.

    ``note`` says what else is to be known: that it is idle, why there are no frames.
    """

    lane: int
    pid: int | None
    run_id: str | None
    flow_slug: str | None
    step_slug: str | None
    index: int | None
    seconds: float | None
    note: str
    frames: list[StackFrame]


class ThreadStackReport(msgspec.Struct, frozen=True, kw_only=True):
    """Where a thread of the worker's own is, the latest call last; ``works``: it runs an item."""

    name: str
    works: bool
    frames: list[StackFrame]


class WorkerStacks(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker has answered; ``answered`` is false where it has not."""

    worker: str
    host: str | None
    pid: int | None
    flows: list[str]
    answered: bool
    lanes: list[LaneStackReport]
    threads: list[ThreadStackReport]


def read_stacks(conn: Connection, workers: Sequence[WorkerInfo], wait: float = WAIT) -> list[WorkerStacks]:
    """Ask these workers, all at once; they have ``wait`` seconds. ``conn`` is in autocommit mode."""
    asked = stack_questions.ask_stacks(conn, [each for worker in workers for each in worker.worker_ids[:1]])
    answers = _await(conn, set(asked.values()), wait) if asked else {}
    found = [(worker, answers.get(asked.get(worker.worker_ids[0], ""))) for worker in workers]
    known = {lane.run for _, answer in found if answer is not None for lane in answer.lanes if lane.run}
    flows = {str(run.run_id): run.flow_slug for run in runs.run_heads(conn, known)} if known else {}
    return [_report(worker, answer, flows) for worker, answer in found]


def _await(conn: Connection, questions: Collection[str], wait: float) -> dict[str, StackAnswer]:
    began, found = time.monotonic(), dict[str, StackAnswer]()
    while (passed := time.monotonic() - began) < wait and len(found) < len(questions):
        time.sleep(min(_LOOK if passed < 1 else _LOOK_LATER, max(0.0, wait - passed)))
        found |= stack_questions.stack_answers(conn, [each for each in questions if each not in found])
    return found


def _report(worker: WorkerInfo, answer: StackAnswer | None, flows: dict[str, str]) -> WorkerStacks:
    told = answer or StackAnswer()
    return WorkerStacks(
        worker=worker.name,
        host=worker.host,
        pid=worker.pid,
        flows=worker.flows,
        answered=answer is not None,
        lanes=[_lane(lane, flows) for lane in sorted(told.lanes, key=lambda lane: (lane.lane, lane.pid))],
        threads=[
            ThreadStackReport(name=each.name, works=each.works, frames=_frames(each.frames))
            for each in told.threads
        ],
    )


def _lane(lane: LaneAnswer, flows: dict[str, str]) -> LaneStackReport:
    return LaneStackReport(
        lane=lane.lane,
        pid=lane.pid or None,
        run_id=lane.run,
        flow_slug=flows.get(lane.run or ""),
        step_slug=lane.step,
        index=lane.index,
        seconds=lane.seconds,
        note=lane.note,
        frames=_frames(lane.frames),
    )


def _frames(frames: Sequence[FrameRow]) -> list[StackFrame]:
    return [
        StackFrame(file=each.file, line=each.line, function=each.function, source=each.source)
        for each in reversed(frames)
    ]
