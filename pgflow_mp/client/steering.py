"""The methods of a client that change what becomes of runs, flows and workers."""

from __future__ import annotations

from collections.abc import Iterable

from pgflow_mp.client.calls import Calls
from pgflow_mp.client.retried import Indexes, Retry, choice_of
from pgflow_mp.client.run_handles import Run
from pgflow_mp.db import engine
from pgflow_mp.db.retrying import retry_items
from pgflow_mp.errors import InputError


class Steering(Calls):
    """Cancelling and retrying, pausing and draining, removing."""

    def cancel(self, run: Run | str, reason: str = "Run cancelled") -> Run:
        """End a run as failed; tasks that run are stopped. A finished run stays as it is. RunNotFound."""
        run_id = self._id(run)
        return self._handle(self._call(lambda conn: engine.cancel_run(conn, run_id, reason), long=True))

    def retry_failed(self, run: Run | str) -> int:
        """Start a failed run again with what is not finished; how many tasks. Finished work is kept.

        Raises RunNotFound, and InputError for a run that has not failed.
        """
        run_id = self._id(run)
        status = self._found(run_id)
        if status != "failed":
            raise InputError(f"Run {run_id} is {status}, only a failed run can be retried")
        return self._call(lambda conn: engine.retry_failed_tasks(conn, run_id), long=True)

    def retry(
        self,
        run: Run | str,
        *,
        steps: str | Iterable[str] | None = None,
        indexes: Indexes | None = None,
        errors: str | Iterable[str] | None = None,
        dry_run: bool = False,
    ) -> Retry:
        """Try failed items of a run again, tolerated ones, too, whether it failed, is completed or goes on.

        Of these ``steps``, with these ``indexes``, with an error that contains one of these texts; all of
        them by default. Steps that were given such an item are computed again, as is what follows from them;
        a failed run goes on with what was not finished, too. Answers what was done, which is nothing if there
        is nothing to do; with ``dry_run`` what would be. Raises RunNotFound, FlowNotFound for an unknown
        step, and InputError if the run would fail again at once.
        """
        run_id, choice = self._id(run), choice_of(steps, indexes, errors)
        for step in choice.steps or ():
            self._check_step(run_id, step)
        found = self._call(lambda conn: retry_items(conn, run_id, choice, dry_run=dry_run), long=True)
        return Retry(run_id, tuple(found))
