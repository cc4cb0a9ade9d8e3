"""doctor: what is wrong or will go wrong, on this machine, in the database, in a flow."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import DatabaseChoice, database_choice
from pgflow_mp.cli.complaints import OK, RUN_FAILED
from pgflow_mp.cli.flow_targets import add_handlers, flow_target
from pgflow_mp.cli.output import stdout_for_results
from pgflow_mp.cli.parser import Parser, add_database, add_json
from pgflow_mp.errors import PgflowError

if TYPE_CHECKING:
    from pgflow_mp.db.checkup import Symptom

_MARKS: Final = {"ok": "ok  ", "warn": "warn", "bad": "BAD "}


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [TARGET] [OPTIONS]"
    parser.description = (
        "Look at this machine, at the database that commands use here, and at the flows of TARGET, and say "
        "what is wrong or will go wrong, and what to do. Nothing is changed. Exit status 1: something is bad."
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="module, module:flow, path.py, path.py:flow or a flow file",
    )
    parser.option(
        "--workers",
        "-w",
        env="PGFLOW_WORKERS",
        metavar="N",
        convert=converters.workers,
        help="processes that are to run here; auto (the default): one for each CPU",
    )
    add_handlers(parser)
    add_json(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Print it; 1 if something is bad."""
    choice = database_choice(args)
    found = []
    for symptom in _symptoms(choice, args.workers, args.target, args.handlers):
        found.append(symptom)
        if not args.json:
            print(f"{_MARKS[symptom.level]}  {symptom.what}", flush=True)
            if symptom.advice:
                print(f"      {symptom.advice}", flush=True)
    if args.json:
        print(json.dumps([symptom._asdict() for symptom in found]))
    return RUN_FAILED if any(symptom.level == "bad" for symptom in found) else OK


def _symptoms(
    choice: DatabaseChoice, workers: int | None, target: str | None, handlers: Sequence[str]
) -> Iterator[Symptom]:
    from pgflow_mp.cli.connecting import named_dsn
    from pgflow_mp.embedded.server import EmbeddedServer
    from pgflow_mp.worker.machine import machine_symptoms

    is_embedded = named_dsn(choice) is None
    yield from machine_symptoms(workers, EmbeddedServer(choice.data_dir).data_dir if is_embedded else None)
    if target is not None:
        yield from _of_target(target, handlers)
    yield from _of_database(choice)


def _of_target(target: str, handlers: Sequence[str]) -> Iterator[Symptom]:
    from pgflow_mp.db.checkup import Symptom
    from pgflow_mp.loading import finding

    try:
        with stdout_for_results():
            flows = finding.load_flows(flow_target(target, handlers))
    except PgflowError as error:
        yield Symptom("bad", str(error), error.hint)
        return
    for flow in flows:
        yield Symptom("ok", f"flow {flow.slug} with {len(flow.steps)} steps in {target}")


def _of_database(choice: DatabaseChoice) -> Iterator[Symptom]:
    from pgflow_mp.cli.connecting import never_used, open_database
    from pgflow_mp.db.checkup import Symptom, database_symptoms

    if never_used(choice):
        yield Symptom("ok", "no embedded database was made here yet; the first run makes it")
        return
    try:
        with open_database(choice) as database:
            yield Symptom("ok", database.place)
            with database.connect() as conn:
                yield from database_symptoms(conn)
    except PgflowError as error:
        yield Symptom("bad", str(error), error.hint)
