"""Where suites run: a PostgreSQL server, and scratch databases on it."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgflow_mp.bench import stored
from pgflow_mp.bench.arena import SCRATCH, Arena, connected
from pgflow_mp.bench.served import ServedWorker
from pgflow_mp.db import connection, schema
from pgflow_mp.embedded.server import EmbeddedServer, default_data_dir
from pgflow_mp.flows.options import DEFAULT_STORAGE


@dataclass(slots=True)
class Stage:
    """What every suite gets.

    ``quick`` asks for figures in seconds, ``loops`` are burn()'s turns a second. Maps are stored in each of
    ``storages``, side by side; ``items`` is how many the suites of one size take, None their own choice.
    """

    dsn: str
    lanes: int
    quick: bool
    loops: float
    say: Callable[[str], None]
    storages: tuple[str, ...] = (DEFAULT_STORAGE,)
    items: int | None = None

    def repeats(self, quick: int, full: int) -> int:
        """How often to measure."""
        return quick if self.quick else full

    def size(self, quick: int, full: int) -> int:
        """How many items to measure with."""
        return self.items or self.repeats(quick, full)

    def loops_for(self, seconds: float) -> int:
        """burn()'s argument for items of this length."""
        return max(1, round(self.loops * seconds))

    @contextlib.contextmanager
    def database(self, *, with_schema: bool = True) -> Iterator[str]:
        """A scratch database, dropped afterwards; empty, or with our schema."""
        text = f"{SCRATCH}{uuid.uuid4().hex[:12]}"
        name = sql.Identifier(text)
        with connection.connect(self.dsn) as conn:
            conn.execute(sql.SQL("create database {} template template0 encoding 'UTF8'").format(name))
        try:
            dsn = make_conninfo(self.dsn, dbname=text)
            if with_schema:
                with connection.connect(dsn) as conn:
                    schema.install(conn)
            yield dsn
        finally:
            with connection.connect(self.dsn) as conn:
                conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))

    @contextlib.contextmanager
    def arena(
        self,
        *flows: str,
        storage: str | None = None,
        lanes: int | None = None,
        workers: int = 1,
        **settings: Any,
    ) -> Iterator[Arena]:
        """A scratch database that ``workers`` workers of ``lanes`` lanes serve; maps as in ``storage``."""
        storage = storage or self.storages[0]
        with self.database() as dsn, contextlib.ExitStack() as stack:
            with connected(dsn) as conn:
                stored.store(conn, flows, storage)
            served = []
            for _ in range(workers):
                worker = ServedWorker(dsn, flows, workers=lanes or self.lanes, **settings)
                stack.callback(worker.stop)
                served.append(worker)
            arena = Arena(dsn, served)
            stack.callback(arena.close)
            stored.check(arena.conn, flows, storage)
            yield arena

    @contextlib.contextmanager
    def arenas(
        self, *flows: str, lanes: int | None = None, workers: int = 1, **settings: Any
    ) -> Iterator[dict[str, Arena]]:
        """One arena for each storage. What is measured takes turns; whoever has no turn is idle."""
        with contextlib.ExitStack() as stack:
            yield {
                storage: stack.enter_context(
                    self.arena(*flows, storage=storage, lanes=lanes, workers=workers, **settings)
                )
                for storage in self.storages
            }


@contextlib.contextmanager
def open_server(dsn: str | None, say: Callable[[str], None]) -> Iterator[str]:
    """The server to use: ``dsn``, else a durable embedded one in a directory of its own, removed at the end.

    That directory lies beside the user's own data, so that it is on the same disk.
    """
    if dsn is not None:
        yield dsn
        return
    base = default_data_dir().parent
    base.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    say("starting a PostgreSQL server for this benchmark")
    try:
        with EmbeddedServer(home) as server:
            yield server.dsn
    finally:
        shutil.rmtree(home, ignore_errors=True)
