"""Limits of a flow and its steps: so many items at once, so many a second (docs/limits.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pgflow_mp.errors import FlowDefinitionError

LARGEST_RATE: Final = 1e9  # a second; the database takes no more
_LARGEST: Final = 2_147_483_647  # the columns are PostgreSQL integers
_UNITS: Final = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600}
_HINT: Final = 'A number is a second\'s. For example: rate="100/s", "30/min" or "1000/h"'


def per_second(given: object) -> float:
    """How many a second ``"100/s"``, ``"30/min"``, ``"0.5/h"`` or a number means. Raises ValueError."""
    value: float | None = None
    if isinstance(given, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:/\s*([a-z]+)\s*)?", given.lower())
        if match is not None and (match[2] or "s") in _UNITS:
            value = float(match[1]) / _UNITS[match[2] or "s"]
    elif isinstance(given, int | float) and not isinstance(given, bool):
        value = float(given) if abs(given) < 1e300 else math.inf
    if value is None:
        raise ValueError(f"{given!r} is not a rate like 100/s, 30/min or 1000/h")
    if not 0 < value <= LARGEST_RATE:
        raise ValueError(
            f"{given!r} is out of range: a rate is more than 0 and at most {LARGEST_RATE:,.0f} a second"
        )
    return value


def check_limits(options: Mapping[str, object], where: str) -> Mapping[str, int | float]:
    """The limits among ``options`` by the parameters of pgflow.define_limit. Raises FlowDefinitionError."""
    limits: dict[str, int | float] = {}
    for name, parameter in (("limit", "at_once"), ("burst", "burst")):
        value = options.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise FlowDefinitionError(
                f"{name} must be an integer, not {type(value).__name__}",
                hint=f"It was given for {where}.",
                option=name,
            )
        if not 1 <= value <= _LARGEST:
            hint = " To hold everything back, pause it." if value == 0 and name == "limit" else ""
            raise FlowDefinitionError(
                f"{name} must be from 1 to {_LARGEST}", hint=f"{where} has {value}.{hint}", option=name
            )
        limits[parameter] = value
    if (rate := options.get("rate")) is not None:
        try:
            limits["rate"] = per_second(rate)
        except ValueError as error:
            raise FlowDefinitionError(f"rate of {where}: {error}", hint=_HINT, option="rate") from None
    elif "burst" in limits:
        raise FlowDefinitionError(
            f"burst of {where} is how many of a rate may begin at one moment, and it has no rate",
            hint=_HINT,
            option="burst",
        )
    return MappingProxyType({name: limits[name] for name in ("at_once", "rate", "burst") if name in limits})
