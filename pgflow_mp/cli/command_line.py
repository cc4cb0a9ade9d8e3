"""What a command line asks for, as plain data; made here of what argparse found, which goes no further.

Only the verbs' ``execute`` see argparse's result besides.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.cli.input_options import InputChoice, agree, parameter
from pgflow_mp.cli.parser import UsageError, program
from pgflow_mp.cli.reuse_options import ReuseChoice, choose
from pgflow_mp.cli.tag_options import tag_choice
from pgflow_mp.cli.wanted_items import ENDED, WantedItems
from pgflow_mp.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pgflow_mp.cli.into import TableTarget

_SETTINGS: Final = (
    "workers",
    "batch_size",
    "max_poll_seconds",
    "poll_interval_ms",
    "visibility_timeout",
    "grace",
    "name",
    "compile",
    "max_memory_per_worker",
    "threads",
    *("preload", "handlers"),
    "load_timeout",
    *("heartbeat_interval", "dead_after", "keep", "artifacts", "labels"),
    *("metrics_port", "metrics_address", "traces"),
    "log_level",
    "log_format",
)
"""Options that are fields of WorkerSettings."""


@dataclass(frozen=True, slots=True)
class DatabaseChoice:
    """Which database is to be used: ``dsn`` if --dsn was given, else where the embedded server has its data.

    ``data_dir_given``: by --data-dir, so that the environment's servers do not count. ``quiet``: that the
    embedded server starts is no news.
    """

    dsn: str | None
    data_dir: str | None
    data_dir_given: bool
    quiet: bool

    @property
    def options(self) -> list[str]:
        """What another command line needs to choose the same, without a password."""
        from pgflow_mp.redaction import redact

        if self.dsn is not None:
            return ["--dsn", redact(self.dsn)]
        return ["--data-dir", str(self.data_dir)] if self.data_dir_given else []


def database_choice(args: argparse.Namespace) -> DatabaseChoice:
    """What ``add_database`` has found. Raises UsageError for both of its options."""
    if {"dsn", "data_dir"} <= args.given:
        raise UsageError(
            "--dsn and --data-dir cannot be used together", hint="--data-dir is for the embedded server."
        )
    dsn = args.dsn if "dsn" in args.given else None
    return DatabaseChoice(dsn, args.data_dir, "data_dir" in args.given, args.log_level == "info")


@dataclass(frozen=True, slots=True)
class WorkOptions:
    """How a worker is to work: fields of WorkerSettings, how progress is shown, and what runs the items."""

    settings: Mapping[str, Any]
    progress: str
    executor: str = "lanes"

    @property
    def processes(self) -> int:
        """How many may ask for connections to the database, at least."""
        return self.settings["workers"] or 1

    @property
    def grace(self) -> float:
        """Seconds that running tasks have when the worker is stopped."""
        return float(self.settings["grace"])

    @property
    def log_is_text(self) -> bool:
        """Whether the log is for people."""
        return bool(self.settings["log_format"] == "text")


def work_options(args: argparse.Namespace) -> WorkOptions:
    """What ``add_work`` has found. Raises ConfigError for combinations that make no sense."""
    from pgflow_mp.executors import choosing
    from pgflow_mp.executors.lanes import descriptors
    from pgflow_mp.worker import monitoring
    from pgflow_mp.worker.settings import WorkerSettings

    if args.progress == "live" and not any(map(os.isatty, (1, 2))):
        raise UsageError(
            "--progress live draws on a terminal, and neither standard output nor standard error is one",
            hint="Leave it out, or give --progress plain or --progress off.",
        )
    options = {name: getattr(args, name) for name in _SETTINGS}
    try:
        settings = WorkerSettings(dsn="", targets=("any",), **options)
    except ConfigError as error:
        text = re.sub(r"\b[a-z]+(?:_[a-z]+)+\b", lambda name: "--" + name[0].replace("_", "-"), str(error))
        raise ConfigError(text, hint=error.hint) from None
    if args.executor == "lanes":
        descriptors.check(settings.lanes)
    else:
        choosing.check_word(args.executor)
    monitoring.check(settings)
    return WorkOptions(options, args.progress, args.executor)


@dataclass(frozen=True, slots=True)
class RunOrder:
    """A run to start, or to go on with (``resume``: its id, or how that begins), and to execute here.

    ``flow`` is the word of the command line. ``key`` is the name of the run to start or to go on with.
    ``output``: where its output goes, a file or ``-``, in ``output_format`` if its name does not tell;
    ``results``: (step, file) of further results; ``reuse``: what it takes from an earlier run; ``json``: the
    summary is for programs. ``timeout`` is in seconds. ``follow``: results are written as items end.
    """

    flow: str | None
    input: InputChoice
    resume: str | None
    priority: int
    timeout: float | None
    output: str | None
    output_format: str | None
    results: tuple[tuple[str, str], ...]
    json: bool
    work: WorkOptions
    database: DatabaseChoice
    key: str | None = None
    follow: bool = False
    reuse: ReuseChoice | None = None
    tags: tuple[str, ...] = ()


def run_order(args: argparse.Namespace, *, resume: str | None = None) -> RunOrder:
    """What ``run`` has found, or ``retry``, which names the run to ``resume``.

    Raises UsageError and ConfigError for what makes no sense, whatever flow and database.
    """
    work = work_options(args)
    work = replace(work, settings={**work.settings, "only": args.only})
    if resume is None:
        flow, given, priority, resume = args.flow, input_choice(args), args.priority, args.resume
        key, reuse = args.key, reuse_choice(args)
    else:
        reuse = None
        flow, given, priority, key = args.flow, InputChoice(), 0, None
    if resume is None and flow is None:
        from pgflow_mp.loading.targets import bundled_examples

        raise UsageError(
            f"Which flow is to be run? {program()} run FLOW",
            hint=f"FLOW is path.py, module:flow or an example: {', '.join(bundled_examples())}.",
        )
    if resume is not None and (feeds := {"input", "sql", "set", "tag"} & args.given):
        raise UsageError(
            f"--resume and --{min(feeds)} cannot be used together",
            hint="A run keeps the input and the tags that it was started with.",
        )
    if resume is not None and reuse is not None:
        raise UsageError("--resume and --from-run cannot be used together", hint="A new run takes from one.")
    if resume is not None and key is not None:
        if "key" in args.given:
            raise UsageError("--resume and --key cannot be used together", hint="Each names the run.")
        key = None
    if args.output is None and "output_format" in args.given:
        raise UsageError("--output-format is for --output, which is missing", hint="Give --output FILE.")
    results = args.results
    if args.follow and args.output == "-" and work.progress == "auto" and os.isatty(1):
        work = replace(work, progress="plain")  # a live picture would get among the lines
    if args.json and args.output == "-":
        raise UsageError(
            "--json and --output - both want standard output", hint="Write the output to a file."
        )
    return RunOrder(
        flow,
        given,
        resume,
        priority,
        args.timeout,
        args.output,
        args.output_format,
        tuple(results if isinstance(results, list) else [results] if results else []),
        args.json,
        work,
        database_choice(args),
        key,
        args.follow,
        reuse,
        tag_choice(args.tag) if resume is None else (),
    )


@dataclass(frozen=True, slots=True)
class RetryOrder:
    """Items to try again of the run with this id, or how that begins.

    ``steps``, ``indexes`` (stretches [first, end)) and ``errors`` say which of those that failed; None: all.
    ``failed``: only what a failed run had not finished; ``new_steps``: none, but steps that the flow has got
    since, with ``compile`` as of --compile. ``sure``: nobody is asked. ``json``: for programs.
    ``tells``: standard output is for what is said, not for results.
    """

    run: str
    flow: str | None
    steps: list[str] | None
    indexes: list[tuple[int, int]] | None
    errors: list[str] | None
    failed: bool
    new_steps: bool
    compile: str
    dry_run: bool
    sure: bool
    json: bool
    tells: bool
    database: DatabaseChoice


def retry_order(args: argparse.Namespace) -> RetryOrder:
    """What ``retry`` has found. Raises UsageError and InputError for what makes no sense."""
    chosen = {name: _several(args, name) for name in ("step", "index", "error")}
    if any("\0" in text for text in [*(chosen["step"] or ()), *(chosen["error"] or ())]):
        raise InputError("--step and --error must not contain a NUL character")
    others = [name for name, given in chosen.items() if given is not None] + ["dry-run"] * args.dry_run
    others += ["failed"] * args.failed
    for name in ("failed", "new_steps"):
        option = name.replace("_", "-")
        if getattr(args, name) and (beside := [other for other in others if other != option]):
            raise UsageError(
                f"--{option} and --{beside[0]} cannot be used together", hint="Leave one of them out."
            )
    if not args.work:
        for name in ("output", "output_format", "results", "timeout"):
            if name in args.given:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"{option} is for --work", hint="Workers know nothing of this command.")
    indexes = chosen["index"]
    return RetryOrder(
        args.run,
        args.flow,
        chosen["step"],
        None if indexes is None else [span for spans in indexes for span in spans],
        chosen["error"],
        args.failed,
        args.new_steps,
        args.compile,
        args.dry_run,
        args.yes,
        args.json,
        not args.json and args.output != "-",
        database_choice(args),
    )


def _several(args: argparse.Namespace, name: str) -> list[Any] | None:
    """The values of an option that may be given several times; its variable holds one."""
    given = getattr(args, name)
    return given if given is None or name in args.given else [given]


def reuse_choice(args: argparse.Namespace) -> ReuseChoice | None:
    """What ``add_reuse`` has found. Raises UsageError for one without the other, and beside --key."""
    return choose(args.from_run, args.reuse, args.key)


def input_choice(args: argparse.Namespace) -> InputChoice:
    """What ``add_input`` has found. Raises UsageError for options that exclude one another."""
    kind = args.format
    if args.each_line:
        kind = agree(kind, "lines", "--each-line")
    if args.jsonl is not None:
        kind = agree(kind, "jsonl" if args.jsonl else "json", "--jsonl" if args.jsonl else "--no-jsonl")
    if args.with_stat:
        kind = agree(kind, "paths", "--with-stat")
    if args.sql is not None and args.input is not None and {"sql", "input"} & args.given:
        raise UsageError("--sql and --input cannot be used together", hint="Each gives all items of a run.")
    if args.sql is None and "sql_dsn" in args.given:
        raise UsageError("--sql-dsn is for --sql, which is missing", hint='Give --sql "select ...".')
    if args.sql is not None and kind is not None:
        raise UsageError("--sql takes no format", hint="Leave --format and its like out.")
    params = None
    given = args.set if isinstance(args.set, list) else [args.set] if args.set else []
    if given:
        params = dict(parameter(text) for text in given)
    return InputChoice(
        args.input, kind, args.with_stat, args.sql, args.sql_dsn, params, args.on_bad_line == "skip"
    )


def wanted_items(args: argparse.Namespace) -> WantedItems:
    """What ``add_wanted`` has found. Raises UsageError and InputError for what makes no sense."""
    given = args.status if isinstance(args.status, list) else [args.status] if args.status else []
    statuses = tuple(dict.fromkeys(status for part in given for status in part)) or None
    if args.failed and statuses is not None:
        raise UsageError("--failed and --status cannot be used together", hint="Give --status failed,...")
    if args.fields is not None and args.with_input:
        raise UsageError(
            "--fields and --with-input cannot be used together", hint="Name input among the fields."
        )
    if args.follow and statuses is not None and (odd := [each for each in statuses if each not in ENDED]):
        raise UsageError(
            f"--follow --status {odd[0]}: items are written as they end, completed or failed",
            hint="Leave --follow out to have items of another status.",
        )
    from pgflow_mp.io.picking import Fields

    fields = None if args.fields is None else Fields(args.fields)
    inputs = args.with_input or (args.failed and fields is None)  # which item an index is, its input says
    names = ["index", "status", *(["input"] if inputs else [])]
    names += ["attempts", "error"] if args.failed else ["output", "error"]
    if args.failed:
        statuses = ("failed",)
    wanted = bool(args.with_input or statuses or fields)
    return WantedItems(tuple(names), statuses, fields, args.follow, inputs, wanted)


def table_target(args: argparse.Namespace) -> TableTarget | None:
    """The table of --into. Raises UsageError, InputError and ConfigError for what can be none."""
    if args.into is None:
        return None
    from pgflow_mp.cli.into import TableTarget

    for option in ("output", "format", "follow"):
        if option in args.given and getattr(args, option):
            raise UsageError(
                f"--into and --{option} cannot be used together",
                hint=f"Rows go into the table all at once, at the end: leave --{option} out.",
            )
    return TableTarget.parse(args.into)
