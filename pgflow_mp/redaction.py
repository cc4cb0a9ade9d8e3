"""Keeping passwords out of everything that is shown or logged."""

from __future__ import annotations

import re

MASK = "***"

# To the last "@" of the word, since a password that is not percent-encoded may hold "@", "/" or "?":
# rather hide a host too many than show a part of a password.
_IN_AUTHORITY = re.compile(r"(://[^:@/\s]*):\S*@")
_IN_QUERY = re.compile(r"([?&](?:\w*password|oauth_client_secret)=)[^&\s\"]*", re.IGNORECASE)
_IN_PAIRS = re.compile(
    r"((?<![?&])\b(?:\w*password|oauth_client_secret)\s*=\s*)('(?:[^'\\]|\\.)*+(?:'|$)|(?:\\.|[^\s\\])++)",
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
    text = _IN_AUTHORITY.sub(rf"\1:{MASK}@", text)
    text = _IN_QUERY.sub(rf"\1{MASK}", text)
    return _IN_PAIRS.sub(rf"\1{MASK}", text)
