"""Labels: what a worker has, such as gpu or bigmem, and what a step requires of it (docs/limits.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=@+-]{0,63}")
_MOST: Final = 100


def labels_of(given: object) -> tuple[str, ...]:
    """The labels in a text, separated by commas, or in several; each once, in order. Raises ValueError."""
    if given is None:
        return ()
    if isinstance(given, str):
        given = [part.strip() for part in given.split(",")]
    if not isinstance(given, Iterable) or isinstance(given, bytes):
        raise ValueError(f'labels are texts, such as ["gpu", "bigmem"], not {given!r}')
    labels: set[str] = set()
    for label in given:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise ValueError(
                f"{label!r} is not a label: that is 1 to 64 letters, digits and ._:/=@+-, the first a letter "
                "or a digit"
            )
        labels.add(label)
    if len(labels) > _MOST:
        raise ValueError(f"there may be {_MOST} labels at most, not {len(labels)}")
    return tuple(sorted(labels))
