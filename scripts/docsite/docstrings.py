"""Docstrings as pages show them: examples are code, errors of ours and pages as docs/flows.md are links."""

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


def render(_app: object, _what: str, _name: str, _value: object, _options: object, lines: list[str]) -> None:
    """Sphinx's autodoc-process-docstring: changes the lines in place."""
    lines[:] = _with_examples(lines)
    for number, line in enumerate(lines):
        if not line.startswith("    "):
            lines[number] = _NAMED.sub(lambda found: found[0] if found["code"] else _link(found), line)


def _link(found: re.Match[str]) -> str:
    return f":doc:`/{found['page']}`" if found["page"] else f":exc:`{found['error']}`"


def _with_examples(lines: list[str]) -> list[str]:
    """Paragraphs that are indented are code in Python, whether or not the one before ends with two colons."""
    found: list[str] = []
    before = ""
    for number, line in enumerate(lines):
        begins = line.startswith("    ") and number and not lines[number - 1].strip()
        if begins and before and not before.startswith((" ", "*", "-", ".. ")) and not before.endswith("::"):
            found += [".. code-block:: python", ""]
        found.append(line)
        before = line if line.strip() else before
    return found
