"""Calls about maps whose items are stored by the range: claiming, recording, handing back.

A page is an array of elements of consecutive items; a lease is a stretch of items that a worker holds. What a
page holds is not looked at here either: its body is raw JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

import msgspec
import psycopg

from pgflow_mp.db.early_release import DEFER, can_release_early, wait_for_commits
from pgflow_mp.db.engine import ClaimedTask, Connection, OwnRun
from pgflow_mp.db.wire import Int4Array, Int8Array, RawJsonArray, uuid_text


class ElementPage(NamedTuple):
    """The elements of ``items`` items of a map from ``first_index`` on, as one JSON array."""

    run_id: str
    step_slug: str
    first_index: int
    items: int
    page_id: int
    body: bytes


class ItemLease(NamedTuple):
    """Items of a map that this worker holds. ``timeout`` of each item in seconds."""

    run_id: str
    step_slug: str
    first_index: int
    items: int
    lease_no: int
    timeout: int


class ClaimedWork(NamedTuple):
    """What a claim got. The pages are those that the leases need and that were not known.

    ``limited``: limits of the flow left some of it to later, and what they say of that.
    """

    tasks: list[ClaimedTask]
    pages: list[ElementPage]
    leases: list[ItemLease]
    limited: Limited | None = None


class Limited(NamedTuple):
    """Limits let no more through: in ``seconds`` a rate does again; None: once others are done."""

    seconds: float | None


class RangeCompletion(NamedTuple):
    """Outputs of items of one map: part k is a JSON array of ``counts[k]`` outputs from ``firsts[k]`` on."""

    run_id: str
    step_slug: str
    worker_id: str
    lease_nos: list[int]
    firsts: list[int]
    counts: list[int]
    outputs: list[bytes]


class RangeFailure(NamedTuple):
    """Errors of items of one map, each its first attempt; ``permanent`` ones are not retried."""

    run_id: str
    step_slug: str
    worker_id: str
    lease_nos: list[int]
    indexes: list[int]
    errors: list[str]
    permanent: list[bool]


_as_task: Final[Callable[[tuple[Any, ...]], ClaimedTask]] = partial(tuple.__new__, ClaimedTask)
_CLAIM: Final = (  # of each task as bytes what the driver would call Python for
    "select pg_catalog.uuid_send(run_id), step_slug, task_index, msg_id, attempt, "
    "pg_catalog.jsonb_send(input), pg_catalog.jsonb_send(flow_input), timeout, deaths, items "
    "from pgflow.claim_work(%s, %s::uuid, %s::int, %s::int, %s, %s::int, %s::text[], %s::int)"
)
_CLAIM_OWN: Final = _CLAIM[:-1] + ", %s::uuid, %s::boolean)"
_AND_DEFER: Final = f" where (select {DEFER}) is not null"  # once, before there are rows
_COMPLETE: Final = (
    "select accepted, rejected, step_status, run_status "
    "from pgflow.complete_ranges(%s::uuid, %s, %s::uuid, %s, %s, %s, %s)"
)
_COMPLETE_AND_DEFER: Final = _COMPLETE.replace(  # in the midst of a map, where nothing follows from it
    " from ", f", case when step_status = 'started' then {DEFER} end from ", 1
)
_FAIL: Final = (
    "select accepted, rejected, step_status, run_status "
    "from pgflow.fail_range_items(%s::uuid, %s, %s::uuid, %s, %s, %s::text[], %s::boolean[])"
)


def claim_work(
    conn: Connection,
    flow_slug: str,
    worker_id: str,
    qty: int,
    items: int,
    known: Sequence[int],
    lease: int | None = None,
    but_steps: Collection[str] = (),
    usable: int | None = None,
    own: OwnRun | None = None,
    *,
    early: bool = False,
) -> ClaimedWork:
    """Claim up to ``qty`` tasks, as engine.claim_tasks does, and up to ``items`` items of maps in ranges.

    ``known``: ids of pages that need not be answered; ``but_steps``: steps of which nothing is wanted. Of a
    flow with limits at most ``usable`` items are got, which could be worked on at once; None: a share.
    What there is of one's ``own`` run comes first. ``early``: others wait for the locks (early_release).
    """
    values = (flow_slug, worker_id, qty, items, Int8Array(known), lease, list(but_steps) or None, usable)
    found = ClaimedWork([], [], [])
    query = _CLAIM if own is None else _CLAIM_OWN
    early = early and can_release_early(conn)
    if early:
        query += _AND_DEFER
    rows = conn.execute(query, (*values, *(own or ())), binary=True).fetchall()
    if early and rows:
        wait_for_commits(conn)
    rows.reverse()
    add = found.tasks.append
    while rows:  # each is gone before the next one's body is copied
        sent, step, first, number, attempt, body, flow_input, timeout, deaths, count = rows.pop()
        if sent is None:
            found = found._replace(limited=Limited(None if timeout is None else timeout / 1000))
            continue
        run, body = uuid_text(sent), body and body[1:]  # without the version of jsonb
        if count is None:
            given = flow_input and flow_input[1:]
            add(_as_task((run, step, first, number, attempt, body, given, timeout, deaths, None)))
        elif number is None:
            found.leases.append(ItemLease(run, step, first, count, attempt, timeout))
        else:
            found.pages.append(ElementPage(run, step, first, count, number, body))
    return found


def range_pages(
    conn: Connection, run_id: str, step_slug: str, first_index: int, items: int
) -> list[ElementPage]:
    """The pages in which these items lie."""
    rows = conn.execute(
        "select run_id, step_slug, task_index, items, msg_id, input "
        "from pgflow.range_pages(%s::uuid, %s, %s::int, %s::int)",
        (run_id, step_slug, first_index, items),
        binary=True,
    ).fetchall()
    return [ElementPage._make(row) for row in rows]


def release_ranges(
    conn: Connection,
    run_id: str,
    step_slug: str,
    worker_id: str,
    lease_nos: Sequence[int],
    firsts: Sequence[int],
    counts: Sequence[int],
) -> int:
    """Hand items back, uncharged; how many were still held."""
    row = conn.execute(
        "select pgflow.release_ranges(%s::uuid, %s, %s::uuid, %s, %s, %s)",
        (run_id, step_slug, worker_id, Int4Array(lease_nos), Int4Array(firsts), Int4Array(counts)),
    ).fetchone()
    return cast(int, cast("tuple[Any, ...]", row)[0])


def send(
    conn: Connection, call: RangeCompletion | RangeFailure, *, early: bool = False
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Record what a call says; its row answers accepted items and rejected indexes, see engine.Settled.

    Of a RangeCompletion the first items of the parts that were rejected. ``early``: where the map goes on,
    the transaction releases its locks before it is durable, for the caller to wait for.
    """
    head = (call.run_id, call.step_slug, call.worker_id, Int4Array(call.lease_nos))
    if isinstance(call, RangeCompletion):
        rest = (Int4Array(call.firsts), Int4Array(call.counts), RawJsonArray(call.outputs))
        return conn.execute(_COMPLETE_AND_DEFER if early else _COMPLETE, (*head, *rest), binary=True)
    return conn.execute(_FAIL, (*head, Int4Array(call.indexes), call.errors, call.permanent), binary=True)


def items_of(call: object, rejected: Sequence[int]) -> int:
    """How many items these rejected indexes stand for: of a RangeCompletion each for a part."""
    if not isinstance(call, RangeCompletion):
        return len(rejected)
    gone = set(rejected)
    return sum(count for first, count in zip(call.firsts, call.counts, strict=True) if first in gone)


def already_failed(conn: Connection, call: RangeFailure, rejected: Sequence[int]) -> list[int]:
    """Which of these items were recorded before as failed: they are this worker's tasks, or were tried again.

    A role without rights on the tables cannot look: then all of them are taken to be.
    """
    try:
        rows = conn.execute(
            "select task_index from pgflow.step_tasks where run_id = %s::uuid and step_slug = %s "
            "and task_index = any (%s) and (last_worker_id = %s::uuid or attempts_count > 1)",
            (call.run_id, call.step_slug, Int4Array(rejected), call.worker_id),
        ).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        return list(rejected)
    return [row[0] for row in rows]


def unrecorded(conn: Connection, call: RangeCompletion, rejected: Sequence[int]) -> RangeCompletion:
    """What of the rejected parts this worker has not recorded before, cut to where it has recorded anything.

    A role without rights on the tables cannot look: then it is nothing.
    """
    gone = set(rejected)
    parts = [part for part in zip(*call[3:], strict=True) if part[1] in gone]
    found = RangeCompletion(*call[:3], [], [], [], [])
    for lease_no, first, count, output in parts:
        try:
            pages = conn.execute(
                "select first_index, items from pgflow.pages where run_id = %s::uuid and step_slug = %s and "
                "is_result and first_index >= %s and first_index < %s and worker_id = %s::uuid order by 1",
                (call.run_id, call.step_slug, first, first + count, call.worker_id),
            ).fetchall()
        except psycopg.errors.InsufficientPrivilege:
            return found
        values = msgspec.json.decode(output, type=list[msgspec.Raw]) if pages else []
        at = first
        for begin, items in [*pages, (first + count, 0)]:
            if begin > at:
                stretch = values[at - first : begin - first]
                found.lease_nos.append(lease_no)
                found.firsts.append(at)
                found.counts.append(begin - at)
                found.outputs.append(msgspec.json.encode(stretch) if pages else output)
            at = begin + items
    return found


def halves(call: RangeCompletion) -> list[RangeCompletion]:
    """What of a call can be tried apart: half of its parts or of its one part's outputs; of an item none."""
    head = call[:3]
    if (middle := len(call.firsts) // 2) > 0:
        left: list[Any] = [part[:middle] for part in call[3:]]
        right: list[Any] = [part[middle:] for part in call[3:]]
        return [RangeCompletion(*head, *left), RangeCompletion(*head, *right)]
    (lease_no,), (first,), (count,), (output,) = call[3:]
    if (middle := count // 2) == 0:
        return []
    values = msgspec.json.decode(output, type=list[msgspec.Raw])
    if len(values) != count:  # no lane of ours makes such a part
        raise ValueError(f"{len(values)} outputs for {count} items of step {call.step_slug} from {first} on")
    left_output, right_output = (msgspec.json.encode(part) for part in (values[:middle], values[middle:]))
    return [
        RangeCompletion(*head, [lease_no], [first], [middle], [left_output]),
        RangeCompletion(*head, [lease_no], [first + middle], [count - middle], [right_output]),
    ]
