"""Pages of SQL functions, made from their files: signature, comment, errors, who may call them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from docsite.rst import code, heading, literal, plain, prose, table, toctree
from docsite.staging import Stage
from pgflow_mp.db.rights import ACCESS

FOLDER = "reference/sql"
ROOT = Path(__file__).resolve().parent.parent.parent.parent
OWNER = "owner"
WHO = {
    "reader": (
        "Reading",
        "What reads runs, items, workers, schedules. Every role of ``pgflow.grant_access`` may call it.",
    ),
    "starter": ("Starting", "What starts runs and keeps schedules: for starters, operators and workers."),
    "operator": ("Steering", "What cancels, retries, pauses, limits and removes: for operators."),
    "worker": ("Working", "What workers call: claims, leases, results, signs of life."),
    OWNER: ("Owning", "What only the owner of the schema may call: definitions, rights, upkeep."),
}
"""Pages by the least access of pgflow.grant_access that a function needs."""
_FUNCTION = re.compile(
    r"(?P<comment>(?:^--[^\n]*\n)*)"
    r"^create (?:or replace )?function pgflow\.(?P<name>[a-z]\w*)(?P<signature>\(.*?)\n"
    r"language (?P<rest>.*?)^(?:as )?\$(?P<tag>\w*)\$(?P<body>.*?)\$(?P=tag)\$;",
    re.MULTILINE | re.DOTALL,
)
_RAISED = re.compile(r"raise exception\s+'((?:[^']|'')*)'.*?(?:errcode = '(\w+)'|;)", re.DOTALL)


class Function(NamedTuple):
    """An SQL function of the public surface: one of its signatures, and what is said of it."""

    name: str
    signature: str
    comment: str
    access: str
    file: str
    errors: tuple[tuple[str, str], ...]
    """(code, text) of what it raises itself; the code is empty for the usual one of ``raise``."""


@cache
def functions() -> list[Function]:
    """All that are not internal, in the order in which they are defined."""
    found = []
    for path in sorted((ROOT / "sql" / "functions").glob("*.sql")):
        for match in _FUNCTION.finditer(path.read_text(encoding="utf-8")):
            comment = " ".join(line.removeprefix("--").strip() for line in match["comment"].splitlines())
            name = match["name"]
            errors = tuple(
                (code, text.replace("''", "'"))
                for text, code in dict.fromkeys(_RAISED.findall(match["body"]))
            )
            file = path.relative_to(ROOT).as_posix()
            found.append(
                Function(name, name + match["signature"], comment, ACCESS.get(name, OWNER), file, errors)
            )
    return found


def write(stage: Stage) -> str:
    """Write the pages; the place of their overview."""
    for access, (title, about) in WHO.items():
        stage.write(f"{FOLDER}/{access}.rst", "\n".join(_page(access, title, about)))
    stage.write(f"{FOLDER}/index.rst", "\n".join(_overview()))
    return f"{FOLDER}/index.rst"


def _overview() -> Iterator[str]:
    yield heading("SQL functions")
    yield (
        "Everything that the package does to the database is a function of the schema ``pgflow``, which "
        "other programs may call, too. ``select pgflow.grant_access('role', 'starter')`` lets a role call "
        "those of a page and of the pages before it, and a worker those of the first two and its own "
        "(:doc:`/server`). :doc:`/contract/sql` is the interface of pgflow that is kept to the letter.\n"
    )
    rows: list[tuple[str, ...]] = []
    for access, (title, _) in WHO.items():
        names = dict.fromkeys(function.name for function in functions() if function.access == access)
        linked = [f":ref:`{name} <sql-{name}>`" for name in names]
        rows.append((f":doc:`{title} <{access}>`", ", ".join(linked)))
    yield table(("page", "functions"), rows, (1, 6))
    yield toctree([f"{title} <{access}>" for access, (title, _) in WHO.items()])


def _page(access: str, title: str, about: str) -> Iterator[str]:
    yield heading(title)
    yield f"{about}\n"
    shown: dict[str, list[Function]] = {}
    for function in functions():
        if function.access == access:
            shown.setdefault(function.name, []).append(function)
    for name, forms in shown.items():
        yield f".. _sql-{name}:\n"
        yield heading(name, "-")
        for form in forms:
            yield code(form.signature, "sql")
            yield prose(_told(form.comment)) + "\n"
        errors = dict.fromkeys(error for form in forms for error in form.errors)
        for state, text in errors:
            yield f"* raises {literal(state) if state else 'an error'}: *{plain(text).strip()}*"
        yield ""


def _told(comment: str) -> str:
    """A comment as a paragraph."""
    text = comment.removeprefix("Ours: ")
    return text[:1].upper() + text[1:]
