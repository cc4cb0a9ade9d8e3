"""The page that ``--help`` prints: what a command is for, examples, what matters; it fits a screen."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli.brief import BRIEFS, GROUPS, Brief
from pgflow_mp.cli.parser import Parser, program

if TYPE_CHECKING:
    from pgflow_mp.cli.main import Verb

WIDTH: Final = 79
"""Columns of a line, at most."""
_INDENT: Final = 24
_FIRST: Final = (
    "run flows.py --input items.jsonl",
    "flows.py --workers 16",
    "start flows.py --input items.jsonl",
)


def page(parser: Parser) -> str:
    """What --help says of a command. Its verb is the parser's default for ``verb``."""
    brief = BRIEFS.get(parser.get_default("verb"), Brief((), {}))
    lines = []
    for usage in parser.format_usage().strip().splitlines():
        lines += textwrap.wrap(usage, WIDTH, subsequent_indent="  ")
    for paragraph in (parser.description or "").split("\n\n"):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), WIDTH)]
    lines.append("")
    lines += [f"  {program()} {example}" for example in brief.examples]
    if brief.options:
        lines += ["", *_options(parser, brief.options)]
    lines += ["", "More options, their environment variables and exit statuses: --help-all"]
    return "\n".join(lines) + "\n"


def _options(parser: Parser, texts: Mapping[str, str]) -> Iterable[str]:
    by_flag = {flag: action for action in parser._actions for flag in action.option_strings}
    for flag, text in texts.items():
        action = by_flag[flag]
        short = next((f"{name}, " for name in action.option_strings if len(name) == 2), "")
        value = (
            "" if isinstance(action, argparse.BooleanOptionalAction) or action.nargs == 0 else action.metavar
        )
        yield f"  {short + flag + (f' {value}' if value else ''):<{_INDENT - 3}} {text}"


def overview(verbs: Mapping[str, Verb]) -> str:
    """What --help says where no command is named: all of them, in groups, on one screen."""
    lines = [
        f"usage: {program()} COMMAND ... [OPTIONS]",
        f"       {program()} [TARGET] [OPTIONS]           (the worker)",
        "",
        "Durable, CPU-heavy batch work in Python on nothing but PostgreSQL.",
        "",
    ]
    lines += [f"  {program()} {example}" for example in _FIRST]
    lines.append("")
    for name, members in grouped(verbs):
        lines += textwrap.wrap(
            ", ".join(members), WIDTH, initial_indent=f"  {name:<10}", subsequent_indent=" " * 12
        )
    lines += [
        "",
        f"{program()} help has a line of each, COMMAND --help more,",
        "COMMAND --help-all all that it takes.",
    ]
    return "\n".join(lines) + "\n"


def commands(verbs: Mapping[str, Verb]) -> str:
    """What ``help`` says: a line of each command."""
    lines = []
    for _, members in grouped(verbs):
        for member in members:
            lines += textwrap.wrap(
                verbs[member].help, WIDTH, initial_indent=f"  {member:<11}", subsequent_indent=" " * 13
            )
        lines.append("")
    return "\n".join([*lines, f"{program()} COMMAND --help tells more of a command."]) + "\n"


def grouped(verbs: Mapping[str, Verb]) -> list[tuple[str, list[str]]]:
    """The commands in groups, each in one."""
    groups = [(name, [verb for verb in members if verb in verbs]) for name, members in GROUPS]
    known = {verb for _, members in groups for verb in members}
    return [*groups, ("more", [verb for verb in verbs if verb not in known])]
