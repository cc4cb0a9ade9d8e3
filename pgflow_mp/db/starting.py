"""Starting a run so that it may be tried twice, with errors for people."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from pgflow_mp.db import connection, definitions, engine, reusing, run_tags
from pgflow_mp.db.engine import Connection, RunRow
from pgflow_mp.db.pausing import When
from pgflow_mp.db.reusing import Reuse
from pgflow_mp.errors import WHY_NO_RUN, InputError, RunNotFound


def check_priority(priority: int) -> None:
    """Raise InputError for what the database has no room for."""
    if not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
        raise InputError(f"The priority of a run is a whole number of 32 bits, not {priority!r}")


def start_once(
    conn: Connection,
    flow_slug: str,
    input: bytes,
    run_id: str,
    *,
    priority: int = 0,
    tags: Sequence[str] = (),
    after: When | None = None,
    reuse: Reuse | None = None,
) -> RunRow:
    """Start a run with this id (a uuid) and input (raw JSON), or find the one that was started before.

    Among the runs of a flow, those of the highest ``priority`` are worked on first; ``reuse`` is what it
    takes from an earlier one. One that is started has these ``tags``, and nothing of it is claimed until
    ``after``. Raises FlowNotFound, and InputError for
    an input that the flow cannot take and for the id of a run of another flow.
    """
    check_priority(priority)
    tags = run_tags.check_tags(tags)
    known = engine.get_run(conn, run_id)
    if known is None:
        try:
            with run_tags.marking(conn, tags, after) as tag:
                if reuse is None:
                    engine.start_flow(conn, flow_slug, input, run_id, priority=priority)
                else:
                    reusing.start(conn, flow_slug, input, run_id, reuse, priority=priority)
                tag(run_id)
        except psycopg.errors.UniqueViolation:  # somebody was quicker
            pass
        except psycopg.errors.ForeignKeyViolation:
            raise definitions.no_flow(conn, flow_slug) from None
        except psycopg.Error as error:
            if connection.is_transient(error):
                raise
            text = (error.diag.message_primary or str(error)).strip()
            hint = error.diag.message_hint or ""
            raise InputError(f'Flow "{flow_slug}" cannot be started: {text}', hint=hint) from None
        known = engine.get_run(conn, run_id)
    if known is None:
        raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
    if known.flow_slug != flow_slug:
        raise InputError(
            f'Run {run_id} is one of flow "{known.flow_slug}", not of "{flow_slug}"',
            hint="Give another run_id.",
        )
    return known
