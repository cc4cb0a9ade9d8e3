"""What feeds a run, on the command line: ``--input`` and the options that say how it is to be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pgflow_mp.cli.converters import integer
from pgflow_mp.cli.parser import Parser, UsageError
from pgflow_mp.cli.tag_options import add_tags

_FORMATS: Final = ("json", "jsonl", "csv", "tsv", "parquet", "arrow", "lines", "paths")
_NAME: Final = re.compile(r"[^=\s]+")


def add_input(parser: Parser) -> None:
    """--input and how it is to be read, --sql, --set, --key, --tag, --priority."""
    parser.option(
        "--input",
        "-i",
        env="PGFLOW_INPUT",
        metavar="INPUT",
        help="the run's input: a file (.json; .jsonl, .csv, .tsv, .parquet: an item a line or row; also "
        "compressed), a folder or pattern ('data/**/*.png': a path an item), a URL, JSON text, or - for "
        "standard input; without it an example uses its own, other flows {}",
    )
    group = parser.add_argument_group("input")
    parser.option(
        "--format",
        env="PGFLOW_FORMAT",
        choices=_FORMATS,
        metavar="FORMAT",
        group=group,
        help=f"how the input is to be read, whatever its ending: {', '.join(_FORMATS)}",
    )
    parser.option(
        "--jsonl",
        env="PGFLOW_JSONL",
        flag=True,
        group=group,
        help="the same as --format jsonl; --no-jsonl as --format json",
    )
    parser.option(
        "--each-line",
        env="PGFLOW_EACH_LINE",
        flag=True,
        default=False,
        group=group,
        help="every line of the input is an item, a text; the same as --format lines",
    )
    parser.option(
        "--with-stat",
        env="PGFLOW_WITH_STAT",
        flag=True,
        default=False,
        group=group,
        help="of a folder or pattern: items are objects of path, size (bytes) and mtime (seconds)",
    )
    parser.option(
        "--sql",
        env="PGFLOW_SQL",
        metavar="QUERY",
        group=group,
        help="the rows of a query are the items, objects by the names of the columns",
    )
    parser.option(
        "--sql-dsn",
        env="PGFLOW_SQL_DSN",
        metavar="URL",
        group=group,
        help="the PostgreSQL server that --sql asks; without it the database of the runs",
    )
    parser.option(
        "--set",
        env="PGFLOW_SET",
        metavar="PARAMETER",
        group=group,
        action="append",
        help="NAME=VALUE for the other steps, which read it as the run's input where the items come from "
        "elsewhere; JSON, else a text; several times",
    )
    parser.option(
        "--on-bad-line",
        env="PGFLOW_ON_BAD_LINE",
        choices=("fail", "skip"),
        default="fail",
        metavar="HOW",
        group=group,
        help="what is no item: fail (the default), so that nothing starts, or skip, which collects it in a "
        "file NAME.bad.jsonl here",
    )
    parser.option(
        "--key",
        env="PGFLOW_KEY",
        metavar="NAME",
        help="a name for the run, among those of its flow: with the same input it is started once, and found "
        "again after that",
    )
    add_tags(parser, "a label for the run, to find it by (runs --tag TAG); several times")
    parser.option(
        "--priority",
        env="PGFLOW_PRIORITY",
        convert=integer,
        default=0,
        metavar="N",
        help="among the runs of a flow, those of the highest priority are worked on first (default: 0)",
    )


@dataclass(frozen=True, slots=True)
class InputChoice:
    """What feeds a run. ``text`` is what --input names, ``format`` how it is to be read if that was said.

    ``params`` are those of --set, None without any.
    """

    text: str | None = None
    format: str | None = None
    stat: bool = False
    sql: str | None = None
    sql_dsn: str | None = None
    params: Mapping[str, Any] | None = field(default=None)
    skip: bool = False

    @property
    def given(self) -> bool:
        """Whether there is any input."""
        return self.text is not None or self.sql is not None


def agree(known: str | None, other: str, flag: str) -> str:
    """The format that a flag stands for. Raises UsageError where another was asked for."""
    if known not in (None, other):
        raise UsageError(
            f"{flag} means --format {other}, and {known} was asked for", hint="Give one of them."
        )
    return other


def parameter(text: str) -> tuple[str, Any]:
    """Name and value of one --set. Raises UsageError."""
    import json

    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise UsageError(f"--set {text}: this is not a NAME=VALUE", hint="For example: --set rate=0.5")

    def refuse(_word: str) -> Any:
        raise ValueError

    try:
        return name, json.loads(value, parse_constant=refuse)
    except ValueError:
        return name, value
