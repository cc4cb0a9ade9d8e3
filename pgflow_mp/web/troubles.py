"""What a visitor is told when a page cannot be drawn: what, and what to do. A traceback is logged only."""

from __future__ import annotations

import logging
import sys
from typing import Final, NamedTuple

from pgflow_mp.errors import ConfigError, DatabaseError, FlowNotFound, InputError, PgflowError, RunNotFound
from pgflow_mp.redaction import redact

_STATUSES: Final = (
    ((RunNotFound, FlowNotFound), 404),
    ((InputError, ConfigError), 400),
    ((DatabaseError,), 503),
)


class Apology(NamedTuple):
    """A status of HTTP, what is wrong, and what to do."""

    status: int
    title: str
    hint: str


def trouble_of(error: BaseException, log: logging.Logger) -> Apology:
    """What to answer for an error; what nobody has foreseen is logged with its traceback."""
    if isinstance(error, PgflowError):
        for kinds, status in _STATUSES:
            if isinstance(error, kinds):
                return Apology(status, redact(str(error)), redact(error.hint))
        return Apology(409, redact(str(error)), redact(error.hint))
    if "psycopg" in sys.modules:
        import psycopg

        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return Apology(
                403,
                "The role of this page may not read or do this",
                f"The database says: {redact(str(error).splitlines()[0])}",
            )
        if isinstance(error, psycopg.errors.QueryCanceled):
            return Apology(
                503, "The database took too long to answer", "Try it again when it has less to do."
            )
        if isinstance(error, psycopg.OperationalError):
            return Apology(503, "The database cannot be reached", "This page comes back when it can.")
        if isinstance(error, psycopg.DataError):
            return Apology(400, "The database cannot take this value", "")
    log.error("a page could not be drawn", exc_info=error)
    return Apology(500, "This page could not be drawn", "The log of the command serve says why.")
