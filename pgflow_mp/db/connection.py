"""Finding the database, connecting to it with errors that help, and coming back after it was away.

Connections work behind transaction poolers (PgBouncer): they prepare no statements, as the pooler may
hand each transaction to another server process (contract: worker section 1.1). What belongs to a session
(LISTEN) does nothing there; the worker polls, too.
"""

from __future__ import annotations

import logging
import os
import random
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from pgflow_mp import libpq, streams
from pgflow_mp.db import session
from pgflow_mp.db.connection_errors import ServerStarting, explain, foreign_parameter
from pgflow_mp.db.patience import PatientConnection
from pgflow_mp.errors import ConfigError, DatabaseError, DatabaseUnavailable
from pgflow_mp.redaction import redact

__all__ = [
    "APPLICATION_NAME",
    "OLDEST_VERSION",
    "Backoff",
    "command_for",
    "connect",
    "connect_when_up",
    "discover_dsn",
    "is_connection_lost",
    "is_transient",
    "passes_by_itself",
    "redact",
    "retrying",
    "wants_new_connection",
]

_log = logging.getLogger("pgflow_mp.db.connection")
_SAY_EVERY = 10.0  # seconds
_reached: set[str] = set()

APPLICATION_NAME = "pgflow_mp"
OLDEST_VERSION = 15
DSN_VARIABLES = ("PGFLOW_DATABASE_URL", "DATABASE_URL")
LIBPQ_VARIABLES = ("PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE")

_SCHEMES = ("postgresql", "postgres")
# A peer that vanished without a word (power cut, cable) is noticed within 30 s instead of 2 hours.
LIVENESS = {
    "keepalives": 1,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
# admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout, idle_in_transaction_...
_LOST = {"57P01", "57P02", "57P03", "57P05", "25P03"}
# serialization_failure, deadlock_detected, too_many_connections, lock_not_available,
# read_only_sql_transaction (a connection that still leads to the old primary after a failover),
# disk_full, out_of_memory and io_error of the server.
_TRANSIENT = {"40001", "40P01", "53300", "55P03", "25006", "53100", "53200", "58030"}


def discover_dsn(dsn: str | None = None, env: Mapping[str, str] = os.environ) -> str | None:
    """Return the connection string of the database to use; None means the embedded server.

    Order: ``dsn`` (``--dsn``), PGFLOW_DATABASE_URL, DATABASE_URL, then the libpq environment, which is
    the empty string: libpq fills it in from PGHOST, PGSERVICE and the like. A SQLAlchemy URL
    (``postgresql+psycopg://``) is understood. Raises ConfigError for the URL of another product.
    """
    found = [("The connection string", dsn)] if dsn is not None else [(v, env.get(v)) for v in DSN_VARIABLES]
    for source, value in found:
        if value is not None and (value.strip() or dsn is not None):
            return _normalised(value.strip(), source)
    return "" if any(env.get(name) for name in LIBPQ_VARIABLES) else None


def _normalised(dsn: str, source: str) -> str:
    dsn = re.sub("^jdbc:", "", dsn, flags=re.IGNORECASE)
    scheme, separator, rest = dsn.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][\w+.-]*", scheme):
        return dsn
    product = scheme.partition("+")[0].lower()
    if product not in _SCHEMES:
        raise ConfigError(
            f"{source} names a {scheme!r} database, but only PostgreSQL can be used: {redact(dsn)}",
            hint="Give a URL, such as: postgresql://user:password@host:5432/database",
        )
    return f"{product}://{rest}"


def parse(dsn: str) -> dict[str, Any]:
    """Return the parameters of a connection string; ConfigError, without its password, if it has none."""
    try:
        parameters: dict[str, Any] = dict(conninfo_to_dict(dsn))
    except psycopg.Error as error:
        # No chained exception: libpq's text repeats the part that it does not understand.
        if foreign := foreign_parameter(str(error), redact(dsn)):
            raise ConfigError(foreign[0], hint=foreign[1]) from None
        reason = re.sub(r'"[^"]*"', '"..."', str(error).strip())
        # A word without "=" may be the rest of a password with a space in it.
        words = [word if "=" in word or "://" in word else "***" for word in redact(dsn).split()]
        raise ConfigError(
            f"This is not a PostgreSQL connection string: {' '.join(words)} ({reason})",
            hint="Use one of its forms: postgresql://user:password@host:5432/database, or "
            "host=... dbname=... user=...",
        ) from None
    misplaced = [str(parameters.get(name) or "")[1:] for name in ("host", "dbname")]
    if "://" in dsn and any("@" in value for value in misplaced):
        raise ConfigError(
            f"The connection URL cannot be parsed: {redact(dsn)}",
            hint="Percent-encode special characters in user name and password: @ as %40, / as %2F, : as %3A.",
        )
    return parameters


def connect(
    dsn: str,
    *,
    application_name: str = APPLICATION_NAME,
    autocommit: bool = True,
    connect_timeout: int = 10,
    silence: float | None = None,
) -> psycopg.Connection[TupleRow]:
    """Connect to PostgreSQL 15 or newer.

    What the connection string says wins over ``application_name``, ``connect_timeout`` (seconds) and
    our keep-alive settings. With several hosts the one that accepts writes is chosen. The connection is
    taken for lost when a statement gets no sign of an answer for ``silence`` seconds (None: never).

    Raises DatabaseUnavailable where waiting may help (refused, unknown host, time-out, starting up,
    too many connections), ConfigError for an unusable connection string, else DatabaseError; each
    with a hint, none with a password.
    """
    streams.guard()
    parameters = parse(dsn)
    options: dict[str, Any] = {**LIVENESS, "connect_timeout": connect_timeout, "client_encoding": "utf8"}
    if "," in str(parameters.get("host") or parameters.get("hostaddr") or ""):
        options["target_session_attrs"] = "read-write"
    given = {name: value for name, value in options.items() if parameters.get(name) is None}
    try:
        with libpq.hidden(parameters):
            conn = PatientConnection.connect(
                dsn,
                autocommit=autocommit,
                prepare_threshold=None,
                fallback_application_name=application_name,
                **given,
            )
    except (psycopg.Error, OSError) as error:
        failure, cause = explain(error, parameters)
        raise failure from cause
    conn.silence = silence
    _reached.add(dsn)
    version = conn.info.server_version
    if version < OLDEST_VERSION * 10_000:
        where = f"{conn.info.host}:{conn.info.port}"
        conn.close()
        raise DatabaseError(
            f"The server at {where} is PostgreSQL {version // 10_000}, too old: {OLDEST_VERSION} is needed",
            hint="Upgrade it, or leave --dsn out to use the embedded server.",
        )
    try:
        session.set_up(conn)
    except psycopg.Error as error:
        conn.close()
        failure, cause = explain(error, parameters)
        raise failure from cause
    return conn


def command_for(conn: psycopg.Connection[Any], verb: str, *, user: str | None = None) -> str:
    """A command of ours about the database of this connection, to be pasted; its password is not in it.

    ``user`` is who has to give it where that is somebody else.
    """
    ours = {
        *LIVENESS,
        "connect_timeout",
        "client_encoding",
        "fallback_application_name",
        "target_session_attrs",
    }
    named = {name: value for name, value in conn.info.get_parameters().items() if name not in ours}
    if named.get("sslcertmode") == "allow":  # libpq names this default of its own
        del named["sslcertmode"]
    if user is not None:
        named["user"] = user
    return f"python -m pgflow_mp {verb} --dsn {shlex.quote(make_conninfo(**named))}"


def connect_when_up(dsn: str, *, give_up_after: float = 60.0, **options: Any) -> psycopg.Connection[TupleRow]:
    """Connect; to a server that is starting, in crash recovery or shutting down as soon as it is up again.

    Such a server is waited for ``give_up_after`` seconds at most, and the log says so, now and then; and so
    is one that this process has reached before: it is away for the moment. All else is raised at once, as
    by :func:`connect`, whose ``options`` these are.
    """
    try:
        return connect(dsn, **options)
    except DatabaseUnavailable as error:
        if not (isinstance(error, ServerStarting) or dsn in _reached):
            raise
        _log.warning("waiting for the database, up to %g s: %s", give_up_after, error)
    began = said = time.monotonic()

    def report(error: DatabaseError, _pause: float) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= _SAY_EVERY:
            said = now
            _log.warning("still waiting for the database after %.0f s: %s", now - began, error)

    backoff = Backoff(cap=2.0)
    conn = retrying(dsn, give_up_after=give_up_after, backoff=backoff, report=report, **options)
    _log.info("connected to the database again after %.1f s", time.monotonic() - began)
    return conn


def is_connection_lost(error: BaseException) -> bool:
    """True if the connection is gone for good, so that only a new one can help.

    Whether the last statement was carried out is not known then.
    """
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None:
            return error.sqlstate in _LOST or error.sqlstate.startswith("08")
        if isinstance(error, psycopg.InterfaceError):
            return "closed" in str(error)
        return isinstance(error, psycopg.OperationalError)  # libpq's own: no answer came at all
    return isinstance(error, (ConnectionError, DatabaseUnavailable))


def is_transient(error: BaseException) -> bool:
    """True if the same work may well succeed when tried again, on a new connection if lost."""
    if is_connection_lost(error):
        return True
    return isinstance(error, psycopg.Error) and error.sqlstate in _TRANSIENT


def passes_by_itself(error: BaseException) -> bool:
    """True if whoever has time tries again: what is transient, and time limits of the server."""
    return is_transient(error) or isinstance(error, psycopg.errors.QueryCanceled)


def wants_new_connection(error: BaseException) -> bool:
    """True if only a new connection can help: this one is lost, or leads to a read-only server."""
    return is_connection_lost(error) or isinstance(error, psycopg.errors.ReadOnlySqlTransaction)


class Backoff:
    """Growing, jittered pauses between tries: ``initial`` s, times ``factor``, at most ``cap`` s.

    Each pause is drawn from the upper half of its range, so that many workers that lost the same
    server do not come back in step.
    """

    def __init__(self, initial: float = 0.1, cap: float = 10.0, factor: float = 2.0) -> None:
        if not (0 < initial <= cap and factor >= 1):
            raise ConfigError(f"Impossible pauses: initial {initial}, cap {cap}, factor {factor}")
        self._initial, self._cap, self._factor = initial, cap, factor
        self._range = initial
        self.tries = 0

    def next(self) -> float:
        """Return the length of the next pause in seconds."""
        pause = self._range * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret
        self._range = min(self._cap, self._range * self._factor)
        self.tries += 1
        return pause

    def reset(self) -> None:
        """Begin again with the shortest pause, after a success."""
        self._range = self._initial
        self.tries = 0


def retrying(
    dsn: str,
    *,
    give_up_after: float | None = None,
    stop: threading.Event | None = None,
    backoff: Backoff | None = None,
    report: Callable[[DatabaseError, float], None] | None = None,
    **options: Any,
) -> psycopg.Connection[TupleRow]:
    """Connect as soon as the server can be reached; ``options`` are those of :func:`connect`.

    Tries until ``give_up_after`` seconds have passed (None: for ever) or ``stop`` is set, then raises
    the last error. ``report(error, pause)`` is called before each pause. Errors that waiting cannot
    cure (wrong password, no such database) are raised at once.
    """
    backoff = backoff or Backoff()
    deadline = None if give_up_after is None else time.monotonic() + give_up_after
    stop = stop or threading.Event()
    while True:
        try:
            return connect(dsn, **options)
        except DatabaseUnavailable as error:
            pause = backoff.next()
            if deadline is not None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    raise
                pause = min(pause, remaining)
            if stop.is_set():
                raise
            if report is not None:
                report(error, pause)
            if stop.wait(pause):
                raise
