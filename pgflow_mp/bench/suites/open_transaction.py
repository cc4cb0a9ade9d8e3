"""The rate while somebody else's transaction stays open: nothing that has died since can be cleaned up."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import msgspec

from pgflow_mp.bench.arena import Arena, connected
from pgflow_mp.bench.findings import Bar, SuiteResult, Table
from pgflow_mp.bench.measure import interleave, ratio
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES
from pgflow_mp.errors import PgflowError

LIMIT: Final = 0.95
"""Of the rate without, for maps in ranges."""
WITH: Final = {False: "without", True: "with"}


def run(stage: Stage) -> SuiteResult:
    """Whole runs of no-op items, each from vacuumed tables, with and without such a transaction in turns."""
    size = stage.size(50_000, 1_000_000)
    result = SuiteResult("open-transaction", f"{size:,} no-op items beside a transaction that stays open")
    items = list(range(size))
    given = msgspec.json.encode(items)
    with stage.arenas("bench_map") as arenas:
        for arena in arenas.values():
            arena.warm_up("bench_map", items[:10_000])
        variants = {
            (storage, held): _Variant(stage, storage, arena, given, held=held)
            for storage, arena in arenas.items()
            for held in (False, True)
        }
        seconds = interleave(variants, 3)
    rows = []
    for storage in stage.storages:
        free, held = seconds[storage, False], seconds[storage, True]
        share = ratio(free, held)
        rows.append(
            (
                storage,
                *(f"{found.per(size).median:,.0f}/s ±{found.spread / 2:.0%}" for found in (free, held)),
                f"{share.median:.1%}",
                f"{share.low:.1%} to {share.high:.1%}",
            )
        )
        if storage == RANGES:
            what = f"rate with a transaction left open / without, {storage}"
            result.bars.append(Bar.at_least(what, share.median, LIMIT, "{:.1%}"))
        result.samples[storage] = {WITH[held]: list(seconds[storage, held].values) for held in WITH}
    columns = ("storage", "without", "with", "with / without", "rounds")
    result.tables.append(Table("whole runs", columns, rows))
    return result


class _Variant:
    """Seconds of a run, with the transaction or without."""

    def __init__(self, stage: Stage, storage: str, arena: Arena, given: bytes, *, held: bool) -> None:
        self._stage, self._storage, self._arena, self._given, self._held = stage, storage, arena, given, held

    def __call__(self) -> float:
        self._stage.say(f"{self._storage}, {WITH[self._held]}")
        self._arena.conn.execute("vacuum (analyze)")
        with open_transaction(self._arena.dsn) if self._held else contextlib.nullcontext():
            return self._arena.run("bench_map", self._given).total


@contextlib.contextmanager
def open_transaction(dsn: str) -> Iterator[None]:
    """A transaction of another session that has written and keeps its snapshot.

    Raises PgflowError if the server has ended it before its time: the figures would mean nothing.
    """
    with connected(dsn) as conn:
        conn.execute("set idle_in_transaction_session_timeout = 0")
        conn.execute("begin isolation level repeatable read")
        began = conn.execute("select pg_current_xact_id()::text").fetchone()
        yield
        if conn.execute("select pg_current_xact_id()::text").fetchone() != began:
            raise PgflowError("The transaction that should have stayed open has ended")
        conn.execute("rollback")
