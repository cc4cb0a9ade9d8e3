#!/usr/bin/env python3
"""How many cores one PostgreSQL carries: boxes, lanes, claims and completions in simulated time.

Without options it plays the points that measure_scale.py has measured (scale_points.json) and prints both;
with --boxes it plays boxes of your own. Costs of a call are those points' CPU seconds.
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from _scale_model import (
    AHEAD,
    CHUNK,
    COSTS,
    FULL,
    LINGER,
    LOW,
    Costs,
    Setting,
    play,
    play_sessions,
    steady,
)

POINTS: Final = Path(__file__).with_name("scale_points.json")
KEPT: Final = 10  # connections that PostgreSQL keeps for itself and for who looks
EACH: Final = 4  # connections of a worker


# -- what is printed ---------------------------------------------------------------------------------------


def compared(points: dict[str, Any], costs: Costs = COSTS) -> list[tuple[str, float, float]]:
    """What was measured, and what the simulation says: name, measured, simulated."""
    found = []
    for point in points["boxes"]:
        name = f"{point['boxes']} x {point['lanes']} lanes, {point['item_ms']} ms"
        setting = Setting(
            point["boxes"], point["lanes"], point["item_ms"] / 1000, point["items"], shared=True
        )
        told = play(setting, costs)
        found += [
            (f"{name}: seconds", point["seconds"], told.seconds),
            (f"{name}: server, CPU s", point["server_cpu"], told.server_cpu),
            (f"{name}: parents, CPU s", point["parent_cpu"], told.parent_cpu),
            (f"{name}: log, MB", point["wal_bytes"] / 1e6, told.wal_bytes / 1e6),
        ]
    for point in points["sessions"]:
        pairs = play_sessions(point["sessions"], point["maps"], point["lease"], point["seconds"], costs)
        name = f"{point['sessions']} sessions, {point['maps']} maps: pairs/s"
        found.append((name, point["pairs"] / point["seconds"], pairs / point["seconds"]))
    return found


def load(seconds: float, lanes: int, payload: int = 0, costs: Costs = COSTS) -> dict[str, float]:
    """What one busy box asks for each second: the formula, which play() and steady() have to bear out.

    Items, claims, completions, CPU seconds of the server, bytes of its log, seconds that locks are held for
    claims of one map and for completions of one run that others work on, CPU seconds of the box's parent.
    """
    items = lanes / seconds
    claims = 1 / (LOW * AHEAD)
    if seconds >= CHUNK:  # no chunk is ahead of them: as play() has it
        claims = min(0.6 * items, 10.0 if seconds < 1 else items)
    completions = max(min(items, 1 / LINGER), items / FULL)
    parts = lanes / max(CHUNK, seconds)
    claiming = claims * costs.claim
    completing = completions * costs.complete + parts * costs.part + items * costs.item
    wal = claims * costs.wal_claim + completions * costs.wal_complete + parts * costs.wal_part
    return {
        "items": items,
        "claims": claims,
        "completions": completions,
        "server": claiming + completing + costs.box,
        "log": wal + items * (costs.wal_item + payload),
        "claiming": claiming,
        "completing": completing,
        "parent": parts * costs.chunk,
    }


def limits(
    seconds: float,
    lanes: int,
    cores: int,
    *,
    connections: int = 100,
    log: float = 200e6,
    costs: Costs = COSTS,
) -> dict[str, float]:
    """How many boxes fill the server's cores, its log (bytes a second), its connections, one map's locks."""
    of = load(seconds, lanes, costs=costs)
    return {
        "cores": cores / of["server"],
        "log": log / of["log"],
        "connections": (connections - KEPT) / EACH,
        "claims of one map": 1 / of["claiming"],
        "completions of one run": 1 / of["completing"],
    }


def print_compared() -> None:
    """The measured points beside the simulated ones."""
    found = compared(json.loads(POINTS.read_text(encoding="utf-8")))
    print(f"{'':46}measured simulated ratio")
    for name, measured, simulated in found:
        print(f"{name:46}{measured:8.2f} {simulated:9.2f} {simulated / measured:5.2f}")


def print_carried(cores: int, lanes: int) -> None:
    """How many boxes a server carries, by the length of items."""
    print(f"A server of {cores} cores, boxes of {lanes} lanes; a commit takes {COSTS.commit * 1000:.1f} ms.")
    print(
        "item      one box: items/s  server, cores  log, MB/s | boxes until it is full: cores   log  one run"
    )
    for seconds in (0.001, 0.01, 0.1, 1.0, 10.0):
        of, most = load(seconds, lanes), limits(seconds, lanes, cores)
        run = min(most["claims of one map"], most["completions of one run"])
        print(
            f"{seconds * 1000:6g} ms {of['items']:18,.0f} {of['server']:14.3f} {of['log'] / 1e6:10.2f} | "
            f"{most['cores']:29,.0f} {most['log']:5,.0f} {run:8,.0f}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--boxes", type=int, help="play so many boxes, in the midst of maps")
    parser.add_argument("--lanes", type=int, default=64, help="lanes of a box (64)")
    parser.add_argument("--item", type=float, default=0.01, metavar="S", help="seconds an item (0.01)")
    parser.add_argument("--maps", type=int, default=1, help="maps that are worked on at once (1)")
    parser.add_argument("--cores", type=int, default=4, help="CPUs of the server (4)")
    parser.add_argument("--commit", type=float, metavar="S", default=COSTS.commit, help="seconds of a commit")
    parser.add_argument("--payload", type=int, default=0, help="bytes of a result more than an integer has")
    asked = parser.parse_args()
    counts = [asked.lanes, asked.maps, asked.cores, *([] if asked.boxes is None else [asked.boxes])]
    if min(counts) < 1 or not 0 < asked.item < math.inf:
        parser.error("boxes, lanes, maps and cores are at least 1, and an item takes more than no time")
    if not 0 <= asked.commit < math.inf or asked.payload < 0:
        parser.error("a commit takes no time or more, and a result has no bytes or more")
    if asked.boxes is None:
        print_compared()
        print()
        print_carried(asked.cores, asked.lanes)
        return 0
    setting = Setting(asked.boxes, asked.lanes, asked.item, 0, asked.maps, asked.cores, payload=asked.payload)
    share = steady(setting, replace(COSTS, commit=asked.commit))
    print(f"{share:.1%} of {asked.boxes * asked.lanes / asked.item:,.0f} items/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
