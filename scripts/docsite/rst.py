"""Texts as reStructuredText: the generated pages are written in it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\*`|]|(?<=\w)_(?!\w))")
_LITERAL = re.compile(
    r"`[^`\n]+`"  # written so already
    r"|(?<![\w-])--?[a-z][\w-]*(?:=\S+)?"  # --option
    r"|\b(?:PGFLOW|XDG|OTEL)_\w+|\b[A-Z]+(?:_[A-Z]+)+\b"  # a variable
    r"|\b\w+\.\w+\([^()]*\)|\b\w+\(\)"  # a call
)


def heading(text: str, line: str = "=") -> str:
    """A title."""
    return f"{text}\n{line * len(text)}\n"


def plain(text: str) -> str:
    """A text in which nothing is markup."""
    return _SPECIAL.sub(r"\\\1", text)


def prose(text: str) -> str:
    """A text in which options, variables, calls and what stands between backticks are shown as code."""
    parts, at = [], 0
    for found in _LITERAL.finditer(text):
        before, at = text[at : found.start()], found.end()
        apart = ("\\ " if before[-1:].strip() else "", "\\ " if text[at : at + 1].strip() else "")
        parts += [plain(before), apart[0], literal(found[0].strip("`")), apart[1]]
    return "".join([*parts, plain(text[at:])])


def literal(text: str) -> str:
    """A text as code."""
    return f"``{text}``"


def code(text: str, language: str) -> str:
    """A block of code."""
    return f".. code-block:: {language}\n\n{textwrap.indent(text.rstrip(), '   ')}\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], widths: tuple[int, ...]) -> str:
    """A table whose cells are reStructuredText."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {' '.join(map(str, widths))}", ""]
    for row in (head, *rows):
        for number, cell in enumerate(row):
            first, *more = cell.split("\n")
            lines.append(f"   {'* -' if number == 0 else '  -'} {first}".rstrip())
            lines += [f"       {line}".rstrip() for line in more]
    return "\n".join([*lines, ""])


def toctree(documents: list[str], *, hidden: bool = True) -> str:
    """A list of pages below this one."""
    return "\n".join(
        [".. toctree::", *(["   :hidden:"] if hidden else []), "", *(f"   {it}" for it in documents), ""]
    )
