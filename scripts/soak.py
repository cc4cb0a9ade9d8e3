#!/usr/bin/env python3
"""Run a real flow for minutes while killing everything at random, then count everything again.

Several workers share one embedded PostgreSQL. Meanwhile workers, their processes and the server are
killed, stopped for seconds (the server for longer than --dead-after), asked to end; connections are cut; the
disk is full for a while (as root, who can give the server a small one); handlers raise, crash, hang and kill
themselves. Then every run is audited: each item one accepted result or one recorded failure, counters equal
to a recount, outputs equal to a plain computation, the queue empty, the archive complete, and no process,
connection, file or shared memory left. Exit status 0: clean; 1: not.
Examples:

    scripts/soak.py --minutes 2 --seed 1
    scripts/soak.py --minutes 10 --workers 4 --pause 1
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from _soak_audit import Audit
from _soak_faults import Striker
from _soak_stage import MARK, Stage, unmounted


def soak(arguments: argparse.Namespace, home: Path) -> int:
    """Soak, audit, report; the exit status."""
    began = time.monotonic()
    stage = Stage(arguments, home)
    striker, audit = Striker(stage), Audit(stage)
    os.environ["TMPDIR"] = tempfile.tempdir = str(home / "tmp")
    os.environ[MARK] = stage.mark
    with stage.server:
        stage.open()
        try:
            go_wrong(stage, striker)
            stage.finish()
        finally:
            stage.stop_workers()
            stage.client.close()
        audit.runs()
        audit.connections()
    audit.leftovers(sum(count for kind, count in striker.faults.items() if kind.startswith("forkserver")))
    return report(stage, striker, audit, time.monotonic() - began)


def go_wrong(stage: Stage, striker: Striker) -> None:
    """Keep two runs going and let things go wrong."""
    arguments = stage.arguments
    while not stage.compiled():
        stage.tend()
        time.sleep(0.1)
    until = time.monotonic() + 60 * arguments.minutes
    next_fault = time.monotonic() + 2.0
    while time.monotonic() < until:
        stage.tend()
        if (count := stage.open_runs()) is not None and count < 2:
            stage.start_run()
        if time.monotonic() >= next_fault:
            striker.strike()
            next_fault = time.monotonic() + stage.chance.uniform(0.5, 1.5) * arguments.pause
        time.sleep(0.1)


def report(stage: Stage, striker: Striker, audit: Audit, seconds: float) -> int:
    """Print one screen; the exit status."""
    faults = sum(striker.faults.values())
    if stage.arguments.json:
        told = {
            "seconds": round(seconds, 1),
            "seed": stage.arguments.seed,
            "runs": len(stage.runs),
            "items": audit.items,
            "faults": dict(striker.faults),
            "failures": dict(audit.failures),
            "problems": stage.problems,
        }
        print(json.dumps(told))
    else:
        print(f"soak of {seconds:.0f} s, seed {stage.arguments.seed}, {stage.arguments.workers} workers")
        print(f"  {len(stage.runs)} runs, {audit.items:,} items of the first map audited")
        print(f"  {faults} faults from outside, {stage.restarts} workers started again:")
        for kind, count in sorted(striker.faults.items()):
            print(f"    {count:4} {kind}")
        print(f"  {sum(audit.failures.values())} items with a recorded failure")
        for text, count in audit.failures.most_common(5):
            print(f"    {count:4} {text}")
        print("AUDIT CLEAN" if not stage.problems else f"{len(stage.problems)} PROBLEMS")
        for problem in stage.problems[:20]:
            print(f"  - {problem}")
    return 1 if stage.problems else 0


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="how long things go wrong (2)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is left to chance (1)")
    parser.add_argument("--workers", type=int, default=3, help="workers, of two processes each (3)")
    parser.add_argument(
        "--storage", choices=("tasks", "ranges"), default="ranges", help="of the maps (ranges)"
    )
    parser.add_argument("--items", type=int, default=1500, help="items of a run (1500)")
    parser.add_argument("--pause", type=float, default=2.0, help="mean seconds between faults (2)")
    parser.add_argument(
        "--patience", type=float, default=120.0, help="seconds for the last runs to end (120)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the directory with database and logs")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse_args()
    arguments.began = time.time()
    home = Path(tempfile.mkdtemp(prefix="soak-"))
    status = 1
    try:
        status = soak(arguments, home)
    finally:
        if arguments.keep or status:
            with contextlib.suppress(OSError, shutil.Error):
                shutil.copytree(home / "state", home / "state-kept")
        unmounted(home / "state")
        if arguments.keep or status:
            print(f"kept: {home}", file=sys.stderr)
        else:
            shutil.rmtree(home, ignore_errors=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
