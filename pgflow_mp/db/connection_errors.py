"""What went wrong while connecting, and what to do about it.

libpq reports failed connections as text only, without an SQLSTATE, so the cause is read from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pgflow_mp.errors import DatabaseError, DatabaseUnavailable
from pgflow_mp.redaction import redact

_HERE = "leave --dsn, PGFLOW_DATABASE_URL and DATABASE_URL out to use the embedded server"


class ServerStarting(DatabaseUnavailable):
    """The server is there, but it starts, recovers from a crash, or shuts down."""


# (words to look for, what it is, what to do, may waiting help?); the first match counts.
_CAUSES: list[tuple[tuple[str, ...], str, str, bool | type[DatabaseError]]] = [
    (
        ("password authentication failed", "pgpass"),
        "the password is wrong for user {user}",
        "Correct it in the connection string, in PGPASSWORD or in ~/.pgpass.",
        False,
    ),
    (
        ("no password supplied",),
        "the server asks for a password and none was given",
        "Put it into the connection string, PGPASSWORD or ~/.pgpass.",
        False,
    ),
    (
        ("SSL encryption",),  # refused with TLS, too
        "the server's access rules refuse this host, user or database",
        "Have a line for it added to the server's pg_hba.conf, or connect as another user.",
        False,
    ),
    (
        ("SSL off", "no encryption", "SSL connection is required", "requires SSL", "sslmode=require"),
        "the server accepts only encrypted (TLS) connections from here",
        "Add sslmode=require to the connection string (?sslmode=require to a URL).",
        False,
    ),
    (
        ("no pg_hba.conf entry", "pg_hba.conf rejects"),
        "the server's access rules refuse this host, user or database",
        "Have a line for it added to the server's pg_hba.conf, or connect as another user.",
        False,
    ),
    (
        ("does not support SSL",),
        "the server offers no TLS, but the connection string asks for it",
        "Use sslmode=prefer, or switch ssl on at the server.",
        False,
    ),
    (
        ("certificate", "SSL error", "root.crt"),
        "the server's TLS certificate is not accepted",
        "Check sslmode, sslrootcert and the host name in the connection string.",
        False,
    ),
    (
        ("authentication failed", "not permitted to log in", "permission denied for database"),
        "user {user} may not log in",
        "Connect as another user, or grant the right (alter role ... login; grant connect on database ...).",
        False,
    ),
    (
        ("too many", "remaining connection slots", "max_client_conn", "no more connections allowed"),
        "it has no connection left",
        "End idle clients, start fewer workers, or raise max_connections at the server.",
        True,
    ),
    (
        ("the database system is", "cannot_connect_now", "not yet accepting"),
        "the server is starting or shutting down",
        "Wait until it accepts connections.",
        ServerStarting,
    ),
    (
        ('definition of service "',),
        "this service is in no service file",
        "Check service= or PGSERVICE, and ~/.pg_service.conf.",
        False,
    ),
    (
        (
            "invalid value for parameter",
            "unrecognized configuration parameter",
            "Unsupported startup parameter",
            "unsupported startup parameter",
        ),
        "it does not take a parameter that we were told to send",
        (
            "Correct PGOPTIONS, PGTZ, PGDATESTYLE or PGGEQO in the environment, or options= in the "
            "connection string; a pooler may have to know it, too (ignore_startup_parameters)."
        ),
        False,
    ),
    (
        ("for connection option", "invalid port number", "invalid sslmode", "invalid target_session_attrs"),
        "a parameter has an impossible value",
        "Correct the connection string.",
        False,
    ),
    (
        ("session is read-only", "session is not read-only", "is not in hot standby", "is in hot standby"),
        "no host accepts writes (target_session_attrs)",
        "Wait for the failover to end, or name the primary.",
        True,
    ),
    (
        ("failed to resolve host", "could not translate host name", "Name or service not known"),
        "this host name is unknown",
        "Check the host in the connection string, and the network.",
        True,
    ),
    (
        ("timeout expired", "timed out", "timeout"),
        "there was no answer in time",
        "Check host, port and firewall; connect_timeout=30 waits longer.",
        True,
    ),
    (
        ("Connection refused",),
        "nothing accepts connections there",
        f"Start the server, check host and port, or {_HERE}.",
        True,
    ),
    (
        ("No such file or directory",),
        "no server has its socket there",
        f"Start the server, check host and port, or {_HERE}.",
        True,
    ),
    (
        ("Permission denied",),
        "the socket may not be opened",
        "Run as a user who may, or connect by TCP (host=127.0.0.1).",
        False,
    ),
    (
        ("received invalid response to", "expected authentication request", "unsupported frontend protocol"),
        "what answers there is not a PostgreSQL server",
        "Check host and port.",
        False,
    ),
    (
        ("Network is unreachable", "No route to host", "closed the connection", "could not receive data"),
        "the connection broke",
        "Check host, port, network and the server's log.",
        True,
    ),
]


_FOREIGN: dict[str, str] = {
    **dict.fromkeys(
        ("schema", "currentSchema", "search_path"), "Remove it: the tables are in the schema pgflow."
    ),
    **dict.fromkeys(
        (
            "pgbouncer",
            "connection_limit",
            "pool_timeout",
            "pool_size",
            "max_overflow",
            "statement_cache_size",
            "prepared_statement_cache_size",
            "prepareThreshold",
            "preparedStatements",
            "binary_parameters",
        ),
        "Remove it: transaction poolers such as PgBouncer need no option here.",
    ),
    **dict.fromkeys(("ssl", "sslaccept", "tls", "useSSL"), "Write sslmode=require, or sslmode=verify-full."),
    **dict.fromkeys(("charset", "encoding", "characterEncoding"), "Remove it: everything is sent as UTF-8."),
    **dict.fromkeys(("timeout", "connectTimeout", "socket_timeout"), "Write connect_timeout=10 (seconds)."),
    **dict.fromkeys(("statement_timeout", "lock_timeout"), "Remove it: sessions here have their own."),
    **dict.fromkeys(("database", "db"), "Write dbname=NAME, or the name behind the slash."),
    "username": "Write user=NAME.",
    "ApplicationName": "Write application_name=NAME.",
}
"""Parameters of other drivers, and what to do about them."""


def foreign_parameter(said: str, shown: str) -> tuple[str, str] | None:
    """Message and hint for a URL with a parameter that libpq does not know; None if that is not it.

    ``shown`` is the URL without secrets: what is not in it is not repeated.
    """
    found = re.search(r'invalid (?:URI query parameter|connection option)[^"]*"([A-Za-z_][\w.]*)"', said)
    if found is None or found[1] not in shown:
        return None
    name = found[1]
    advice = _FOREIGN.get(name, "Remove it, or see the manual of libpq, section Connection Strings.")
    return (
        f"The connection string has a parameter that PostgreSQL's driver does not know, {name!r}: {shown}",
        f"{advice} The form is: postgresql://user:password@host:5432/database?sslmode=require",
    )


_KINDS: dict[bool, type[DatabaseError]] = {True: DatabaseUnavailable, False: DatabaseError}


def explain(error: Exception, parameters: Mapping[str, Any]) -> tuple[DatabaseError, Exception | None]:
    """Return our exception for a failed connection, and the cause to chain (None: it shows a password)."""
    password = str(parameters.get("password") or "") or os.environ.get("PGPASSWORD")
    said = " ".join(str(error).split())
    clean = redact(said, password)
    where = location(parameters)
    cause = error if clean == said else None
    user = parameters.get("user") or os.environ.get("PGUSER") or "(your login name)"
    if 'database "' in said and "does not exist" in said:
        message, hint = "the database does not exist", "Create it (createdb), or correct dbname."
        return DatabaseError(f"Cannot connect to {where}: {message} ({clean})", hint=hint), cause
    if 'role "' in said and "does not exist" in said:
        message, hint = f"user {user} does not exist", "Correct the user name, or create it (createuser)."
        return DatabaseError(f"Cannot connect to {where}: {message} ({clean})", hint=hint), cause
    for words, what, hint, temporary in _CAUSES:
        if any(word in said for word in words):
            kind = temporary if isinstance(temporary, type) else _KINDS[temporary]
            return kind(f"Cannot connect to {where}: {what.format(user=user)} ({clean})", hint=hint), cause
    return DatabaseUnavailable(
        f"Cannot connect to {where}: {clean}", hint="Check the connection string."
    ), cause


def location(parameters: Mapping[str, Any]) -> str:
    """Name a server without secrets: ``user@host:port/database``."""
    env = os.environ
    if service := parameters.get("service") or env.get("PGSERVICE"):
        return f"service {service}"
    host = parameters.get("host") or parameters.get("hostaddr") or env.get("PGHOST") or env.get("PGHOSTADDR")
    port = parameters.get("port") or env.get("PGPORT") or "5432"
    user = parameters.get("user") or env.get("PGUSER")
    database = parameters.get("dbname") or env.get("PGDATABASE") or user or ""
    name = f"{host or 'the local socket'}:{port}/{database}"
    return f"{user}@{name}" if user else name
