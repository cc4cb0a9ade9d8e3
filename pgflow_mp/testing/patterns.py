"""PostgreSQL's containment of jsonb values (``@>``), by which conditions are tested."""

from __future__ import annotations

from typing import Any


def contains(value: Any, pattern: Any) -> bool:
    """Whether decoded JSON ``value`` contains ``pattern`` as jsonb's ``@>`` has it."""
    if isinstance(value, list) and not isinstance(pattern, list | dict):
        return any(
            _same(item, pattern) for item in value
        )  # an array may contain a bare scalar: at the top only
    return _contains(value, pattern)


def _contains(value: Any, pattern: Any) -> bool:
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            key in value and _contains(value[key], part) for key, part in pattern.items()
        )
    if isinstance(pattern, list):
        return isinstance(value, list) and all(
            any(_contains(item, part) for item in value) for part in pattern
        )
    return _same(value, pattern)


def _same(value: Any, pattern: Any) -> bool:
    if isinstance(value, bool) or isinstance(pattern, bool):  # to Python True is 1
        return value is pattern
    return not isinstance(value, list | dict) and bool(value == pattern)
