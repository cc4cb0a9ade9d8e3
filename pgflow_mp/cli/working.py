"""What all commands that work have in common: options, and showing progress."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli import converters
from pgflow_mp.cli.flow_targets import add_handlers
from pgflow_mp.cli.parser import Parser

if TYPE_CHECKING:
    from pgflow_mp.cli.command_line import WorkOptions
    from pgflow_mp.cli.signals import HeardSignals
    from pgflow_mp.observe.live import LiveObserver
    from pgflow_mp.observe.plain import PlainObserver


def add_work(parser: Parser) -> None:
    """How a worker works."""
    group = parser.add_argument_group("work")
    for flags, variable, details in _WORK:
        parser.option(*flags, env=variable, group=group, **details)
    add_handlers(parser, group)


def add_only(parser: Parser) -> None:
    """Whether a command that serves a run serves others, too."""
    parser.option(
        "--only",
        env="PGFLOW_ONLY",
        flag=True,
        default=False,
        help="work on this run and on nothing else (the default: on it first)",
    )


_WORK: Final[Iterable[tuple[tuple[str, ...], str, dict[str, Any]]]] = (
    (
        ("-w", "--workers"),
        "PGFLOW_WORKERS",
        {
            "convert": converters.workers,
            "metavar": "N",
            "help": "processes that run your code; auto (the default): one for each CPU that may be used",
        },
    ),
    (
        ("--executor",),
        "PGFLOW_EXECUTOR",
        {
            "convert": converters.executor,
            "default": "lanes",
            "metavar": "WHAT",
            "help": "what runs your code: lanes (the default), i.e. processes of its own; threads; inline; "
            "dask or dask://HOST:PORT; ray or ray://HOST:PORT; mpi",
        },
    ),
    (
        ("--labels",),
        "PGFLOW_LABELS",
        {
            "convert": converters.labels,
            "default": (),
            "metavar": "LABELS",
            "help": "what this worker has, for steps that require it: gpu,bigmem",
        },
    ),
    (
        ("--batch-size",),
        "PGFLOW_BATCH_SIZE",
        {
            "convert": converters.count_or_auto,
            "metavar": "N",
            "help": "most tasks to claim at once; auto (the default) goes by how long they take",
        },
    ),
    (
        ("--max-poll-seconds",),
        "PGFLOW_MAX_POLL_SECONDS",
        {
            "convert": converters.seconds,
            "default": 2.0,
            "metavar": "S",
            "help": "longest wait for new work (2)",
        },
    ),
    (
        ("--poll-interval-ms",),
        "PGFLOW_POLL_INTERVAL_MS",
        {
            "convert": converters.count,
            "default": 100,
            "metavar": "MS",
            "help": "pause between looks for work (100)",
        },
    ),
    (
        ("--visibility-timeout",),
        "PGFLOW_VISIBILITY_TIMEOUT",
        {
            "convert": converters.whole_seconds,
            "metavar": "S",
            "help": "lease of a claimed task, extended while it is held (the flow's longest timeout + 2)",
        },
    ),
    (
        ("--grace",),
        "PGFLOW_GRACE",
        {
            "convert": converters.seconds,
            "default": 30.0,
            "metavar": "S",
            "help": "when stopped, how long running tasks may go on (30)",
        },
    ),
    (
        ("--threads",),
        "PGFLOW_THREADS",
        {
            "convert": converters.natural,
            "default": 1,
            "metavar": "N",
            "help": "threads that numeric libraries may use in a process (1); 0: as many as they like",
        },
    ),
    (
        ("--preload",),
        "PGFLOW_PRELOAD",
        {
            "convert": converters.modules,
            "default": (),
            "metavar": "WHAT",
            "help": "import once what all processes then share: flow (your module), or names of modules, "
            "e.g. numpy,pandas; none (the default): each imports for itself",
        },
    ),
    (
        ("--load-timeout",),
        "PGFLOW_LOAD_TIMEOUT",
        {
            "convert": converters.seconds,
            "default": 300.0,
            "metavar": "S",
            "help": "how long a process may take to import your module, and for each on_start function (300)",
        },
    ),
    (
        ("--max-memory-per-worker",),
        "PGFLOW_MAX_MEMORY_PER_WORKER",
        {
            "convert": converters.size,
            "metavar": "SIZE",
            "help": "kill and replace a process that needs more, e.g. 2GB",
        },
    ),
    (
        ("--name",),
        "PGFLOW_NAME",
        {
            "metavar": "NAME",
            "help": "name of this worker (host:pid); a name given is registered in pgflow.worker_functions",
        },
    ),
    (
        ("--compile",),
        "PGFLOW_COMPILE",
        {
            "choices": ("check", "extend", "skip", "recreate"),
            "default": "check",
            "metavar": "HOW",
            "help": "a flow that differs from the database: check (the default) takes over new "
            "steps and refuses the rest; extend (conditions, too), skip (do not look), recreate (delete its "
            "runs)",
        },
    ),
    (
        ("--heartbeat-interval",),
        "PGFLOW_HEARTBEAT_INTERVAL",
        {
            "convert": converters.seconds,
            "default": 2.0,
            "metavar": "S",
            "help": "pause between signs of life (2)",
        },
    ),
    (
        ("--dead-after",),
        "PGFLOW_DEAD_AFTER",
        {
            "convert": converters.seconds,
            "default": 10.0,
            "metavar": "S",
            "help": "without a sign of life for so long, others take the tasks over (10)",
        },
    ),
    (
        ("--keep",),
        "PGFLOW_KEEP",
        {
            "convert": converters.age,
            "metavar": "AGE",
            "help": "remove runs of these flows that ended longer ago, e.g. 30d, while working",
        },
    ),
    (
        ("--artifacts",),
        "PGFLOW_ARTIFACTS",
        {
            "metavar": "PLACE",
            "help": "folder or URL for files that handlers make (the embedded server: beside its data)",
        },
    ),
    (
        ("--metrics-port",),
        "PGFLOW_METRICS_PORT",
        {
            "convert": converters.port,
            "metavar": "PORT",
            "help": "serve metrics for Prometheus, and health checks, at this port of this machine; 0: any",
        },
    ),
    (
        ("--metrics-address",),
        "PGFLOW_METRICS_ADDRESS",
        {
            "default": "127.0.0.1",
            "metavar": "ADDRESS",
            "help": "where --metrics-port listens (127.0.0.1); 0.0.0.0 for other machines, too",
        },
    ),
    (
        ("--traces",),
        "PGFLOW_TRACES",
        {
            "metavar": "WHERE",
            "help": "spans of runs, steps and what lanes ran, for OpenTelemetry: otlp, or a file.jsonl",
        },
    ),
    (
        ("--progress",),
        "PGFLOW_PROGRESS",
        {
            "choices": ("auto", "live", "plain", "off"),
            "default": "auto",
            "metavar": "HOW",
            "help": "auto (the default): live on a terminal, else plain lines; or live, plain, off",
        },
    ),
)


@contextlib.contextmanager
def watching(
    options: WorkOptions,
    title: str,
    begin: str,
    *,
    names_flows: bool,
    preliminary: str | None = None,
    run_id: str | None = None,
) -> Iterator[tuple[LiveObserver | PlainObserver, HeardSignals]]:
    """The observer that ``--progress`` asks for, and the signals that arrive meanwhile.

    ``title`` stands above a live picture, ``begin`` is logged otherwise; both once there is something to
    work on: a refusal may come before that. Until then ``preliminary`` stands above the picture. The
    terminal is put right when the block ends. ``run_id``: the run that is served. What a signal leads to is
    told at once.

    ``auto`` is live on a terminal that can redraw lines, as long as the log is for people.
    """
    from pgflow_mp.cli.signals import listening
    from pgflow_mp.observe.plain import PlainObserver

    how = options.progress
    if how == "auto":
        how = "live" if options.log_is_text and _is_terminal() else "plain"
    watcher: LiveObserver | PlainObserver
    live = None
    if how == "live":
        from pgflow_mp.observe.live import LiveObserver

        watcher = live = LiveObserver(
            title, preliminary=preliminary, names_flows=names_flows, takes_keys=True, own_run=run_id
        )
    else:
        watcher = PlainObserver(
            names_flows=names_flows,
            quiet=how == "off",
            opening=begin,
            own_run=run_id,
            for_machines=not options.log_is_text,
        )

    def react(number: int, times: int) -> None:
        again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
        text = "stopping at once: what runs is handed back and will run again"
        if times == 1:
            text = f"stopping: what runs may finish within {options.grace:g} s; {again} stops at once"
        if live is not None:
            live.note("stopping")
        watcher.on_message("warn", text)

    try:
        with listening(react) as heard:
            yield watcher, heard
    finally:
        if live is not None:
            live.close()


def _is_terminal() -> bool:
    import sys

    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
