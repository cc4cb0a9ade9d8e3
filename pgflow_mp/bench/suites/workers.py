"""Several workers, as on several machines, that share one database and one run."""

from __future__ import annotations

from typing import Final

from pgflow_mp.bench.findings import SuiteResult, Table
from pgflow_mp.bench.measure import Samples, take_turns
from pgflow_mp.bench.stage import Stage
from pgflow_mp.bench.stored import RANGES, TASKS


def run(stage: Stage) -> SuiteResult:
    """Eight lanes of sleeping items in 1, 2 and 4 workers; no-op items with one lane each."""
    result = SuiteResult("workers", "Several workers on one database")
    naps, noops = (800, 5_000) if stage.quick else (4_800, 30_000)
    rows = []
    for workers in (1, 2) if stage.quick else (1, 2, 4):
        stage.say(f"{workers} workers")
        repeats = stage.repeats(1, 3)
        sleeping: dict[str, list[float]] = {}
        idle: dict[str, list[float]] = {}
        shares: dict[str, float] = {}
        with stage.arenas("bench_nap", lanes=8 // workers, workers=workers) as arenas:
            for arena in arenas.values():
                arena.warm_up("bench_nap", [10.0] * 160, times=2)
            sleeping = take_turns(arenas, lambda a: a.run("bench_nap", [10.0] * naps).total, repeats)
        with stage.arenas("bench_map", lanes=1, workers=workers) as arenas:
            for arena in arenas.values():
                arena.warm_up("bench_map", list(range(1000)), times=2)
            idle = take_turns(arenas, lambda a: a.run("bench_map", list(range(noops))).total, repeats)
            for storage, arena in arenas.items():
                done = {row[0]: row[1] for row in arena.conn.execute(_SHARES[storage]).fetchall()}
                shares[storage] = float(max(done.values()) / sum(done.values())) if done else 1.0
        for storage in stage.storages:
            nap, noop = Samples(tuple(sleeping[storage])).median, Samples(tuple(idle[storage])).median
            rows.append(
                (
                    str(workers),
                    storage,
                    f"{naps / nap:,.0f}/s",
                    f"{naps * 0.01 / 8 / nap:.1%}",
                    f"{noops / noop:,.0f}/s",
                    f"{shares[storage]:.0%}",
                )
            )
            found = {"sleeping": sleeping[storage], "no-op": idle[storage]}
            result.samples.setdefault(storage, {})[str(workers)] = found
    columns = (
        "workers",
        "storage",
        "10 ms sleeping, 8 lanes in all",
        "of ideal",
        "no-op, 1 lane each",
        "largest share of one worker",
    )
    result.tables.append(Table("one run shared", columns, rows))
    return result


_SHARES: Final = {
    TASKS: """
select last_worker_id::text, count(*)
from pgflow.step_tasks
where run_id = (select run_id from pgflow.runs order by started_at desc limit 1)
group by 1
""",
    RANGES: """
select worker_id::text, sum(items)
from pgflow.pages
where run_id = (select run_id from pgflow.runs order by started_at desc limit 1) and is_result
group by 1
""",
}
"""Items of the last run by the worker that did them."""
