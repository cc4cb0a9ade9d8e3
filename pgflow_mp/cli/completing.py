"""completion: what a shell reads to complete our commands and options."""

from __future__ import annotations

import argparse
import importlib
from typing import Any, Final

from pgflow_mp.cli.parser import Parser, add_common

_SHELLS: Final = ("bash", "zsh", "fish")
_PROGRAM: Final = "pgflow-mp"


def configure(parser: Parser, verb: str) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} {{{','.join(_SHELLS)}}}"
    parser.description = (
        "Print what completes commands, options and their values for the program pgflow-mp. Put it where "
        "your shell looks, as below, or evaluate it when the shell starts."
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))


def execute(args: argparse.Namespace) -> int:
    """Print it."""
    import shtab

    print(shtab.complete(_everything(), shell=args.shell))
    return 0


def _everything() -> argparse.ArgumentParser:
    """One parser of all commands, as the program would have it if it took the worker's by name only."""
    from pgflow_mp.cli.main import VERBS

    whole = Parser(prog=_PROGRAM)
    commands: Any = whole.add_subparsers(parser_class=Parser)
    for verb, (module, help_line) in VERBS.items():
        parser = commands.add_parser(verb, prog=f"{_PROGRAM} {verb}", help=help_line)
        importlib.import_module(f"pgflow_mp.cli.{module}").configure(parser, verb)
        add_common(parser)
        for action in parser._actions:
            _complete_files(action)
    return whole


def _complete_files(action: argparse.Action) -> None:
    import shtab

    if action.metavar in ("FILE", "INPUT", "TARGET", "FLOW", "STEP=FILE"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif action.metavar in ("DIR", "PLACE"):
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
