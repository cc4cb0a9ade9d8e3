"""The thread that claims: one round trip for a batch of tasks, and an ear for announcements of work."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

import psycopg

from pgflow_mp.db import claiming, engine, item_ranges
from pgflow_mp.db.engine import ClaimedTask, Connection, OwnRun
from pgflow_mp.db.hints import REST, Hints
from pgflow_mp.db.item_ranges import ClaimedWork, ElementPage
from pgflow_mp.db.keeper import first_line
from pgflow_mp.executors.messages import Item
from pgflow_mp.worker.batches import Batch
from pgflow_mp.worker.chunks import Stretch
from pgflow_mp.worker.database_thread import DatabaseThread
from pgflow_mp.worker.inbox import Claimed, ClaimFailed, ClaimLost, Said, WorkHinted
from pgflow_mp.worker.planner import ClaimRequest
from pgflow_mp.worker.ranges import RangeBatch, as_batch, gaps, without_stale
from pgflow_mp.worker.sharing import Sharing
from pgflow_mp.worker.strangers import Strangers

_THRIFTY: Final = 30.0  # seconds
_NO_ROOM: Final = "there is no memory for what a claim got: that goes back, and less is claimed for a while"


def make_batch(flow: str, worker_id: str, tasks: list[ClaimedTask], lease: int | None, now: float) -> Batch:
    """The tasks of one claim as a batch."""
    runs: dict[str, int] = {}
    steps: dict[str, int] = {}
    timeouts: list[float | None] = []
    items: list[Item] = []
    size, longest = 0, 0
    last_run = last_step = None
    run = step = 0
    for run_id, step_slug, index, msg_id, attempt, body, flow_input, timeout, _, paged in tasks:
        if run_id != last_run:
            run, last_run = runs.setdefault(run_id, len(runs)), run_id
        if step_slug != last_step:
            step, last_step = steps.setdefault(step_slug, len(steps)), step_slug
            if step == len(timeouts):
                timeouts.append(float(timeout))
                longest = max(longest, timeout)
        size += len(body)
        if flow_input is not None:
            size += len(flow_input)
        items.append(Item(index, attempt, msg_id, run, step, body, flow_input, paged))
    return Batch(
        flow, worker_id, list(runs), list(steps), timeouts, items, float(lease or longest + 2), now, size
    )


class ClaimedRanges(NamedTuple):
    """What a claim got of maps in ranges; of the items of ``pageless`` the elements are nowhere."""

    pages: list[ElementPage]
    batches: list[RangeBatch]
    pageless: list[RangeBatch]


def make_ranges(
    conn: Connection, flow: str, worker_id: str, work: ClaimedWork, known: Sequence[ElementPage]
) -> ClaimedRanges:
    """The leases of one claim, and the pages that they lie in; those that are ``known`` were not sent.

    What should be missing is asked for.
    """
    pages: dict[tuple[str, str], list[ElementPage]] = {}
    for page in (*known, *work.pages):
        pages.setdefault((page.run_id, page.step_slug), []).append(page)
    pages = {of: without_stale(there) for of, there in pages.items()}
    used: dict[int, ElementPage] = {}
    ranges = ClaimedRanges([], [], [])
    for lease in work.leases:
        first, end = lease.first_index, lease.first_index + lease.items
        batch = as_batch(flow, worker_id, lease, pages.get((lease.run_id, lease.step_slug), ()))
        batches = [batch]
        if gaps(batch.pages, first, end):
            found = item_ranges.range_pages(conn, lease.run_id, lease.step_slug, first, lease.items)
            batch = as_batch(flow, worker_id, lease, found)
            missing = [(a - first, b - first) for a, b in gaps(batch.pages, first, end)]
            batches = batch.parts(_others(missing, len(batch)))
            ranges.pageless.extend(batch.parts(missing))
        used.update((page.page_id, page) for page in batch.pages)
        ranges.batches.extend(batches)
    ranges.pages.extend(used.values())
    return ranges


def _others(stretches: Sequence[Stretch], end: int) -> list[Stretch]:
    """What lies between these stretches of 0..end-1, which are in order."""
    firsts, ends = [0, *(end for _, end in stretches)], [*(first for first, _ in stretches), end]
    return [(a, b) for a, b in zip(firsts, ends, strict=True) if a < b]


class _Thrift:
    """How much less is claimed from queues for a while after answers that there was no memory for."""

    def __init__(self) -> None:
        self._queues: dict[str, tuple[float, int]] = {}  # until when, what items are divided by

    def no_room(self, queue: str, now: float) -> None:
        """There was none."""
        _, before = self._queues.get(queue, (0.0, 4))
        self._queues[queue] = (now + _THRIFTY, min(4 * before, 1 << 16))

    def cut(self, request: ClaimRequest, now: float) -> tuple[ClaimRequest, bool]:
        """What is claimed for it, and whether sparingly."""
        until, divisor = self._queues.get(request.queue, (0.0, 1))
        if now >= until:
            self._queues.pop(request.queue, None)
            return request, False
        return replace(request, items=-(-request.items // divisor)), True


class Claimer(DatabaseThread):
    """Claims on a connection of its own, and listens there for announcements of work in flows.

    ``steps`` are those whose work is ours, by flow: what there is of others is left to others. The work of
    our ``own`` run comes first.

    A worker id that it has not used before is registered first. At most one request is under way; its
    answer, Claimed, ClaimFailed or ClaimLost, goes to ``post``, also if the thread is to stop meanwhile.

    Threads: the main loop calls request(), which touches ``_requests`` (a deque that one side appends to and
    the other pops), and what a DatabaseThread has for others. All else is the thread's own.
    """

    who = "claim"
    longest_pause = 10.0
    _hints: Hints

    def __init__(
        self,
        dsn: str,
        post: Callable[[Any], None],
        *,
        worker_name: str,
        dead_after: float,
        lease: int | None,
        steps: Mapping[str, Collection[str]],
        labels: Sequence[str] = (),
        own: OwnRun | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        super().__init__(dsn, post)
        self._own = own
        self._sharing = sharing or Sharing()
        self._flows = {flow.encode(): flow for flow in steps}
        self._strangers = Strangers(steps, lambda text: post(Said("warn", text)))
        self._worker_name = worker_name
        self._dead_after = dead_after
        self._lease = lease
        self._labels = labels
        self._registered: set[str] = set()
        self._queue_missed: set[str] = set()
        self._requests: deque[ClaimRequest] = deque()
        self._thrift = _Thrift()

    def request(self, request: ClaimRequest) -> None:
        """Claim soon."""
        self._requests.append(request)
        self.wake()

    def _prepare(self, conn: Connection) -> None:
        self._hints = Hints(conn, "pgflow_work", lambda slug: slug if slug in self._flows else None)

    def _passes(self, error: BaseException) -> bool:
        """What is claimed next may be other tasks."""
        return claiming.concerns_data(error) or super()._passes(error)

    def _serve(self, conn: Connection) -> None:
        self._keeper.worked()  # it listens, which a standby does not
        rested = 0.0
        while not self._stopping.is_set():
            if self._requests:
                self._claim(conn, self._requests.popleft())
                self._pass_on()
                continue
            rest = rested - time.monotonic()
            if rest > 0:
                self._wakeup.wait(rest)
            elif self._wakeup.wait(30.0, conn.fileno()):
                self._pass_on()
                rested = time.monotonic() + REST

    def _claim(self, conn: Connection, request: ClaimRequest) -> None:
        flow, queue, worker_id = request.flow, request.queue, request.worker_id
        started = time.monotonic()
        request, sparing = self._thrift.cut(request, started)
        is_made = False
        try:
            if worker_id not in self._registered:
                self.register(conn, worker_id, queue)
                self._registered.add(worker_id)
            work = claiming.claim(
                conn,
                flow,
                worker_id,
                request.quantity,
                self._lease,
                items=request.items,
                known=[page.page_id for page in request.pages],
                sparing=sparing,
                but_steps=self._strangers.of(flow),
                usable=request.usable,
                own=self._own,
                early=self._sharing.is_any_shared(),
            )
            is_made = True
            self._sharing.note(work.leases)
            work = self._strangers.hand_back(conn, flow, worker_id, work)
            work, refused = claiming.read_inputs(conn, work)
            ranges = make_ranges(conn, flow, worker_id, work, request.pages)
        except psycopg.errors.ForeignKeyViolation:  # our row in the registry is gone
            self._registered.discard(worker_id)
            self._post(ClaimFailed(queue, worker_id))
            return
        except psycopg.errors.UndefinedTable:  # the flow is being deleted; if it is not, the next claim tells
            if queue in self._queue_missed:
                raise
            self._queue_missed.add(queue)
            self._post(ClaimFailed(queue, worker_id))
            return
        except BaseException as error:
            if is_made or not claiming.is_undone(error):
                self._post(ClaimLost(queue, worker_id))
            else:
                self._post(ClaimFailed(queue, worker_id))
            if claiming.found_no_room(error):
                self._thrift.no_room(queue, time.monotonic())
                self._post(Said("error", _NO_ROOM))
            elif claiming.concerns_data(error):
                self._post(Said("error", f"a claim failed, which is tried again: {first_line(error)}"))
            raise
        self._queue_missed.discard(queue)
        now = time.monotonic()
        condemned, tasks = None, work.tasks
        if tasks and any(task.deaths is not None for task in tasks):
            deaths = {task.msg_id: task.deaths for task in tasks if task.deaths is not None}
            condemned = make_batch(
                flow, worker_id, [task for task in tasks if task.msg_id in deaths], self._lease, started
            )
            condemned.deaths = deaths
            tasks = [task for task in tasks if task.msg_id not in deaths]
        batch = make_batch(flow, worker_id, tasks, self._lease, started) if tasks else None
        self._post(
            Claimed(
                flow,
                queue,
                worker_id,
                batch,
                request,
                now - started,
                condemned,
                refused,
                ranges.batches,
                ranges.pages,
                ranges.pageless,
                work.limited,
            )
        )

    def register(self, conn: Connection, worker_id: str, queue: str | None) -> None:
        """Write the row of a worker id, or write it again if somebody deleted it; not of one given up."""
        if queue is not None:
            engine.register_worker(conn, worker_id, queue, self._worker_name, self._dead_after, self._labels)

    def _pass_on(self) -> None:
        if self._hints.read():
            heard = self._hints.take()
            for slug, flow in self._flows.items():
                if heard is None or slug in heard:
                    self._post(WorkHinted(flow))
