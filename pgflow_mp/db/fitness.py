"""Whether a database can be used at all, told before anything waits for it or is lost in it."""

from __future__ import annotations

from typing import Any

import psycopg

from pgflow_mp.errors import UnfitDatabase


def check_writable(conn: psycopg.Connection[Any]) -> None:
    """Raise UnfitDatabase where nothing can be written: what waits for that waits in vain."""
    row = conn.execute(
        "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')"
    ).fetchone()
    standby, read_only = row or (False, "off")
    if standby:
        raise UnfitDatabase(
            f"The server at {conn.info.host}:{conn.info.port} is a read-only standby (in recovery)",
            hint="Name the primary; with several hosts (host=a,b) the one that accepts writes is chosen.",
        )
    if read_only == "on":
        raise UnfitDatabase(
            f"The database {conn.info.dbname!r} is read-only for role {conn.info.user!r}: "
            "default_transaction_read_only is on",
            hint="Some services switch it on when their disk is full. Have it switched off, for the "
            "database or the role: alter database ... set default_transaction_read_only = off;",
        )


def check_encoding(conn: psycopg.Connection[Any]) -> None:
    """Raise UnfitDatabase where some texts, of errors as of payloads, cannot be stored."""
    encoding = conn.info.parameter_status("server_encoding") or "UTF8"
    if encoding.upper() != "UTF8":
        raise UnfitDatabase(
            f"The database {conn.info.dbname!r} has the encoding {encoding}, which does not hold every text",
            hint="Use one with UTF8: create database ... template template0 encoding 'UTF8';",
        )
