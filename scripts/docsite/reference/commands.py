"""Pages of the command line, made from its parsers: one for each command, with every option."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator
from unittest import mock

from docsite.rst import code, heading, literal, plain, prose, table, toctree
from docsite.staging import Stage
from pgflow_mp.cli import main
from pgflow_mp.cli.brief import BRIEFS
from pgflow_mp.cli.complaints import EXIT_CODES
from pgflow_mp.cli.helping import grouped
from pgflow_mp.cli.parser import Parser, Twin

FOLDER = "reference/commands"
PROGRAM = "pgflow-mp"
_PARTS = {
    "run": "Start and work",
    "look": "Look",
    "show": "Show",
    "steer": "Steer",
    "database": "The database",
    "more": "More",
}


def parsers() -> dict[str, Parser]:
    """The parser of each command."""
    with mock.patch("sys.argv", [PROGRAM]):  # what it calls itself
        found = {}
        for verb, told in main.VERBS.items():
            module = importlib.import_module(f"pgflow_mp.cli.{told.module}")
            found[verb] = main._parser(verb, module)
        return found


def write(stage: Stage) -> str:
    """Write the pages; the place of their overview."""
    known = parsers()
    for verb, parser in known.items():
        stage.write(f"{FOLDER}/{verb}.rst", "\n".join(_page(verb, parser)))
    stage.write(f"{FOLDER}/index.rst", "\n".join(_overview()))
    return f"{FOLDER}/index.rst"


def helps() -> dict[str, str]:
    """What options of ``work`` and ``run`` are, by the names that they have in Python."""
    known = parsers()
    actions = [action for verb in ("run", "work") for action in known[verb]._actions if action.option_strings]
    return {it.dest: prose(_filled((it.help or "").partition(" [env: ")[0], it)) for it in actions}


def exit_statuses() -> list[tuple[str, str]]:
    """(status, what it means) of every command."""
    found: list[tuple[str, str]] = []
    for line in EXIT_CODES.splitlines()[1:]:
        status, _, meaning = line.strip().partition(" ")
        found.append((status, meaning.strip()))
    return found


def _overview() -> Iterator[str]:
    yield heading("Command line")
    yield (
        f"``{PROGRAM} COMMAND ...``, or ``python -m pgflow_mp COMMAND ...``. :doc:`/cli` tells what they "
        "have in common, with all options in tables.\n"
    )
    for part, verbs in grouped(main.VERBS):
        yield heading(_PARTS[part], "-")
        rows = [(f":doc:`{verb}`", plain(main.VERBS[verb].help)) for verb in verbs]
        yield table(("command", "what it does"), rows, (1, 5))
    yield heading("Exit statuses", "-")
    yield table(("status", ""), [(status, prose(meaning)) for status, meaning in exit_statuses()], (1, 8))
    yield ":doc:`/cli` tells what to do about each.\n"
    yield toctree([verb for _, verbs in grouped(main.VERBS) for verb in verbs])


def _page(verb: str, parser: Parser) -> Iterator[str]:
    yield heading(verb)
    description = parser.description or main.VERBS[verb].help
    for paragraph in description.split("\n\n"):
        yield prose(" ".join(paragraph.split())) + "\n"
    yield code(parser.format_usage().partition("usage: ")[2], "text")
    if brief := BRIEFS.get(verb):
        examples = "\n".join(f"{PROGRAM} {example}" for example in brief.examples)
        yield heading("Examples", "-")
        yield code(examples, "sh")
    yield f".. program:: {parser.prog}\n"
    twins = {twin.dest: twin for twin in parser.twins}
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        if actions:
            yield heading(_capital(group.title or "more"), "-")
            for action in actions:
                yield from _option(action, twins.get(action.dest))


def _option(action: argparse.Action, twin: Twin | None) -> Iterator[str]:
    text, _, variables = (action.help or "").partition(" [env: ")
    if action.option_strings:
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        flags = ", ".join(f"{flag}{value}" for flag in sorted(action.option_strings, key=_rank))
        yield f".. option:: {flags}\n"
    else:
        yield f".. describe:: {action.metavar or action.dest.upper()}\n"
    told = prose(_filled(text, action)).rstrip(".") + "."
    sentences = [told if twin and told.split()[0].strip("`,") in twin.choices else _capital(told)]
    if action.choices and not action.option_strings:
        sentences.append(f"One of {', '.join(literal(str(choice)) for choice in action.choices)}.")
    if variables:
        named = ", ".join(literal(name) for name in variables.rstrip("]").removesuffix(" ...").split(", "))
        sentences.append(f"Environment: {named}.")
    if (
        twin
        and twin.default not in (None, False, (), "")
        and "default" not in text
        and f"({twin.default})" not in text
    ):
        sentences.append(f"Default: {literal(str(twin.default))}.")
    yield f"   {' '.join(sentences)}\n"


def _rank(flag: str) -> tuple[bool, int]:
    """Long forms first, their negations last."""
    return flag.startswith("--no-"), -len(flag)


def _filled(text: str, action: argparse.Action) -> str:
    """Help with what argparse would put into it."""
    return re.sub(r"%\((\w+)\)s", lambda found: str(getattr(action, found[1], found[0])), text).replace(
        "%%", "%"
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
