"""bench: measure this machine, with the bars that the project sets itself."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.parser import Parser, UsageError, command, program
from pgflow_mp.flows.options import DEFAULT_STORAGE, STORAGES

_SUITES = (
    "scaling item-times payloads lanes workers memory fairness spawn latency overhead noop footprint "
    "open-transaction"
)
_ASKED = "million peers"
BOTH: Final = "both"
MOST_ITEMS: Final = 10_000_000


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{program()} bench [SUITE ...] [OPTIONS]"
    parser.description = (
        "Measure throughput, efficiency, latency and memory here, on a PostgreSQL server of its own.\n\n"
        f"suites: {_SUITES}\nonly when named: {_ASKED}"
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="what to measure (default: all but those)")
    parser.option(
        "--quick",
        env="PGFLOW_BENCH_QUICK",
        flag=True,
        default=False,
        help="smaller numbers and fewer rounds: all suites in about two minutes",
    )
    parser.option(
        "--peers",
        env="PGFLOW_BENCH_PEERS",
        flag=True,
        default=False,
        help="measure other task queues and pools side by side; those not installed are skipped",
    )
    parser.option(
        "--storage",
        env="PGFLOW_BENCH_STORAGE",
        convert=str.lower,
        choices=(*STORAGES, BOTH),
        default=DEFAULT_STORAGE,
        metavar="STORAGE",
        help=f"how maps are stored: tasks, ranges, or both in turns, compared (default: {DEFAULT_STORAGE})",
    )
    parser.option(
        "--items",
        env="PGFLOW_BENCH_ITEMS",
        convert=converters.count,
        metavar="N",
        help="how many, in noop, footprint, open-transaction, overhead and million (for that up to 10000000)",
    )
    parser.option("--json", env="PGFLOW_BENCH_JSON", metavar="FILE", help="write all figures there")
    parser.option("--html", env="PGFLOW_BENCH_HTML", metavar="FILE", help="write a page with charts there")
    parser.option(
        "--workers",
        "-w",
        env="PGFLOW_WORKERS",
        convert=converters.workers,
        metavar="N",
        help="lanes; auto (the default): one for each CPU that may be used",
    )
    parser.option(
        "--dsn",
        env="PGFLOW_BENCH_DSN",
        metavar="URL",
        help="a PostgreSQL server where databases may be created, instead of one of its own",
    )


def execute(args: argparse.Namespace) -> int:
    """Measure; 0 also if a bar is missed."""
    signal.signal(signal.SIGTERM, _terminated)
    from pgflow_mp.bench import harness
    from pgflow_mp.bench.suites import SUITES
    from pgflow_mp.cli.screen import console

    names = list(dict.fromkeys(args.suites))
    if args.items is not None and args.items > MOST_ITEMS:
        raise UsageError(f"--items {args.items} is more than the {MOST_ITEMS} that one input array can hold")
    if unknown := [name for name in names if name not in SUITES]:
        raise UsageError(
            f'There is no suite "{unknown[0]}"; suites are: {", ".join(SUITES)}',
            hint=f"Read about them: {command('bench', '--help')}",
        )
    if not names:
        names = ["peers"] if args.peers else harness.default_suites()
    elif args.peers and "peers" not in names:
        names.append("peers")
    files = [Path(text) if text else None for text in (args.json, args.html)]
    for file in files:
        if file is not None and not file.absolute().parent.is_dir():
            raise UsageError(f"There is no directory {file.absolute().parent}", hint="Create it first.")
    harness.run(
        names,
        dsn=args.dsn,
        lanes=args.workers,
        quick=args.quick,
        storages=STORAGES if args.storage == BOTH else (args.storage,),
        items=args.items,
        json_file=files[0],
        html_file=files[1],
        console=console(sys.stdout),
    )
    return 0


def _terminated(number: int, _frame: object) -> None:
    """End in order: the server and its directory go too."""
    raise SystemExit(128 + number)
