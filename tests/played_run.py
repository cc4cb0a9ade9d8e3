"""A run that is played at random, in either storage, by workers that may die and people who retry."""

from __future__ import annotations

import json
import random
import uuid
from collections import Counter
from typing import Any, NamedTuple

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.observe.run_reports import ItemCounts

ITEMS = 14
WORKERS = [str(uuid.UUID(int=n)) for n in (1, 2)]


class Held(NamedTuple):
    """An item in the hands of a worker; ``lease`` of one in a range, ``attempt`` of a task."""

    step: str
    item: int
    worker: str
    attempt: int
    lease: int | None


class Played:
    """Maps "a", "b" over it, "c" beside it, which may be skipped; "s" at the end. Some may fail."""

    def __init__(self, conn: Connection, storage: str, seed: int) -> None:
        self.conn, self.random, self.flow = conn, random.Random(seed), f"played_{storage}"
        conn.execute("select pgflow.create_flow(%s, max_attempts => 3, base_delay => 30)", (self.flow,))
        for slug, deps, options in (
            ("a", [], {}),
            ("b", ["a"], {}),
            ("c", [], {"when_exhausted": self.random.choice(["fail", "skip", "skip-cascade"])}),
            ("s", ["b", "c"], {"step_type": "single"}),
        ):
            given = {"step_type": "map", **options}
            names = "".join(f", {name} => %s" for name in given)
            conn.execute(
                f"select pgflow.add_step(%s, %s, %s::text[]{names})".encode(),
                (self.flow, slug, deps, *given.values()),
            )
        alike = self.random.choice([None, None, 2, 4])
        for slug, tolerated in (("a", 3), ("b", 1), ("c", 1)):
            conn.execute(
                "select pgflow.set_step_policy(%s, %s, storage => %s, tolerated_failures => %s::int,"
                " stop_after_alike => %s::int)",
                (self.flow, slug, storage, tolerated, alike),
            )
        for worker in WORKERS:
            engine.register_worker(conn, worker, self.flow, "player", 3600)
        self.run = engine.start_flow(conn, self.flow, json.dumps([*range(ITEMS)]).encode())
        self.held: list[Held] = []

    def play(self) -> str:
        """Do something; what it was."""
        moves = (
            ["claim"] * 6
            + ["complete"] * 6
            + ["fail"] * 3
            + ["due"] * 2
            + ["release", "die", "again", "stall"]
        )
        move = self.random.choice(moves)
        getattr(self, move)()
        return move

    def claim(self) -> None:
        worker, items = self.random.choice(WORKERS), self.random.randint(1, 9)
        rows = self.conn.execute(
            "select step_slug, task_index, attempt, items, msg_id from"
            " pgflow.claim_work(%s, %s::uuid, %s::int, %s::int)",
            (self.flow, worker, items, items),
        ).fetchall()
        for step, first, attempt, count, message in rows:
            if count is None or message is None:
                for index in range(first, first + (count or 1)):
                    self.held.append(Held(step, index, worker, attempt, None if count is None else attempt))

    def _taken(self) -> list[Held]:
        taken = self.random.sample(self.held, min(len(self.held), self.random.randint(1, 4)))
        self.held = [held for held in self.held if held not in taken]
        return taken

    def complete(self) -> None:
        for held in self._taken():
            if held.lease is not None:
                self.conn.execute(
                    "select pgflow.complete_ranges(%s::uuid, %s, %s::uuid, %s::int[], %s::int[], %s::int[],"
                    " array['[1]'::jsonb])",
                    (self.run, held.step, held.worker, [held.lease], [held.item], [1]),
                )
            else:
                self.conn.execute(
                    "select pgflow.complete_tasks(%s::uuid, %s, %s::int[], array['1'::jsonb], %s::uuid,"
                    " %s::int[])",
                    (self.run, held.step, [held.item], held.worker, [held.attempt]),
                )

    def fail(self) -> None:
        permanent = self.random.random() < 0.25
        for held in self._taken():
            if held.lease is not None:
                self.conn.execute(
                    "select pgflow.fail_range_items(%s::uuid, %s, %s::uuid, %s::int[], %s::int[], %s::text[],"
                    " %s::boolean[])",
                    (self.run, held.step, held.worker, [held.lease], [held.item], ["boom"], [permanent]),
                )
            else:
                engine.fail_tasks(
                    self.conn,
                    self.run,
                    held.step,
                    [held.item],
                    ["boom"],
                    held.worker,
                    [held.attempt],
                    [permanent],
                )

    def due(self) -> None:
        """What waits for its retry is due."""
        self.conn.execute(f"update pgmq.q_{self.flow} set vt = clock_timestamp() where read_ct = 0".encode())
        self.conn.execute(
            f"update pgmq.q_{self.flow} q set vt = clock_timestamp() from pgflow.step_tasks t"
            " where t.message_id = q.msg_id and t.queue_name = %s and t.status = 'queued'".encode(),
            (self.flow,),
        )

    def release(self) -> None:
        for held in self._taken():
            if held.lease is not None:
                self.conn.execute(
                    "select pgflow.release_ranges(%s::uuid, %s, %s::uuid, %s::int[], %s::int[], %s::int[])",
                    (self.run, held.step, held.worker, [held.lease], [held.item], [1]),
                )
            else:
                messages = self.conn.execute(
                    "select message_id from pgflow.step_tasks where run_id = %s::uuid and step_slug = %s"
                    " and task_index = %s",
                    (self.run, held.step, held.item),
                ).fetchall()
                engine.release_tasks(self.conn, self.flow, held.worker, [m for (m,) in messages])

    def stall(self) -> None:
        """Nothing is heard of one: it is queued again, and the attempt charged."""
        for held in self._taken()[:1]:
            if held.lease is not None:
                self.held.append(held)  # a range is its worker's as long as that lives
                continue
            self.conn.execute(
                "update pgflow.step_tasks set queued_at = queued_at - interval '1 hour',"
                " started_at = started_at - interval '1 hour', lease_until = null"
                " where run_id = %s::uuid and step_slug = %s and task_index = %s",
                (self.run, held.step, held.item),
            )
            self.conn.execute("select pgflow.requeue_stalled_tasks()")

    def die(self) -> None:
        """A worker dies and is taken over from; then there is another one of its name."""
        worker = self.random.choice(WORKERS)
        self.conn.execute(
            "update pgflow.workers set last_heartbeat_at = now() - interval '2 hours' where worker_id = %s",
            (worker,),
        )
        self.conn.execute(
            "select pgflow.recover_workers(array[worker_id], array[last_heartbeat_at]) from pgflow.workers"
            " where worker_id = %s",
            (worker,),
        )
        self.held = [held for held in self.held if held.worker != worker]
        engine.register_worker(self.conn, worker, self.flow, "player", 3600)

    def again(self) -> None:
        """Once a run has ended it is tried again, some way; else it is cancelled, now and then."""
        status = engine.run_status(self.conn, self.run)
        if status == "started":
            if self.random.random() < 0.3:
                engine.cancel_run(self.conn, self.run)
        elif status == "failed" and self.random.random() < 0.5:
            engine.retry_failed_tasks(self.conn, self.run)
        else:
            self.conn.execute("select pgflow.retry_items(%s::uuid)", (self.run,))


def counted(conn: Connection, run: str) -> dict[str, ItemCounts]:
    """What the rows say, of each step that has started: the view of items, and when tasks are due."""
    found: dict[str, Counter[str]] = {
        slug: Counter()
        for (slug,) in conn.execute(
            "select step_slug from pgflow.step_states where run_id = %s::uuid and started_at is not null",
            (run,),
        ).fetchall()
    }
    flow: Any = conn.execute(
        "select lower(flow_slug) from pgflow.runs where run_id = %s::uuid", (run,)
    ).fetchone()
    rows = conn.execute(
        "select i.step_slug, i.status, i.attempts, coalesce(q.vt > clock_timestamp(), false), ss.status"
        " from pgflow.items i join pgflow.step_states ss using (run_id, step_slug)"
        " left join pgflow.step_tasks t"
        "   on t.run_id = i.run_id and t.step_slug = i.step_slug and t.task_index = i.item_index"
        f" left join pgmq.q_{flow[0]} q on q.msg_id = t.message_id"
        " where i.run_id = %s::uuid".encode(),
        (run,),
    ).fetchall()
    for step, status, attempts, later, step_status in rows:
        counts = found[step]
        counts["items"] += 1
        counts["attempts"] += attempts
        waits = status == "queued" and attempts and later
        counts["waiting" if waits else "running" if status == "started" else status] += 1
        if status == "failed" and step_status in ("started", "completed"):
            counts["tolerated"] += 1
    return {step: ItemCounts(**counts) for step, counts in found.items()}
