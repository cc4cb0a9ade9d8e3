"""A server for tests, seen as a place where databases are made and dropped."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

_ENOUGH: Final = 8 << 30


def room_in_memory() -> Path | None:
    """Where a throw-away server is quick, if there is such a place: None is the system's directory.

    A database is some three hundred files. On a disk, making them can take a quarter of a second of CPU.
    """
    place = Path("/dev/shm")
    try:
        roomy = shutil.disk_usage(place).free >= _ENOUGH and os.access(place, os.R_OK | os.W_OK | os.X_OK)
    except OSError:
        return None
    return place if roomy and psutil.virtual_memory().available >= _ENOUGH else None


def system_bin_dirs() -> list[Path]:
    """The machine's own PostgreSQL installations, newest last."""
    found = [Path(path).parent for path in glob.glob("/usr/lib/postgresql/*/bin/postgres")]
    return sorted(found, key=lambda path: int(path.parent.name) if path.parent.name.isdigit() else 0)


class DatabaseServer:
    """A server on which tests make and drop databases."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._numbers = itertools.count(1)
        self._prefix = f"test_{uuid.uuid4().hex[:8]}"

    def dsn_of(self, database: str) -> str:
        """Return the connection string of one database."""
        return make_conninfo(self.dsn, dbname=database)

    def create_database(self, template: str = "template0") -> str:
        """Create a database with a new name; returns the name."""
        name = f"{self._prefix}_{next(self._numbers)}"
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(
                sql.SQL("create database {} template {} encoding 'UTF8' strategy file_copy").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """A database for the length of a ``with`` block, as its connection string."""
        name = self.create_database(template)
        try:
            yield self.dsn_of(name)
        finally:
            self.drop_database(name)
