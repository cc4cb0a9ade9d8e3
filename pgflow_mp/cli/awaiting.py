"""start --wait: until the run has ended, whoever works on it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli.complaints import OK, TIMED_OUT
from pgflow_mp.cli.going_on import naming
from pgflow_mp.cli.parser import command

if TYPE_CHECKING:
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.client.client import Client

_LOOK: Final = 10.0
"""Seconds between two looks at whether any worker serves the run."""


def wait_for_run(
    database: OpenDatabase, run_id: str, flow_slug: str, work: str, timeout: float | None
) -> int:
    """Wait until the run has completed; TIMED_OUT after ``timeout`` seconds.

    ``work`` is the command that starts a worker for it. Raises RunFailed for a run that has failed
    or was cancelled, RunDeleted, and KeyboardInterrupt, all of which leave the run alone.
    """
    from pgflow_mp.client.client import Client
    from pgflow_mp.errors import DatabaseError, RunDeleted, RunNotFound, WaitTimeout

    end = None if timeout is None else time.monotonic() + timeout
    told = False
    look_at = command("status", run_id, *database.options)
    try:
        with naming(f"The run goes on. Look at it: {look_at}", DatabaseError), Client(database.dsn) as client:
            while True:
                if not told and (text := _unserved(client, run_id)):
                    print(f"note: {text}; the run waits for one: {work}", file=sys.stderr, flush=True)
                    told = True
                left = None if end is None else max(0.0, end - time.monotonic())
                look = left if told else _LOOK if left is None else min(_LOOK, left)
                try:
                    client.wait(run_id, look)
                except WaitTimeout:
                    if end is None or time.monotonic() < end:
                        continue
                    print(f"Run {run_id} has not ended, and goes on. Look at it: {look_at}", file=sys.stderr)
                    return TIMED_OUT
                return OK
    except RunNotFound:
        raise RunDeleted(run_id, flow_slug) from None
    except KeyboardInterrupt:
        print(f"Run {run_id} goes on without this command.", file=sys.stderr)
        raise


def _unserved(client: Client, run_id: str) -> str:
    """That no worker serves the run, in words; nothing where one does, or nobody need yet."""
    import psycopg

    from pgflow_mp.observe.read_reports import read_run
    from pgflow_mp.observe.wording import no_worker

    try:
        run = client._call(lambda conn: read_run(conn, run_id))
    except psycopg.errors.InsufficientPrivilege:
        return ""
    if run is None or run.state == "paused" or not run.unserved:
        return ""
    return no_worker(run.unserved, run.lacking)
