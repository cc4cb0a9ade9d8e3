"""The entry point: finds the command, and turns whatever happens into one screen and an exit status.

A command is a module with ``configure(parser, verb)`` and ``execute(args)``, named in VERBS. It imports
nothing heavy before ``execute``, so that ``--help`` and errors of usage are instant.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Final, NamedTuple

from pgflow_mp import __version__, streams
from pgflow_mp.cli.complaints import EXIT_CODES, report
from pgflow_mp.cli.converters import boolean
from pgflow_mp.cli.parser import Parser, UsageError, add_common, program
from pgflow_mp.errors import ConfigError
from pgflow_mp.loading import reentry


class Verb(NamedTuple):
    """A command: its module in pgflow_mp.cli, and one line of help."""

    module: str
    help: str


VERBS: Final = {
    "work": Verb("work", "run tasks as they come, for every flow of the app (the default)"),
    "run": Verb("run", "start one run and execute it here to its end"),
    "start": Verb("start", "start a run and leave the work to the workers"),
    "status": Verb("status", "show recent runs, or one of them"),
    "runs": Verb("run_list", "list runs by flow, status, time, tag"),
    "workers": Verb("worker_list", "list workers and what they do"),
    "flows": Verb("flow_list", "list flows, how their runs are, and who serves them"),
    "top": Verb("top", "show what the lanes of workers do, again and again"),
    "stacks": Verb("lane_stacks", "print where the code of workers is at this moment"),
    "failures": Verb("failing", "show what failed in a run: groups of alike errors, items, inputs"),
    "logs": Verb("run_log", "print what happened in a run, in order"),
    "results": Verb("fetching", "write the results of a run or a step to a file"),
    "report": Verb("report", "write a run's report, one HTML file to mail"),
    "retry": Verb("retry", "try failed items again, and compute again what followed from them"),
    "cancel": Verb("cancel", "end a run; what runs of it is stopped"),
    "pause": Verb("pause", "let nothing more of a run or a flow be worked on, for now"),
    "resume": Verb("pause", "go on with a run or a flow that was paused"),
    "limits": Verb("limiting", "show and set how much of a flow is worked on at once, or a second"),
    "drain": Verb("drain", "let workers end what they run, and stop"),
    "delete": Verb("delete", "remove a run that has ended, or a flow with all its runs"),
    "prune": Verb("prune", "remove runs that ended long ago"),
    "schedule": Verb("schedule", "have runs started by the clock; list, pause, backfill them"),
    "replay": Verb("replay", "execute one item of a run again, here, to debug it"),
    "serve": Verb("serve", "serve a web page of what runs, waits and failed"),
    "bench": Verb("bench", "measure throughput, efficiency and latency on this machine"),
    "compile": Verb("installing", "print the SQL that creates a flow"),
    "install": Verb("installing", "install the pgflow schema into a database"),
    "migrate": Verb("installing", "upgrade the pgflow schema of a database"),
    "db": Verb("database", "the database itself: its address, a psql in it, its size"),
    "doctor": Verb("doctoring", "look for what is wrong or will go wrong: here, in the database, in a flow"),
    "completion": Verb("completing", "print what completes commands and options in bash, zsh or fish"),
}
DEFAULT: Final = "work"
_PRINTING: Final = (
    "status",
    "runs",
    "workers",
    "flows",
    "top",
    "stacks",
    "failures",
    "logs",
    "results",
    "report",
    "compile",
    "replay",
    "schedule",
    "limits",
    "db",
    "doctor",
    "completion",
)
"""Commands whose purpose is what they print; for others it is a courtesy, and so is standard error always."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    streams.forgive()
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or _debug_in_environment()
    try:
        return _main(arguments)
    except SystemExit as error:  # --help, --version
        return error.code if isinstance(error.code, int) else 0
    except BrokenPipeError:  # the reader of our output has gone, e.g. head
        return 128 + signal.SIGPIPE
    except (KeyboardInterrupt, Exception) as error:
        if reentry.is_inside():
            raise
        return report(error, debug=debug)


def _main(arguments: list[str]) -> int:
    reentry.refuse("the command line of pgflow_mp")
    if arguments == ["help"]:
        from pgflow_mp.cli import helping

        print(helping.commands(VERBS), end="")
        _check_written()
        return 0
    verb, rest = _split(arguments)
    module = _module(verb)
    args = _parser(verb, module, named=verb in arguments).parse(rest)
    if sys.platform == "win32":
        raise ConfigError(
            "pgflow_mp does not run on Windows: it works with processes, signals and locks of POSIX",
            hint="Use it in WSL, or in a container of Linux; docs/installing.md tells where it runs.",
        )
    from pgflow_mp import logs

    logs.set_up(args.log_level, args.log_format)
    status: int = module.execute(args)
    if verb in _PRINTING or any(getattr(args, name, False) for name in ("json", "print", "dry_run")):
        _check_written()
    return status


def _check_written() -> None:
    """Raise if what a command is for has not reached standard output."""
    streams.flush()
    if (error := streams.failure(1)) is not None:
        from pgflow_mp.cli.asked import unwritable

        raise error if isinstance(error, BrokenPipeError) else unwritable(error)


def _module(verb: str) -> ModuleType:
    return importlib.import_module(f"pgflow_mp.cli.{VERBS[verb].module}")


def _parser(verb: str, module: ModuleType, *, named: bool = True) -> Parser:
    default = verb == DEFAULT
    parser = Parser(
        brief=_page if named else _overview,
        prog=program() if default else f"{program()} {verb}",
        description="Run tasks as they come, for every flow of the app." if default else None,
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"pgflow_mp {__version__}")
    parser.set_defaults(verb=verb)
    module.configure(parser, verb)
    add_common(parser)
    return parser


def _page(parser: Parser) -> str:
    from pgflow_mp.cli import helping

    return helping.page(parser)


def _overview(_parser: Parser) -> str:
    from pgflow_mp.cli import helping

    return helping.overview(VERBS)


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """The command and its arguments; options may come before the command."""
    flags = _parser(DEFAULT, _module(DEFAULT)).value_flags() if arguments[:1] else set()
    position = 0
    while position < len(arguments) and arguments[position].startswith("-"):
        if arguments[position] == "--":
            return DEFAULT, arguments
        position += 2 if arguments[position] in flags else 1
    if position >= len(arguments):
        return DEFAULT, arguments
    word = arguments[position]
    if word in VERBS:
        return word, arguments[:position] + arguments[position + 1 :]
    if word == "help":
        return _help(arguments[position + 1 :])
    _check_typo(word, arguments[position + 1 :])
    return DEFAULT, arguments


def _help(rest: list[str]) -> tuple[str, list[str]]:
    """What ``help COMMAND`` means; a word that is no command is refused."""
    if not rest or rest[0].startswith("-"):
        return DEFAULT, ["--help"]
    if rest[0] not in VERBS:
        raise _no_command(rest[0], "command")
    return rest[0], ["--help"]


def _no_command(word: str, what: str) -> UsageError:
    import difflib

    close = difflib.get_close_matches(word.lower(), VERBS, 1, cutoff=0.6)
    guess = f"did you mean {close[0]}?" if close else f"commands are {', '.join(VERBS)}"
    return UsageError(f'There is no {what} "{word}"; {guess}', hint=f"See {program()} --help.")


def _check_typo(word: str, rest: list[str]) -> None:
    """Refuse a word that is no target, but looks like a command."""
    if not word.isidentifier():
        return
    import difflib

    close = difflib.get_close_matches(word.lower(), VERBS, 1, cutoff=0.6)
    positional = any(not argument.startswith("-") for argument in rest[:1])
    if not close and not positional:
        return
    from pgflow_mp.loading.targets import Target

    target = Target.parse(word)
    if target.bundled or _exists(word):
        return
    raise _no_command(word, "command or module")


def _exists(module: str) -> bool:
    import importlib.util

    if os.path.exists(f"{module}.py") or os.path.isdir(module):
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _debug_in_environment() -> bool:
    try:
        return boolean(os.environ.get("PGFLOW_DEBUG", ""))
    except argparse.ArgumentTypeError:
        return True
