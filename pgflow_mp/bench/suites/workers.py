"""Several workers, as on several machines, that share one database and one run."""

from __future__ import annotations

from pgflow_mp.bench.findings import SuiteResult, Table
from pgflow_mp.bench.measure import Samples
from pgflow_mp.bench.stage import Stage


def run(stage: Stage) -> SuiteResult:
    """Eight lanes of sleeping items in 1, 2 and 4 workers; no-op items with one lane each."""
    result = SuiteResult("workers", "Several workers on one database")
    naps, noops = (800, 5_000) if stage.quick else (4_800, 30_000)
    rows = []
    for workers in (1, 2) if stage.quick else (1, 2, 4):
        stage.say(f"{workers} workers")
        repeats = stage.repeats(1, 3)
        with stage.arena("bench_nap", lanes=8 // workers, workers=workers) as arena:
            arena.warm_up("bench_nap", [10.0] * 160, times=2)
            sleeping = Samples(tuple(arena.run("bench_nap", [10.0] * naps).total for _ in range(repeats)))
        with stage.arena("bench_map", lanes=1, workers=workers) as arena:
            arena.warm_up("bench_map", list(range(1000)), times=2)
            idle = Samples(tuple(arena.run("bench_map", list(range(noops))).total for _ in range(repeats)))
            done = {row[0]: row[1] for row in arena.conn.execute(_SHARES).fetchall()}
        share = max(done.values()) / sum(done.values()) if done else 1.0
        rows.append(
            (
                str(workers),
                f"{naps / sleeping.median:,.0f}/s",
                f"{naps * 0.01 / 8 / sleeping.median:.1%}",
                f"{noops / idle.median:,.0f}/s",
                f"{share:.0%}",
            )
        )
        result.samples[str(workers)] = {"sleeping": list(sleeping.values), "no-op": list(idle.values)}
    columns = (
        "workers",
        "10 ms sleeping, 8 lanes in all",
        "of ideal",
        "no-op, 1 lane each",
        "largest share of one worker",
    )
    result.tables.append(Table("one run shared", columns, rows))
    return result


_SHARES = """
select last_worker_id::text, count(*)
from pgflow.step_tasks
where run_id = (select run_id from pgflow.runs order by started_at desc limit 1)
group by 1
"""
