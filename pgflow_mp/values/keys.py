"""Keys of dicts: JSON has strings for them, so two may become one, and some become nothing."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pgflow_mp.values.encoding import LONGEST_KEY, OutputError, encode, shown

_DISTINCT: Final[frozenset[type]] = frozenset({str, int})  # keys of one of these differ in JSON, too
_decode: Final = msgspec.json.Decoder(dict[str, None]).decode


def same_in_json(item: Any) -> tuple[Any, Any, str] | None:
    """Two keys of a dict that are one in JSON, and what they are there; else None.

    msgspec writes them both, and whoever reads it keeps the last.
    """
    if not isinstance(item, dict) or (len(kinds := set(map(type, item))) == 1 and kinds <= _DISTINCT):
        return None
    if len(_decode(encode(dict.fromkeys(item)))) == len(item):
        return None
    seen: dict[str, Any] = {}
    for key in item:
        (text,) = _decode(encode({key: None}))
        if text in seen:
            return seen[text], key, text
        seen[text] = key
    return None


def is_key(key: Any) -> bool:
    """Whether it can be a key: with the hook's help a path can, and a number of numpy."""
    try:
        encode({key: None})
    except TypeError:
        return False
    return True


def lost_key(first: Any, second: Any, text: str, path: str) -> OutputError:
    """The error for two keys that are one in JSON, which keeps the last of their values."""
    keys = f"{shown(first)} and {shown(second)}"
    return OutputError(
        f'The keys {keys} of a dict are both "{text[:LONGEST_KEY]}" in JSON{path}',
        hint="JSON has strings for keys, and one value for each: use keys of one type.",
    )
