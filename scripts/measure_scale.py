#!/usr/bin/env python3
"""What one PostgreSQL does for many workers: the points that simulate_scale.py has to reproduce.

Boxes: workers of many lanes share one map of sleeping items, which leave the CPUs to the server and to the
workers' parents, so that many fit on one machine. Sessions: connections that claim and complete as fast as
they can, of one map or of one each: where it saturates. The CPU that is counted hardly depends on what else
the machine does, rates do: close what else uses it.
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import json
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import msgspec

from pgflow_mp.bench import stored
from pgflow_mp.bench.arena import Arena, connected
from pgflow_mp.bench.burning import loops_per_second
from pgflow_mp.bench.stage import Stage, open_server
from pgflow_mp.db import engine, item_ranges, settling
from pgflow_mp.worker.sharing import Sharing

BOXES = [(5, 16, 1), (5, 16, 2), (5, 16, 4), (5, 64, 1), (50, 16, 1), (50, 16, 4), (50, 64, 1), (500, 64, 1)]
"""Milliseconds an item, lanes of a box, boxes."""
SESSIONS = [(1, 1), (2, 1), (4, 1), (8, 1), (4, 4), (8, 8)]
"""Sessions, and maps that they share."""
LEASE = 100  # items in a claim and in a completion of sessions
FLOW = "bench_nap"
FUNCTIONS = ("claim_work", "complete_ranges", "heartbeat", "report_worker")
"""What workers call again and again."""
Point = dict[str, Any]


def counted(conn: engine.Connection) -> dict[str, float]:
    """What the server has counted so far: commits, write-ahead log, calls."""
    row = conn.execute(
        "select (select xact_commit from pg_stat_database where datname = current_database()), wal_bytes, "
        "(select count(*) from pg_stat_activity where backend_type = 'client backend') from pg_stat_wal"
    ).fetchone()
    if row is None:
        raise RuntimeError("no statistics")
    called = conn.execute(
        "select funcname::text, calls from pg_stat_user_functions "
        "where schemaname = 'pgflow' and funcname = any (%s)",
        (list(FUNCTIONS),),
    ).fetchall()
    found = {"commits": float(row[0]), "wal_bytes": float(row[1]), "connections": float(row[2])}
    return found | {name: float(calls) for name, calls in called}


def since(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """What was counted meanwhile; connections are those that there are."""
    return {
        name: after[name] - (0.0 if name == "connections" else before.get(name, 0.0))
        for name in sorted(after)
    }


def boxes(stage: Stage, millis: int, lanes: int, many: int, seconds: float) -> Point:
    """So many workers of so many lanes on one map in ranges."""
    count = round(seconds * 1000 / millis) * lanes * many
    with stage.arena(FLOW, storage=stored.RANGES, lanes=lanes, workers=many) as arena:
        arena.warm_up(FLOW, [millis] * (4 * lanes * many), 2)
        time.sleep(1.5)  # the server tells what it counted a second later
        before = counted(arena.conn)
        timing = arena.run(FLOW, [millis] * count)
        time.sleep(1.5)
        found = since(before, counted(arena.conn))
    return {
        "boxes": many,
        "lanes": lanes,
        "item_ms": millis,
        "items": count,
        "seconds": round(timing.total, 3),
        "server_cpu": round(timing.server_cpu, 3),
        "parent_cpu": round(timing.parent_cpu, 3),
        **found,
    }


def sessions(stage: Stage, many: int, maps: int, seconds: float) -> Point:
    """So many connections that do nothing but claim and complete, as workers do, of so many maps."""
    with stage.database() as dsn:
        conn = connected(dsn)
        stored.store(conn, [FLOW], stored.RANGES)
        items = msgspec.json.encode([1] * 900_000)
        runs = [engine.start_flow(conn, FLOW, items) for _ in range(maps)]
        done = [0] * many
        until = 0.0
        barrier = threading.Barrier(many + 1)

        def work(number: int) -> None:
            with connected(dsn) as own:
                worker_id = str(uuid.uuid4())
                engine.register_worker(own, worker_id, FLOW, "measuring", dead_after=3600)
                known: list[int] = []
                sharing = Sharing()
                barrier.wait()
                while time.perf_counter() < until:
                    got = item_ranges.claim_work(
                        own, FLOW, worker_id, 0, LEASE, known, early=sharing.is_any_shared()
                    )
                    sharing.note(got.leases)
                    known += [page.page_id for page in got.pages]
                    for lease in got.leases:
                        outputs = b"[" + b",".join([b"1"] * lease.items) + b"]"
                        call = item_ranges.RangeCompletion(
                            lease.run_id,
                            lease.step_slug,
                            worker_id,
                            [lease.lease_no],
                            [lease.first_index],
                            [lease.items],
                            [outputs],
                        )
                        settling.settle(own, [call], early=sharing.is_shared(lease.run_id))
                        done[number] += 1

        threads = [threading.Thread(target=work, args=(number,)) for number in range(many)]
        for thread in threads:
            thread.start()
        arena = Arena(dsn, [])
        time.sleep(1.5)
        before, cpu = counted(conn), arena.server_cpu()
        until = time.perf_counter() + seconds
        barrier.wait()
        for thread in threads:
            thread.join(seconds - 0.3)
            break
        cpu = arena.server_cpu() - cpu  # while they are there
        for thread in threads:
            thread.join()
        time.sleep(1.5)
        found = since(before, counted(conn))
        arena.close()
        conn.close()
    if len(runs) != maps or not all(done):
        raise RuntimeError(f"sessions got nothing: {done}")
    return {
        "sessions": many,
        "maps": maps,
        "lease": LEASE,
        "seconds": seconds,
        "pairs": sum(done),
        "server_cpu": round(cpu * seconds / (seconds - 0.3), 3),
        **found,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="what each point takes (10)")
    parser.add_argument("--json", type=Path, help="a file for the points")
    parser.add_argument("--only", choices=("boxes", "sessions"))
    asked = parser.parse_args()
    if asked.json is not None and (asked.json.is_dir() or not asked.json.parent.is_dir()):
        parser.error(f"--json {asked.json} cannot be written: name a file in a folder that there is")
    found: dict[str, Any] = {"machine": {"cpus": os.cpu_count()}, "boxes": [], "sessions": []}
    with open_server(None, print) as dsn:
        stage = Stage(dsn, 2, True, loops_per_second(), print)
        with connected(dsn) as conn:
            conn.execute("alter system set track_functions = 'all'")
            conn.execute("select pg_reload_conf()")
            row = conn.execute("show server_version").fetchone()
            found["machine"]["postgresql"] = row[0] if row else None
        for many, maps in SESSIONS if asked.only != "boxes" else ():
            found["sessions"].append(sessions(stage, many, maps, asked.seconds))
            print(json.dumps(found["sessions"][-1]), flush=True)
        for millis, lanes, each in BOXES if asked.only != "sessions" else ():
            found["boxes"].append(boxes(stage, millis, lanes, each, asked.seconds))
            print(json.dumps(found["boxes"][-1]), flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
