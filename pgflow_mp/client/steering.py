"""The methods of a client that change what becomes of runs, flows and workers."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pgflow_mp.client.calls import Calls
from pgflow_mp.client.retried import Indexes, Retry, choice_of
from pgflow_mp.client.run_handles import Run
from pgflow_mp.db import draining, engine, pausing, pruning
from pgflow_mp.db.draining import Drained
from pgflow_mp.db.pausing import When, check_when
from pgflow_mp.db.pruning import Pruned
from pgflow_mp.db.reads import runs
from pgflow_mp.db.retrying import retry_items
from pgflow_mp.errors import ArtifactError, InputError
from pgflow_mp.worker.artifact_removal import remove_leftovers, unreachable_text

_LONGEST: Final = 36_500 * 86_400  # seconds, a hundred years


if TYPE_CHECKING:
    from pgflow_mp.flows.typed import StepLike


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
        steps: StepLike | Iterable[StepLike] | None = None,
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
        run_id = self._id(run)
        slugs = None if steps is None else self._slugs_of(run, steps)
        choice = choice_of(slugs, indexes, errors)
        for step in choice.steps or ():
            self._check_step(run_id, step)
        found = self._call(lambda conn: retry_items(conn, run_id, choice, dry_run=dry_run), long=True)
        return Retry(run_id, tuple(found))

    def pause(
        self,
        run: Run | str | None = None,
        *,
        flow: str | None = None,
        reason: str | None = None,
        until: When | None = None,
    ) -> bool:
        """Let workers claim nothing more of a run, or of a flow with all its runs; whether that is new.

        Until they are resumed, or ``until`` a time, or for so long. What is being worked on ends and is
        recorded; runs can still be started, and wait. Raises RunNotFound, FlowNotFound, and InputError for a
        run that has ended, and a time that has passed.
        """
        end = check_when(until, "until")
        run_id = self._one(run, flow, "pause")
        if run_id is None:
            return self._call(lambda conn: pausing.pause_flow(conn, str(flow), reason, end))
        return self._call(lambda conn: pausing.pause_run(conn, run_id, reason, end))

    def resume(self, run: Run | str | None = None, *, flow: str | None = None) -> bool:
        """Let workers go on with a run, or a flow, that was paused; whether it was.

        A run whose flow is paused, too, waits for that. Raises RunNotFound, FlowNotFound.
        """
        run_id = self._one(run, flow, "resume")
        if run_id is None:
            return self._call(lambda conn: pausing.resume_flow(conn, str(flow)))
        return self._call(lambda conn: pausing.resume_run(conn, run_id))

    def drain(self, *, flow: str | None = None, worker: str | None = None) -> list[Drained]:
        """Have workers claim nothing more, end what they run, and stop; those that did not drain yet.

        All that serve a flow, or the one with this name (host:pid, or its ``--name``) or id. A worker is a
        process, and stops with all that it serves. Raises FlowNotFound, and InputError without either.
        """
        if flow is None and worker is None:
            raise InputError("Which workers?", hint="Name them: drain(flow=...) or drain(worker=...)")
        return self._call(lambda conn: draining.drain_workers(conn, flow, worker))

    def delete(self, run: Run | str | None = None, *, flow: str | None = None) -> None:
        """Remove a run that has ended, or a flow with all its runs, and everything of them, artifacts too.

        Raises RunNotFound, FlowNotFound, InputError for a run that goes on, and ArtifactError where
        artifacts of it cannot be reached from here; the rest is gone then.
        """
        run_id = self._one(run, flow, "delete")
        if run_id is None:
            self._call(lambda conn: pruning.delete_flow(conn, str(flow)), long=True)
            of_flow = str(flow)
        else:
            known = self._run(run_id)
            if known.status == "started" and known.refresh().status == "started":
                raise InputError(
                    f"Run {run_id} is started, only a run that has ended can be removed",
                    hint="Cancel it first.",
                )
            of_flow = known.flow_slug
            self._call(lambda conn: pruning.remove_run(conn, run_id), long=True)
        self._remove_artifacts([of_flow])

    def prune(self, keep: timedelta | float, *, flow: str | None = None) -> Pruned:
        """Remove runs that ended longer ago than ``keep`` (seconds, or a timedelta), of a flow or of all.

        With their items, results, messages and artifacts, a short transaction at a time: workers go on
        meanwhile. Answers how many runs, and rows of what belonged to them. Raises FlowNotFound, InputError,
        and ArtifactError as :meth:`delete`.
        """
        seconds = keep.total_seconds() if isinstance(keep, timedelta) else keep
        if not isinstance(seconds, int | float) or not 0 <= seconds <= _LONGEST:
            raise InputError(
                f"keep must be from 0 to {_LONGEST:,} seconds, not {keep!r}",
                hint="A timedelta does, too: timedelta(days=30)",
            )
        flows = None if flow is None else [flow]
        if flow is not None:
            self._call(lambda conn: runs.check_flow(conn, flow))
        with self._another() as keeper:  # it lasts, and others need not wait
            done = pruning.prune(keeper.connection(), seconds, flows)
        self._remove_artifacts(flows)
        return done

    def _one(self, run: Run | str | None, flow: str | None, verb: str) -> str | None:
        """The id of the run that is meant; None for the flow. Raises InputError, RunNotFound."""
        if (run is None) == (flow is None):
            raise InputError("A run or a flow?", hint=f"Name one of them: {verb}(run_id) or {verb}(flow=...)")
        return None if run is None else self._id(run)

    def _remove_artifacts(self, flows: list[str] | None) -> None:
        beside = self._artifacts()
        left = self._call(lambda conn: remove_leftovers(conn, flows, beside), long=True).unreachable
        if left:
            raise ArtifactError("; ".join(unreachable_text(*each) for each in left.items()))
