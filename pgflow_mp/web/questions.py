"""What a visitor asks for, checked: pieces of a path, and the query behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode
from uuid import UUID

from pgflow_mp.errors import InputError

SAID: Final = "said"
"""Of the query: the number of what an action has done."""
_LONGEST: Final = 500
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class PageQuery:
    """A page that was asked for: its ``path``, what stands in it, and its ``query``.

    ``may_act``: the page was started for actions. ``options``: what a command line needs for the database.
    """

    path: str
    pieces: Mapping[str, str]
    query: Mapping[str, str]
    may_act: bool = False
    options: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """The run in the path."""
        return str(UUID(self.pieces["run"]))

    @property
    def index(self) -> int:
        """The item in the path."""
        return int(self.pieces["index"])

    def text(self, name: str) -> str | None:
        """A text of the query; None if it is not there or empty."""
        return self.query.get(name, "").strip() or None

    def choice(self, name: str, known: tuple[str, ...]) -> str | None:
        """One of some words. Raises InputError for another."""
        word = self.text(name)
        if word is not None and word not in known:
            raise InputError(f"{name} is {word!r}, which is not one of: {', '.join(known)}")
        return word

    def number(self, name: str, default: int, most: int = 2**31 - 2) -> int:
        """A number from 0 on. Raises InputError."""
        word = self.text(name)
        if word is None:
            return default
        if not re.fullmatch("[0-9]{1,10}", word) or int(word) > most:
            raise InputError(f"{name} is {word[:40]!r}, which is not a number from 0 to {most}")
        return int(word)

    def moment(self, name: str) -> datetime | None:
        """A time as a browser's field for it says it, in UTC unless it says otherwise. Raises InputError."""
        word = self.text(name)
        if word is None:
            return None
        try:
            found = datetime.fromisoformat(word)
        except ValueError:
            raise InputError(f"{name} is {word[:40]!r}, which is not a time like 2026-11-26T03:00") from None
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def identity(self, name: str) -> str | None:
        """An id. Raises InputError."""
        word = self.text(name)
        if word is None:
            return None
        try:
            return str(UUID(word))
        except ValueError:
            raise InputError(f"{name} is {word[:40]!r}, which is not an id") from None

    def link(self, **changed: Any) -> str:
        """This page with another query."""
        kept = {
            name: str(value)
            for name, value in {**self.query, **changed}.items()
            if value not in (None, "") and name != SAID
        }
        return self.path + ("?" + urlencode(kept) if kept else "")


def question(
    path: str, pieces: Mapping[str, str], query: str, *, may_act: bool = False, options: tuple[str, ...] = ()
) -> PageQuery:
    """Of a path that has been matched and a query as it was sent. Raises InputError for what is no text."""
    try:
        found = dict(parse_qsl(query, encoding="utf-8", errors="strict", max_num_fields=50))
    except ValueError:
        raise InputError("The query of this address cannot be read") from None
    for name, value in found.items():
        if len(value) > _LONGEST or _NO_TEXT.search(value) or _NO_TEXT.search(name):
            raise InputError("The query of this address has a value that is too long, or is not text")
    return PageQuery(path, pieces, found, may_act, options)


Matcher = Callable[[str], "re.Match[str] | None"]

RUN: Final = r"(?P<run>[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12})"
SLUG: Final = r"(?P<{}>[a-zA-Z_][a-zA-Z0-9_]{{0,127}})"
STEP: Final = SLUG.format("step")
FLOW: Final = SLUG.format("flow")
INDEX: Final = r"(?P<index>[0-9]{1,9})"
WORKER: Final = RUN.replace("run", "worker")


def pattern(text: str) -> Matcher:
    """A whole path."""
    return re.compile(text).fullmatch


def way(*pieces: object) -> str:
    """A path of these pieces, each quoted."""
    return "/" + "/".join(quote(str(piece), safe="") for piece in pieces)
