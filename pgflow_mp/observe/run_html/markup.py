"""Pieces of HTML. Every text that is passed in is escaped; what is HTML already is marked as such."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from pgflow_mp.observe.text import shorten
from pgflow_mp.redaction import printable, redact, redact_members

_NOT_IN_HTML: Final = re.compile("[\ud800-\udfff\ufffe\uffff]")
_LONGEST: Final = 64 * 1024
_SPACE: Final = re.compile(r"\s")


class Html(str):
    """A text that is HTML."""

    __slots__ = ()


Cell = Html | str | int | None


def text(value: str) -> Html:
    """A text as HTML; what commands a terminal or is no character is not in it."""
    return Html(escape(_NOT_IN_HTML.sub("\ufffd", printable(value))))


def without_secrets(value: str, limit: int) -> str:
    """A text of somebody's, at most so many characters of its beginning and its end, without passwords."""
    if len(value) > _LONGEST:  # not in the midst of a word, of which no part may stay
        cut = value[:_LONGEST]
        spaces = [found.start() for found in _SPACE.finditer(cut)]
        value = cut[: spaces[-1]] if spaces else ""
    value = redact_members(redact(value))
    if len(value) <= limit:
        return value
    end = limit // 2
    return f"{value[: limit - end]}\n[... {len(value) - limit:,} characters left out ...]\n{value[-end:]}"


def one_line(value: str, limit: int) -> str:
    """A text of somebody's in one line of so many characters, without passwords."""
    return shorten(without_secrets(value, _LONGEST), limit)


def cell(value: Cell) -> str:
    """What is in a table's cell: numbers with commas, nothing where there is nothing."""
    if value is None:
        return ""
    if isinstance(value, Html):
        return value
    return f"{value:,}" if isinstance(value, int) else text(value)


def table(
    name: str, head: Sequence[str], rows: Iterable[Sequence[Cell]], *, numbers: Iterable[int] = ()
) -> Html:
    """A table that is scrolled where it is too wide; the columns in ``numbers`` are those of numbers."""
    right = set(numbers)

    def row(tag: str, cells: Sequence[Cell]) -> str:
        written = (
            f"<{tag}{' class=number' if place in right else ''}>{cell(each)}</{tag}>"
            for place, each in enumerate(cells)
        )
        return f"<tr>{''.join(written)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return Html(
        f'<div class="scroll" tabindex="0"><table><caption>{text(name)}</caption>'
        f"<thead>{row('th', head)}</thead><tbody>{body}</tbody></table></div>"
    )


def folded(summary: Html, inner: Html, *, opened: bool = False) -> Html:
    """What is shown once one asks for it."""
    return Html(f"<details{' open' if opened else ''}><summary>{summary}</summary>{inner}</details>")


def state(word: str) -> Html:
    """A state in words and in its colour."""
    return Html(f'<span class="state is-{re.sub("[^a-z_]", "", word)}">{text(word.replace("_", " "))}</span>')


def section(name: str, title: str, *inner: str) -> Html:
    """A part of the page that links lead to."""
    return Html(f'<section id="{name}"><h2>{text(title)}</h2>{"".join(inner)}</section>')


def paragraph(value: str, kind: str = "") -> Html:
    """A sentence."""
    return Html(f"<p{f' class={kind}' if kind else ''}>{text(value)}</p>")
