"""Times as ISO 8601 has them, in whole nanoseconds, where Python's have microseconds."""

from __future__ import annotations

import datetime
import re
from typing import Any, Final

import msgspec

_DURATION: Final = re.compile(
    r"(-?)P(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12})(?:\.(\d{1,9}))?S)?)?"
)
_FRACTION: Final = re.compile(r":\d\d\.(\d{1,9})")
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_SECOND: Final = 10**9
_DAY: Final = 86_400


def duration(count: int, per_second: int = 1) -> str:
    """An ISO 8601 duration: P1DT5.000007S."""
    nanoseconds = abs(count) * (_SECOND // per_second)
    seconds, rest = divmod(nanoseconds, _SECOND)
    days, seconds = divmod(seconds, _DAY)
    time = f"T{seconds}{_digits(rest)}S" if seconds or rest or not days else ""
    return f"{'-' * (count < 0)}P{f'{days}D' * bool(days)}{time}"


def of_duration(text: str) -> int:
    """Nanoseconds of an ISO 8601 duration. Raises ValueError."""
    found = _DURATION.fullmatch(text)
    if not found or text[-1] in "PT":
        raise ValueError("Invalid ISO8601 duration")
    sign, days, hours, minutes, seconds, fraction = found.groups()
    total = int(days or 0) * _DAY + int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return (-1 if sign else 1) * (total * _SECOND + int((fraction or "").ljust(9, "0")))


def moment(nanoseconds: int, zone: Any) -> str:
    """Nanoseconds since 1970 as date and time, in a zone (a tzinfo) or without one."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    at = _EPOCH + datetime.timedelta(seconds=seconds)
    text = at.replace(tzinfo=None).isoformat() if zone is None else at.astimezone(zone).isoformat()
    return text[:19] + _digits(rest) + text[19:]


def of_moment(text: str) -> tuple[int, bool]:
    """(nanoseconds since 1970, whether it has a zone) of a date, or of a date and time. Raises ValueError."""
    kind: Any = datetime.date if len(text) == 10 else datetime.datetime
    found = _parsed(text, kind)
    at = datetime.datetime(found.year, found.month, found.day) if len(text) == 10 else found
    aware = at.tzinfo is not None
    whole = (at if aware else at.replace(tzinfo=datetime.UTC)).replace(microsecond=0) - _EPOCH
    return (whole.days * _DAY + whole.seconds) * _SECOND + _fraction(text), aware


def time_of_day(nanoseconds: int) -> str:
    """Nanoseconds since midnight as a time."""
    return moment(nanoseconds, None).partition("T")[2]


def of_time(text: str) -> int:
    """Nanoseconds since midnight of a time without a zone. Raises ValueError."""
    found: datetime.time = _parsed(text, datetime.time)
    if found.tzinfo is not None:
        raise ValueError("Expected a time without a zone")
    return ((found.hour * 60 + found.minute) * 60 + found.second) * _SECOND + _fraction(text)


def _digits(nanoseconds: int) -> str:
    return f".{nanoseconds:09}".rstrip("0").rstrip(".")


def _fraction(text: str) -> int:
    found = _FRACTION.search(text)
    return int(found[1].ljust(9, "0")) if found else 0


def _parsed(text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
