"""Turns of those who install: one at a time, as advisory locks tell it.

Any role that can log in may take any advisory lock, and keep it. So only those are waited for who could
install themselves: superusers, members of the role that asks, roles that may create in the database.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final, LiteralString

import psycopg

logger = logging.getLogger("pgflow_mp")

_PAUSE: Final = 0.05
_SILENCE: Final = 2.0  # seconds after which it is said what we wait for

_HOLDERS: Final[LiteralString] = """
select a.pid, a.usename, pg_catalog.bool_or(
  pg_catalog.pg_has_role(a.usesysid, current_user, 'usage')
  or pg_catalog.has_database_privilege(a.usesysid, current_database(), 'create')
)
from pg_catalog.pg_locks l
join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'advisory' and l.granted and l.objsubid = 1
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
  and l.classid = (%(key)s::bigint >> 32)::oid and l.objid = (%(key)s::bigint & 4294967295)::oid
  and a.pid <> pg_catalog.pg_backend_pid()
group by 1, 2
order by 1
"""


def take(conn: psycopg.Connection[tuple[Any, ...]], key: int, *, transaction: bool) -> bool:
    """Take the lock, to the end of the transaction or of the session; wait for others who install.

    False where only roles that cannot install hold it: go on without.
    """
    attempt: LiteralString = (
        "select pg_catalog.pg_try_advisory_xact_lock(%s)"
        if transaction
        else "select pg_catalog.pg_try_advisory_lock(%s)"
    )
    began, told = time.monotonic(), False
    while conn.execute(attempt, (key,)).fetchone() != (True,):
        conn.execute("select pg_catalog.pg_stat_clear_snapshot()")
        holders = conn.execute(_HOLDERS, {"key": key}).fetchall()
        names = ", ".join(f"{name} (pid {pid})" for pid, name, _ in holders)
        if holders and not any(entitled for _, _, entitled in holders):
            logger.warning(
                "not waiting for the lock of installations, whose holder may not install: %s", names
            )
            return False
        if holders and not told and time.monotonic() - began > _SILENCE:
            told = True
            logger.info("waiting for another installation, by %s", names)
        time.sleep(_PAUSE)
    return True
