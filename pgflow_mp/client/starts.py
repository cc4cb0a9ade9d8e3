"""The methods of a client that start runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack, overload

import psycopg

from pgflow_mp.client import feeding_items, keyed_runs
from pgflow_mp.client.calls import Calls, new_id
from pgflow_mp.client.reuse import reuse_of
from pgflow_mp.client.run_handles import Run
from pgflow_mp.db import jobs
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.pausing import When, check_when
from pgflow_mp.db.starting import start_once
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading import reentry
from pgflow_mp.values.inputs import encode_input

if TYPE_CHECKING:
    from pgflow_mp.client.arguments import FlowOf, StartArguments, StartFlowArguments
    from pgflow_mp.flows.typed import Input, StepLike, T


class Starts(Calls):
    """Starting runs, and plain background jobs."""

    @overload
    def start_flow(
        self, flow: Flow[Input], /, input: Input, run_id: str | None = None, **how: Unpack[StartFlowArguments]
    ) -> Run: ...

    @overload
    def start_flow(
        self, slug: str, input: object, run_id: str | None = None, **how: Unpack[StartFlowArguments]
    ) -> Run: ...

    def start_flow(
        self,
        slug: str | Flow[Any],
        input: object,
        run_id: str | None = None,
        *,
        priority: int = 0,
        tags: Sequence[str] = (),
        after: When | None = None,
        key: str | None = None,
        from_run: str | None = None,
        reuse: Sequence[StepLike] = (),
    ) -> Run:
        """Start a run of a flow, or of that of a slug, with ``input``, anything that a handler could return.

        A Flow that the database does not know is made known to it; type checkers compare its input. Among
        the runs of a flow, those of the highest ``priority`` are worked on first; by its ``tags`` a run is
        found again. Nothing of it is worked on before ``after``, a time (in our zone where it has none), or
        how long from now. With a ``run_id`` of your own, or a ``key``, a name among the runs of the flow,
        starting twice starts once; the run is answered as it is. Raises FlowNotFound, InputError, also where
        the run of the key was given another input. What ``from_run``, an earlier run, has finished of the
        steps in ``reuse`` is taken instead of done again where the input is the same.
        """
        reentry.refuse("start_flow()", in_handlers=False)
        flow, taken = slug, reuse_of(slug, from_run, reuse, key)
        encoded = encode_input(input, nulls=isinstance(flow, Flow) and flow.nulls)
        later = check_when(after, "after")
        keyed_runs.check_name(key, run_id)
        wanted = new_id(run_id)
        if isinstance(flow, Flow):
            slug, known = flow.slug, flow
            self._call(lambda conn: _make_known(conn, known))
        else:
            slug = flow
        if key is not None:
            found = self._call(
                lambda conn: keyed_runs.start_value(
                    conn, slug, encoded, key, priority=priority, tags=tags, after=later
                ),
                long=True,
            )
            return self._handle(found.run)
        row = self._call(
            lambda conn: start_once(
                conn, slug, encoded, wanted, priority=priority, tags=tags, after=later, reuse=taken
            ),
            long=True,
        )
        return self._handle(row)

    @overload
    def start(
        self,
        flow: FlowOf[T],
        items: Iterable[T] | AsyncIterable[T],
        **how: Unpack[StartArguments],
    ) -> Run: ...

    @overload
    def start(
        self,
        flow: Flow[Input],
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object],
        **how: Unpack[StartArguments],
    ) -> Run: ...

    @overload
    def start(
        self,
        flow: str,
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object] | None = None,
        **how: Unpack[StartArguments],
    ) -> Run: ...

    def start(
        self,
        flow: Flow[Any] | str,
        items: Iterable[object] | AsyncIterable[object],
        *,
        params: Mapping[str, object] | None = None,
        run_id: str | None = None,
        priority: int = 0,
        tags: Sequence[str] = (),
        after: When | None = None,
        key: str | None = None,
        from_run: str | None = None,
        reuse: Sequence[StepLike] = (),
    ) -> Run:
        """Start a run over ``items``, of which there may be any number: an iterable, or an async iterator.

        They are drawn and stored page by page, in constant memory, and nobody sees them before all are there.
        ``params`` is what other steps read as the run's input. Otherwise like :meth:`start_flow`; raises what
        drawing the items raises, too, and then nothing was started. A Flow that the database does not know is
        made known to it. Where there is a run with the ``key``, they are drawn to be compared.
        """
        reentry.refuse("start()", in_handlers=False)
        keyed_runs.check_name(key, run_id)
        wanted, taken = new_id(run_id), reuse_of(flow, from_run, reuse, key)
        later = check_when(after, "after")
        encoded = encode_input(params or {}, nulls=isinstance(flow, Flow) and flow.nulls)
        with self._another() as keeper:
            if isinstance(flow, Flow):
                known = flow
                keeper.call(lambda conn: _make_known(conn, known))
            found = feeding_items.start_with(
                keeper, flow, items, encoded, wanted, priority, key, taken, tags=tags, after=later
            )
            return self._handle(found.run)

    def enqueue(self, queue: str, payload: object, *, delay: float = 0) -> int:
        """Give a :class:`QueueWorker` a job; the id of its message. The queue is made if there is none.

        ``payload`` is anything that a handler could return. The job is seen after ``delay`` seconds. Raises
        InputError, and ConfigError for what is not the name of a queue, or that of a queue of a flow.
        """
        return self.enqueue_many(queue, [payload], delay=delay)[0]

    def enqueue_many(self, queue: str, payloads: Iterable[object], *, delay: float = 0) -> list[int]:
        """Like :meth:`enqueue` for many jobs, all or none of them, in one round trip."""
        reentry.refuse("enqueue()", in_handlers=False)
        name, encoded = jobs.check_queue(queue), [encode_input(payload) for payload in payloads]
        wait = jobs.check_delay(delay)
        if not encoded:
            return []

        def send(conn: Connection) -> list[int]:
            jobs.create_queue(conn, name)
            return jobs.send(conn, name, encoded, wait)

        return self._call(send, long=True)


def _make_known(conn: Connection, flow: Flow) -> None:
    """Create the flow where there is none of its slug, and our role may."""
    with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
        query = "select 1 from pgflow.flows where flow_slug = %s"
        if conn.execute(query, (flow.slug,)).fetchone() is None:
            keyed_runs.ensure_flow(conn, flow, "check")
