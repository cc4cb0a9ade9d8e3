"""Verbs for maps in ranges: flows that have them, what a worker leases and settles, what is stored."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from psycopg.types.json import Json

from .helpers import WORKER, Db, Row, flow, map_step, start
from .test_leases import register, silence

OTHER = uuid.UUID("22222222-2222-2222-2222-222222222222")
CLAIM = "select * from pgflow.claim_work(%s, %s, %s, %s, %s::bigint[])"


class Lease(NamedTuple):
    """A stretch of items that a worker holds."""

    run: uuid.UUID
    step: str
    first: int
    items: int
    lease_no: int
    deaths: int | None

    @property
    def bounds(self) -> tuple[int, int]:
        return self.first, self.first + self.items


class Claimed(NamedTuple):
    """What one call of claim_work answered."""

    tasks: list[Row]
    pages: list[Row]
    leases: list[Lease]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        return [lease.bounds for lease in self.leases]

    @property
    def items(self) -> int:
        return sum(lease.items for lease in self.leases)


def ranges_flow(db: Db, slug: str, *steps: Any, tasks: Iterable[str] = (), **options: Any) -> str:
    """A flow whose maps are in ranges, but for those in ``tasks``."""
    flow(db, slug, *steps, **options)
    db.do(
        "insert into pgflow.step_policies (flow_slug, step_slug, storage)"
        " select flow_slug, step_slug, 'ranges' from pgflow.steps"
        " where flow_slug = %s and step_type = 'map' and step_slug <> all (%s)",
        *(slug, list(tasks)),
    )
    return slug


def policy(db: Db, slug: str, step: str, **values: Any) -> None:
    db.do(
        f"update pgflow.step_policies set {', '.join(f'{name} = %s' for name in values)}"
        " where flow_slug = %s and step_slug = %s",
        *(*values.values(), slug, step),
    )


def replace_limit(db: Db, function: str, bytes: int) -> None:
    """Make a limit of ours so small that a test need not be large."""
    db.do(
        f"create or replace function pgflow.{function}() returns bigint language sql immutable"
        f" as 'select {bytes}::bigint'"
    )


def hired(
    db: Db, slug: str = "f", worker: uuid.UUID = WORKER, dead_after: str | None = "1 hour"
) -> uuid.UUID:
    register(db, worker, slug, dead_after)
    return worker


def mapped(db: Db, items: int | Sequence[Any], *steps: Any, slug: str = "f", **options: Any) -> uuid.UUID:
    """A run of a root map "m" in ranges, and two workers."""
    ranges_flow(db, slug, map_step("m"), *steps, **options)
    for worker in (WORKER, OTHER):
        hired(db, slug, worker)
    return start(db, slug, list(range(items)) if isinstance(items, int) else list(items))


def claim_work(
    db: Db,
    items: int | None = 1000,
    worker: uuid.UUID | None = WORKER,
    *,
    slug: str = "f",
    qty: int = 100,
    known: Sequence[int | None] | None = (),
) -> Claimed:
    rows = db.rows(CLAIM, slug, worker, qty, items, None if known is None else list(known))
    return Claimed(
        [r for r in rows if r.items is None],
        [r for r in rows if r.items is not None and r.msg_id is not None],
        [
            Lease(r.run_id, r.step_slug, r.task_index, r.items, r.attempt, r.deaths)
            for r in rows
            if r.items is not None and r.msg_id is None
        ],
    )


Part = tuple[int, int, int]
"""Lease number, first item, count."""


def parts_of(*leases: Lease) -> list[Part]:
    return [(lease.lease_no, lease.first, lease.items) for lease in leases]


def complete_parts(
    db: Db,
    run: uuid.UUID,
    parts: Iterable[Part],
    outputs: Sequence[Any] | None = None,
    *,
    worker: uuid.UUID | None = WORKER,
    step: str = "m",
) -> Row:
    """Outputs are each item's index times ten unless given, an array a part."""
    parts = list(parts)
    if outputs is None:
        outputs = [[10 * i for i in range(first, first + count)] for _, first, count in parts]
    return db.row(
        "select s.* from pgflow.complete_ranges(%s, %s, %s, %s::int[], %s::int[], %s::int[], %s::jsonb[]) s",
        *(run, step, worker, *columns(parts), [Json(o) for o in outputs]),
    )


def columns(parts: Sequence[Part]) -> list[list[int]]:
    return [[p[i] for p in parts] for i in range(3)]


def finish(db: Db, *leases: Lease, worker: uuid.UUID = WORKER) -> int:
    """Complete all of these leases; how many items were taken."""
    return sum(
        complete_parts(db, lease.run, parts_of(lease), worker=worker, step=lease.step).accepted
        for lease in leases
    )


def fail_items(
    db: Db,
    run: uuid.UUID,
    indexes: Sequence[int | None],
    *,
    lease_no: int = 1,
    error: str = "boom",
    permanent: bool = False,
    worker: uuid.UUID | None = WORKER,
    step: str = "m",
) -> Row:
    n = len(indexes)
    return db.row(
        "select s.* from pgflow.fail_range_items(%s, %s, %s, %s::int[], %s::int[], %s::text[], %s::bool[]) s",
        *(run, step, worker, [lease_no] * n, list(indexes), [error] * n, [permanent] * n),
    )


def release(
    db: Db, run: uuid.UUID, parts: Sequence[Part], *, worker: uuid.UUID = WORKER, step: str = "m"
) -> int:
    count: int = db.value(
        "select pgflow.release_ranges(%s, %s, %s, %s::int[], %s::int[], %s::int[])",
        *(run, step, worker, *columns(parts)),
    )
    return count


def dies(db: Db, worker: uuid.UUID) -> int:
    """It was silent for longer than it promised, and is taken over from; how many tasks and items."""
    silence(db, worker, 7200)
    count: int = db.value(
        "select pgflow.recover_workers(array[worker_id], array[last_heartbeat_at]) from pgflow.workers"
        " where worker_id = %s",
        worker,
    )
    return count


# -- what is stored ------------------------------------------------------------------------------------


def ranges(db: Db, run: uuid.UUID, step: str = "m") -> list[tuple[Any, ...]]:
    """(first, end, who holds it, deaths) of each, W and O for the two workers, in order."""
    names = {WORKER: "W", OTHER: "O", None: None}
    rows = db.rows(
        "select * from pgflow.ranges where run_id = %s and step_slug = %s order by first_index", run, step
    )
    return [(r.first_index, r.end_index, names.get(r.worker_id, "?"), r.deaths) for r in rows]


def results(db: Db, run: uuid.UUID, step: str = "m") -> dict[int, Any]:
    """The output of each item that a result page holds; none may hold one twice."""
    found: dict[int, Any] = {}
    for row in db.rows(
        "select * from pgflow.pages where run_id = %s and step_slug = %s and is_result", run, step
    ):
        assert len(row.body) == row.items
        for i, output in enumerate(row.body, row.first_index):
            assert i not in found
            found[i] = output
    return found


def everything(db: Db, run: uuid.UUID) -> dict[str, list[Any]]:
    """All that is stored of a run but its events, to show that a call changed nothing."""
    return {
        table: db.column(
            f"select to_jsonb(t) from pgflow.{table} t where run_id = %s order by to_jsonb(t)::text", run
        )
        for table in ("runs", "step_states", "step_tasks", "range_maps", "ranges", "pages")
    }


COVERAGE = """
select i as item, count(*) as times from (
  select generate_series(p.first_index, p.first_index + p.items - 1) as i from pgflow.pages p
  where p.run_id = %(run)s and p.step_slug = %(step)s and p.is_result
  union all
  select generate_series(g.first_index, g.end_index - 1) from pgflow.ranges g
  where g.run_id = %(run)s and g.step_slug = %(step)s
  union all
  select generate_series(m.next_index, m.items - 1) from pgflow.range_maps m
  where m.run_id = %(run)s and m.step_slug = %(step)s
  union all
  select t.task_index from pgflow.step_tasks t
  where t.run_id = %(run)s and t.step_slug = %(step)s and not exists (
    select 1 from pgflow.pages p
    where p.run_id = t.run_id and p.step_slug = t.step_slug and p.is_result
      and t.task_index between p.first_index and p.first_index + p.items - 1)
) covered group by i order by i
"""


def assert_whole(db: Db, run: uuid.UUID, step: str = "m") -> None:
    """Every item is in one place, and the counters tell how many are done."""
    with db.conn.cursor() as cur:
        cur.execute(COVERAGE.encode(), {"run": run, "step": step})
        found = dict(cur.fetchall())
    state = db.row("select * from pgflow.step_states where run_id = %s and step_slug = %s", run, step)
    assert found == dict.fromkeys(range(state.initial_tasks), 1)
    if state.status != "started":
        assert {holder for _, _, holder, _ in ranges(db, run, step)} <= {None}
        return
    done = db.value(
        "select count(*) from pgflow.step_tasks where run_id = %s and step_slug = %s"
        " and status in ('completed', 'failed')",
        *(run, step),
    )
    tasks = set(
        db.column("select task_index from pgflow.step_tasks where run_id = %s and step_slug = %s", run, step)
    )
    done += len(set(results(db, run, step)) - tasks)
    assert state.remaining_tasks == state.initial_tasks - done
