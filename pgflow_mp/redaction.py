"""Keeping passwords, and what commands a terminal, out of everything that is shown or logged."""

from __future__ import annotations

import re
from typing import Final

MASK = "***"

# With line and paragraph separators, and what changes the direction of the text around it.
CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")

# To the last "@" of the word, since a password that is not percent-encoded may hold "@", "/" or "?":
# rather hide a host too many than show a part of a password.
_IN_AUTHORITY = re.compile(r"://[^:@/\s]*:")
_SPACE = re.compile(r"(\s+)")
_IN_QUERY = re.compile(r"([?&](?:\w*password|oauth_client_secret)=)[^&\s\"]*", re.IGNORECASE)
_IN_PAIRS = re.compile(
    r"((?<![?&])\b(?:\w*password|oauth_client_secret)\s*=\s*)('(?:[^'\\]|\\.)*+(?:'|$)|(?:\\.|[^\s\\])++)",
    re.IGNORECASE | re.DOTALL,
)
_IN_MEMBERS = re.compile(
    r"""((["'])\w{0,40}(?:passw(?:or)?d|secret|token|api_?key)\w{0,40}\2\s*:\s*)(["'])(?:[^"'\\]|\\.|(?!\3)["'])*(\3|$)""",
    re.IGNORECASE | re.DOTALL,
)
_SHORTEST_REPLACED = 4  # replacing "a" everywhere would leave no readable text


def redact(text: str, *secrets: str | None) -> str:
    """Return a connection string, or a text that quotes one, with every password as ``***``.

    Both forms are known: ``postgresql://user:password@host/db?password=...`` and ``password=...``
    pairs. ``secrets`` are further values to hide wherever they occur.
    """
    for secret in secrets:
        if secret and len(secret) >= _SHORTEST_REPLACED:
            text = text.replace(secret, MASK)
    if "://" in text and "@" in text:
        text = "".join(map(_without_authority, _SPACE.split(text)))
    text = _IN_QUERY.sub(rf"\1{MASK}", text)
    return _IN_PAIRS.sub(rf"\1{MASK}", text)


def _without_authority(word: str) -> str:
    """In time that grows with the word, no faster: some are made to be slow to look through."""
    end = word.rfind("@")
    begin = _IN_AUTHORITY.search(word, 0, end) if end > 0 else None
    return word if begin is None else f"{word[: begin.end()]}{MASK}{word[end:]}"


def redact_members(text: str) -> str:
    """A text with objects in it, as JSON or Python writes them, without texts of members like "password"."""
    return _IN_MEMBERS.sub(rf"\1\3{MASK}\4", text)


def printable(text: str) -> str:
    """All lines of a text without control characters but tabs: no text of others commands a terminal."""
    return "\n".join(
        "\t".join(CONTROL.sub(" ", part) for part in line.split("\t")) for line in text.split("\n")
    )
