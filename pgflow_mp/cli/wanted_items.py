"""Which items somebody wants of a step, and what of each: --status, --fields, --follow and their like."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pgflow_mp.cli.parser import Parser

if TYPE_CHECKING:
    from pgflow_mp.db.reads.records import Record
    from pgflow_mp.io.picking import Fields

_STATUSES: Final = ("queued", "started", "completed", "failed", "skipped", "cancelled")
ENDED: Final = ("completed", "failed")
"""What items can become while they are followed."""


def add_wanted(parser: Parser) -> None:
    """The options, which make records of plain results."""
    parser.option(
        "--with-input",
        env="PGFLOW_WITH_INPUT",
        flag=True,
        default=False,
        help="of each item of a map an object of index, status, input, output and error, also while it runs "
        "and where it failed",
    )
    parser.option(
        "--failed",
        env="PGFLOW_FAILED",
        flag=True,
        default=False,
        help="only the items that failed: index, status, input, attempts, error",
    )
    parser.option(
        "--status",
        env="PGFLOW_STATUS",
        metavar="STATUS",
        action="append",
        convert=_statuses,
        help=f"only items that are {', '.join(_STATUSES[:-1])} or {_STATUSES[-1]}: index, status, output, "
        "error; several with commas",
    )
    parser.option(
        "--fields",
        env="PGFLOW_FIELDS",
        metavar="NAMES",
        help="of each item these members of its output, as in words,author.name, or of its own: "
        "index, status, attempts, input, output, error, seconds",
    )
    parser.option(
        "--follow",
        env="PGFLOW_FOLLOW",
        flag=True,
        default=False,
        help="write items as they end, until the run does: a line of JSON each, and none twice",
    )


def _statuses(text: str) -> tuple[str, ...]:
    found = tuple(word.strip() for word in text.split(","))
    for word in found:
        if word not in _STATUSES:
            raise argparse.ArgumentTypeError(f"{word!r} is not one of {', '.join(_STATUSES)}")
    return found


@dataclass(frozen=True)
class WantedItems:
    """``statuses`` is None for all of them, ``names`` are the item's own fields unless ``fields`` are picked.

    If nothing of it is wanted, there are the plain results.
    """

    names: tuple[str, ...]
    statuses: tuple[str, ...] | None
    fields: Fields | None
    follow: bool
    inputs: bool
    any: bool

    @property
    def at_any_time(self) -> bool:
        """Whether what is not there yet is seen to be missing."""
        return self.inputs or self.statuses is not None or bool(self.fields and self.fields.wants("status"))

    @property
    def needs_input(self) -> bool:
        """Whether anything of the input is written."""
        return self.inputs or bool(self.fields and self.fields.wants("input"))

    def write(self, record: Record) -> bytes:
        """An item as it is written, raw JSON."""
        if self.fields is not None:
            return self.fields.pick(record)
        if not self.any:
            return record["output"] or b"null"
        parts = [b'"%s": %s' % (name.encode(), record[name] or b"null") for name in self.names]
        return b"{" + b", ".join(parts) + b"}"


def tell_unmet(wanted: WantedItems, count: int) -> None:
    """Say which of the fields no item had: a slip, maybe."""
    if count and wanted.fields is not None and wanted.fields.unmet:
        names = ", ".join(name for name in wanted.fields.names if name in wanted.fields.unmet)
        print(f"warning: --fields: no item has {names}", file=sys.stderr)
