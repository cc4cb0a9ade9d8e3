"""Tags on the command line: ``--tag`` of runs that are started, and of those that are looked for."""

from __future__ import annotations

import argparse

from pgflow_mp.cli.parser import Parser


def add_tags(parser: Parser, help: str, group: argparse._ArgumentGroup | None = None) -> None:
    """--tag, which may be given several times."""
    parser.option("--tag", env="PGFLOW_TAG", metavar="TAG", group=group, action="append", help=help)


def tag_choice(given: list[str] | str | None) -> tuple[str, ...]:
    """What ``add_tags`` has found; of the environment, several with commas. Raises InputError."""
    if not given:
        return ()
    from pgflow_mp.db.run_tags import check_tags

    return check_tags(given if isinstance(given, list) else [part.strip() for part in given.split(",")])
