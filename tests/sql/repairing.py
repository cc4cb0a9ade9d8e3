"""A worker for tests of retries: does what there is to do, in either storage, by functions that may fail."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Json

from pgflow_mp.testing import audit_run

from .helpers import WORKER, Db, Row, flow, make_visible, start
from .range_work import hired

Handlers = Mapping[str, Callable[[Any], Any]]
"""By step: what an item's element, or the object of the parents' outputs, becomes. An exception fails it."""


def store(db: Db, slug: str, storages: Mapping[str, str], tolerated: Mapping[str, int] | None = None) -> None:
    """Say how maps are stored, and how many failures they tolerate."""
    for step, storage in storages.items():
        db.do(
            "select pgflow.set_step_policy(%s, %s, storage => %s, tolerated_failures => %s)",
            *(slug, step, storage, (tolerated or {}).get(step)),
        )


@dataclass
class Repair:
    """A run, and one worker of its flow. ``seen`` is what was computed, as (step, index)."""

    db: Db
    run: uuid.UUID
    handlers: Handlers
    slug: str = "f"
    worker: uuid.UUID = WORKER
    seen: list[tuple[str, int]] = field(default_factory=list)

    def work(self, items: int = 1000, handlers: Handlers | None = None) -> int:
        """Claim and settle until nothing is left; how many items. Everything is right on the way."""
        total = 0
        while done := self.some(items, handlers):
            total += done
        return total

    def some(self, items: int = 1000, handlers: Handlers | None = None) -> int:
        """One claim, and its outcomes."""
        make_visible(self.db, self.slug)
        held = self.claim(items)
        self.settle(held, handlers)
        self.check()
        return len(held)

    def claim(self, items: int = 1000) -> list[Row]:
        """Items that are held: step_slug, index, input, attempt, lease_no (None for a task)."""
        rows = self.db.rows(
            "select * from pgflow.claim_work(%s, %s, %s, %s)", self.slug, self.worker, items, items
        )
        pages = [row for row in rows if row.items is not None and row.msg_id is not None]
        found: list[Row] = []
        for row in rows:
            common = {"run": row.run_id, "step": row.step_slug, "attempt": row.attempt}
            if row.items is None:
                found.append(
                    Row(**common, index=row.task_index, input=row.input, msg_id=row.msg_id, lease=None)
                )
            elif row.msg_id is None:
                for i in range(row.task_index, row.task_index + row.items):
                    (page,) = [
                        page
                        for page in pages
                        if (page.run_id, page.step_slug) == (row.run_id, row.step_slug)
                        and page.task_index <= i < page.task_index + page.items
                    ]
                    element = page.input[i - page.task_index]
                    found.append(Row(**common, index=i, input=element, msg_id=None, lease=row.attempt))
        return found

    def settle(self, held: Sequence[Row], handlers: Handlers | None = None) -> list[Row]:
        """Compute and record these, one call each; what the calls answered."""
        answers: list[Row] = []
        for item in held:
            self.seen.append((item.step, item.index))
            try:
                output = (handlers or self.handlers)[item.step](item.input)
            except Exception as error:
                answers.append(self.fail(item, f"{type(error).__name__}: {error}"))
            else:
                answers.append(self.complete(item, output))
        return answers

    def complete(self, item: Row, output: Any) -> Row:
        head = (item.run, item.step)
        if item.lease is not None:
            return self.db.row(
                "select s.* from pgflow.complete_ranges(%s, %s, %s, array[%s::int], array[%s::int], '{1}',"
                " array[%s::jsonb]) s",
                *(*head, self.worker, item.lease, item.index, Json([output])),
            )
        return self.db.row(
            "select s.* from pgflow.complete_tasks(%s, %s, array[%s::int], array[%s::jsonb], %s,"
            " array[%s::int], array[%s::bigint]) s",
            *(*head, item.index, Json(output), self.worker, item.attempt, item.msg_id),
        )

    def fail(self, item: Row, error: str) -> Row:
        head = (item.run, item.step)
        if item.lease is not None:
            return self.db.row(
                "select s.* from pgflow.fail_range_items(%s, %s, %s, array[%s::int], array[%s::int],"
                " array[%s], '{t}') s",
                *(*head, self.worker, item.lease, item.index, error),
            )
        return self.db.row(
            "select s.* from pgflow.fail_tasks(%s, %s, array[%s::int], array[%s], %s, array[%s::int], '{t}',"
            " array[%s::bigint]) s",
            *(*head, item.index, error, self.worker, item.attempt, item.msg_id),
        )

    def retry(self, **choice: Any) -> dict[str, Row]:
        """What ``retry_items`` did, by step; before it, the same is answered and nothing changed."""
        names = "".join(f", {name} => %s" for name in choice)
        rows = self.db.rows(f"select * from pgflow.retry_items(%s{names})", self.run, *choice.values())
        self.check()
        return {row.step_slug: row for row in rows}

    def check(self) -> None:
        problems = audit_run(self.db.conn, str(self.run))
        assert problems == []

    @property
    def status(self) -> str:
        return str(self.db.value("select status from pgflow.runs where run_id = %s", self.run))

    @property
    def output(self) -> Any:
        return self.db.value("select output from pgflow.runs where run_id = %s", self.run)


def begun(db: Db, steps: Sequence[Any], input: Any, handlers: Handlers, **options: Any) -> Repair:
    """A run of flow "f" of these steps, whose items have one attempt. storages, tolerated: see store().

    early: maps that do not wait for their parent.
    """
    storages, tolerated = options.pop("storages", {}), options.pop("tolerated", {})
    early = options.pop("early", ())
    flow(db, "f", *steps, **{"max_attempts": 1, **options})
    store(db, "f", storages, tolerated)
    db.do("update pgflow.step_policies set barrier = false where step_slug = any (%s)", list(early))
    hired(db)
    return Repair(db, start(db, "f", input), handlers)
