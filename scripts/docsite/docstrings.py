"""What docstrings name without markup becomes a link: errors of ours, pages as docs/flows.md."""

from __future__ import annotations

import inspect
import re

import pgflow_mp


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Exception)


_ERRORS = "|".join(name for name in pgflow_mp.__all__ if _is_error(getattr(pgflow_mp, name)))
_NAMED = re.compile(
    rf"(?P<code>``.*?``|`[^`]*`)|\bdocs/(?P<page>[\w-]+)\.md\b|(?<![\w.])(?P<error>{_ERRORS})\b(?! *[(])"
)


def link_names(
    _app: object, _what: str, _name: str, _value: object, _options: object, lines: list[str]
) -> None:
    """Makes links of what docstrings name without markup: pages, as docs/flows.md, and errors of ours."""
    for number, line in enumerate(lines):
        if not line.startswith("    "):
            lines[number] = _NAMED.sub(lambda found: found[0] if found["code"] else _link(found), line)


def _link(found: re.Match[str]) -> str:
    return f":doc:`/{found['page']}`" if found["page"] else f":exc:`{found['error']}`"
