"""The worker of a queue of plain background jobs: ``work TARGET --queue NAME``."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from typing import Any

from pgflow_mp.cli import converters
from pgflow_mp.cli.command_line import DatabaseChoice, WorkOptions
from pgflow_mp.cli.parser import Parser, UsageError, command

logger = logging.getLogger("pgflow_mp")


def add_queue(parser: Parser) -> None:
    """The options about a queue."""
    group = parser.add_argument_group("background jobs")
    parser.option(
        "--queue",
        env="PGFLOW_QUEUE",
        group=group,
        metavar="NAME",
        help="execute the jobs of this queue with the function that TARGET is: file:function",
    )
    parser.option(
        "--retry",
        env="PGFLOW_RETRY",
        group=group,
        metavar="HOW",
        convert=converters.retry,
        help="when a failed job is tried again (exponential,limit=5,base=3,cap=300), or fixed,limit=5,base=3",
    )


def work_on(
    queue: str,
    target: str | None,
    retry: Mapping[str, Any] | None,
    options: WorkOptions,
    choice: DatabaseChoice,
) -> int:
    """Work on the queue until a signal, or an operator, ends it."""
    from pgflow_mp.cli.connecting import open_database
    from pgflow_mp.cli.signals import listening
    from pgflow_mp.client.queue_worker import QueueWorker
    from pgflow_mp.observe.text import duration, plural
    from pgflow_mp.worker.stats import Ending

    if target is None:
        raise UsageError(
            "Which function is to execute the jobs?",
            hint=f"For example: {command('work', 'mails.py:send_mail', '--queue', queue)}",
        )
    settings = {name: value for name, value in options.settings.items() if value is not None}
    for name in ("keep", "compile", "artifacts", "labels", "metrics_port", "metrics_address", "traces"):
        settings.pop(name, None)  # of flows
    with open_database(choice, workers=options.processes) as database:
        worker = QueueWorker(
            target, queue, retry=retry, dsn=database.dsn, executor=options.executor, **settings
        )
        banner = f"{plural(worker.settings.lanes, 'worker')} for queue {worker.queue} ({target})"
        banner += f" on {database.place}; Ctrl-C stops"

        def until() -> bool:
            nonlocal banner
            if banner:  # it has begun
                logger.info("%s", banner)
                banner = ""
            return False

        with listening(lambda _number, _times: None) as heard:
            report = worker.run(until)
    logger.info(
        "stopped (%s): %s done in %s, %d to be tried again, %d given up",
        report.ending,
        plural(report.done, "job"),
        duration(report.wall),
        report.retried,
        report.failed,
    )
    if heard.numbers[:1] == [signal.SIGTERM] and report.ending is not Ending.FORCED:
        return 0
    return heard.exit_code if heard.numbers else 0
