"""The worker: serves every flow of an app until it is stopped."""

from __future__ import annotations

import argparse
import logging
import signal
from typing import TYPE_CHECKING

from pgflow_mp.cli import queue_work
from pgflow_mp.cli.command_line import database_choice, work_options
from pgflow_mp.cli.flow_targets import app_targets
from pgflow_mp.cli.parser import Parser, add_database, program
from pgflow_mp.cli.working import add_work, watching

if TYPE_CHECKING:
    from pgflow_mp.loading.targets import Target
    from pgflow_mp.worker.stats import WorkerReport

logger = logging.getLogger("pgflow_mp")


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{program()} [COMMAND] [TARGET] [OPTIONS]"
    parser.add_argument(
        "target",
        nargs="?",
        metavar="TARGET",
        help="where flows are: module, module:flow, path.py, path.py:flow or a flow file; else what "
        "[tool.pgflow_mp] flows in the nearest pyproject.toml names, else PGFLOW_FLOWS, else the examples",
    )
    add_work(parser)
    queue_work.add_queue(parser)
    add_database(parser)


def execute(args: argparse.Namespace) -> int:
    """Work until a signal, or an operator's deprecation, ends it."""
    from pgflow_mp.cli import preflight
    from pgflow_mp.cli.connecting import beside, open_database

    options, choice = work_options(args), database_choice(args)
    if args.queue is not None:
        return queue_work.work_on(args.queue, args.target, args.retry, options, choice)
    targets = app_targets(args.target, args.handlers)
    flows = [flow.slug for flow in preflight.look_at(targets)]
    with open_database(choice, workers=options.processes) as database:
        from pgflow_mp.executors.choosing import factory
        from pgflow_mp.worker.settings import WorkerSettings
        from pgflow_mp.worker.stats import Ending
        from pgflow_mp.worker.worker import Worker

        settings = WorkerSettings(
            dsn=database.dsn,
            targets=tuple(map(str, targets)),
            flows=tuple(flows),
            sys_path=tuple(dict.fromkeys(path for target in targets for path in target.sys_path)),
            contents={file: data for target in targets for file, data in target.by_path.items()},
            artifacts_beside=beside(database.server),
            **options.settings,
        )
        banner = _banner(flows, targets, options.executor, settings.lanes, database.place)
        title = f"worker for {len(flows)} flows" if len(flows) > 1 else f"worker for {flows[0]}"
        title += f", {database.place}"
        with watching(options, title, banner, names_flows=len(flows) > 1) as (observer, heard):
            make = factory(options.executor, settings.workers)
            report = Worker(settings, observer=observer, executor=make).run()
    logger.info("%s", _goodbye(report))
    if heard.numbers[:1] == [signal.SIGTERM] and report.ending is not Ending.FORCED:
        return 0
    return heard.exit_code if heard.numbers else 0


def _banner(flows: list[str], targets: list[Target], executor: str, lanes: int, place: str) -> str:
    from pgflow_mp.observe.text import plural
    from pgflow_mp.redaction import redact

    source = targets[0].source
    if source == "examples":
        where = "the bundled examples, as no other flows were named"
    else:
        where = str(targets[0]) if source == "argument" else source
    who = plural(lanes, "worker") if executor == "lanes" else f"executor {redact(executor)}"
    return f"{who} for {', '.join(flows)} (from {where}) on {place}; Ctrl-C stops"


def _goodbye(report: WorkerReport) -> str:
    from pgflow_mp.observe.text import duration, plural

    stats = report.stats
    parts = [f"{plural(stats.done, 'item')} done in {duration(report.wall)}"]
    for number, what in (
        (stats.failed, "failed"),
        (stats.retried, "to be tried again"),
        (stats.crashed, "crashed"),
        (stats.late, "late"),
        (report.released, "handed back"),
        (report.unsettled, "not recorded, they will run again"),
    ):
        if number:
            parts.append(f"{number:,} {what}")
    return f"stopped ({report.ending}): {', '.join(parts)}"
