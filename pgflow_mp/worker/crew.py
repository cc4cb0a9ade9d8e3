"""The worker's threads, each with a connection of its own: for claims, records, signs of life, upkeep.

They tell the main loop what happens through ``post``, and are told what to do by its thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pgflow_mp.db.engine import Connection, OwnRun
from pgflow_mp.worker.claim import Claimer
from pgflow_mp.worker.database_thread import DatabaseThread
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.heartbeat import Heartbeat, Upkeep
from pgflow_mp.worker.identities import Identities
from pgflow_mp.worker.pulse import Pulse, PulseWatch
from pgflow_mp.worker.reporting import Reporter, WorkerFacts
from pgflow_mp.worker.retention import Retention
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.settle import Settler
from pgflow_mp.worker.sharing import Sharing
from pgflow_mp.worker.stack_answers import StackAnswers
from pgflow_mp.worker.startup import Policies


@dataclass(frozen=True, slots=True)
class Crew:
    """All of them."""

    claimer: Claimer
    settler: Settler
    heartbeat: Heartbeat
    upkeep: Upkeep
    retention: Retention | None
    pulse: Pulse
    """The main loop's."""

    @property
    def watchers(self) -> list[DatabaseThread]:
        """Those that move no items: they are stopped last."""
        watchers: list[DatabaseThread] = [self.heartbeat, self.upkeep]
        return watchers if self.retention is None else [*watchers, self.retention]

    def start(self) -> None:
        """Start the threads."""
        for thread in (self.claimer, self.settler, *self.watchers):
            thread.start()


def hire(
    settings: WorkerSettings,
    post: Callable[[Any], None],
    steps: Mapping[str, Collection[str]],
    identities: Identities,
    dispatcher: Dispatcher,
    run_id: str | None,
    policies: Callable[[Connection], Policies],
    facts: WorkerFacts | None = None,
    *,
    details: bool = False,
    executor: object = None,
) -> Crew:
    """A crew for a worker of these flows; not started yet. ``run_id`` is the run that it serves, if any.

    ``steps`` are those whose work is ours, by flow; ``policies`` reads their retry options. ``facts`` are
    what the database is told of us; None: it is told nothing. ``details``: somebody watches the run.
    ``executor`` is asked where its code is.
    """
    served = list(steps)
    sharing = Sharing()
    claimer = Claimer(
        settings.dsn,
        post,
        worker_name=settings.worker_name,
        dead_after=settings.dead_after,
        lease=settings.visibility_timeout,
        steps=steps,
        labels=settings.labels,
        own=None if run_id is None else OwnRun(run_id, settings.only),
        sharing=sharing,
    )

    def beating() -> Sequence[str]:
        return identities.beating

    answers = StackAnswers(executor, beating)
    upkeep = Upkeep(
        settings.dsn,
        post,
        run_id=run_id,
        details=details,
        reporter=None if facts is None else Reporter(facts, beating),
        answers=answers,
        worker_ids=beating,
        policies=policies,
    )
    answers.wake = upkeep.wake
    pulse = Pulse("the main loop")
    settler = Settler(settings.dsn, post, linger=settings.linger, is_shared=sharing.is_shared)
    return Crew(
        claimer,
        settler,
        Heartbeat(
            settings.dsn,
            post,
            interval=settings.heartbeat_interval,
            worker_ids=beating,
            held=dispatcher,
            register=lambda conn, worker_id: claimer.register(
                conn, worker_id, identities.queue_of(worker_id)
            ),
            watch=PulseWatch((pulse, settler.pulse), settings.dead_after / 3),
        ),
        upkeep,
        None
        if settings.keep is None
        else Retention(
            settings.dsn, post, keep=settings.keep, flows=served, beside=settings.artifacts_beside
        ),
        pulse,
    )
