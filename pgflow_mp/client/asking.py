"""The methods of a client that read: runs, steps, items, failures, workers, flows, results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from pgflow_mp.client.calls import Calls, as_uuid
from pgflow_mp.client.run_handles import Run
from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.reads import documents
from pgflow_mp.observe import grouping
from pgflow_mp.observe.reports import FailureGroup


class Asking(Calls):
    """Reading what there is. Reports are plain data, as of the moment of the call."""

    def get_run(self, run_id: str) -> Run | None:
        """The run, or None if there is none with this id."""
        wanted = as_uuid(run_id)
        row = self._call(lambda conn: engine.get_run(conn, wanted)) if wanted is not None else None
        return self._handle(row) if row is not None else None

    def results(self, run: Run | str, step: str) -> Iterator[Any]:
        """Outputs of a step's completed tasks in index order, streamed; any size.

        Works while the step runs, too: then what is completed when it is passed is answered. Raises
        RunNotFound, and FlowNotFound for a step that the run does not have.
        """
        return (output for _, output in self.indexed_results(run, step))

    def indexed_results(self, run: Run | str, step: str) -> Iterator[tuple[int, Any]]:
        """Like :meth:`results`, as (task index, output)."""
        run_id = self._id(run)
        self._check_step(run_id, step)
        return self._indexed_results(run_id, step)

    def failures(
        self, run: Run | str, step: str | None = None, *, error: str | None = None
    ) -> list[FailureGroup]:
        """The failed items of a run, or a step, in groups of alike errors: those that failed a step first.

        Whatever their number, and also while the run goes on. ``error``: only those with this text in their
        error, or in the group's. Raises RunNotFound, and FlowNotFound for a step that the run does not have.
        """
        run_id = self._id(run)
        if step is not None:
            self._check_step(run_id, step)

        def read(conn: Connection) -> list[FailureGroup]:
            steps, whole = engine.run_progress(conn, run_id), grouping.WHOLE
            return grouping.read_failures(conn, run_id, steps, step=step, text=error, whole=whole).groups

        return self._call(read, long=True)

    def _indexed_results(self, run_id: str, step: str) -> Iterator[tuple[int, Any]]:
        with self._another() as keeper:
            for index, raw in documents.iter_results(keeper.connection(), run_id, step):
                yield index, None if raw is None else msgspec.json.decode(raw)
