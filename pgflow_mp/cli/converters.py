"""Values of options and environment variables: text in, value out, ArgumentTypeError if it makes no sense."""

from __future__ import annotations

import argparse
import contextlib
import re
from datetime import datetime, timedelta
from typing import Final

_UNITS: Final = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SECONDS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
_AGES: Final = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_OLDEST: Final = 36_500 * 86_400
_LARGEST: Final = 2**31 - 1
_STANDARD_OUTPUT: Final = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
_TRUE: Final = ("1", "true", "yes", "on")
_FALSE: Final = ("", "0", "false", "no", "off")


def boolean(text: str) -> bool:
    """1, true, yes, on; 0, false, no, off and nothing."""
    if text.strip().lower() in _TRUE:
        return True
    if text.strip().lower() in _FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")


def count(text: str) -> int:
    """An integer of at least 1."""
    if not re.fullmatch(r"\s*\+?\d+\s*", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return _storable(text, int(text))


def count_or_auto(text: str) -> int | None:
    """An integer of at least 1; "auto" is None."""
    if text.strip().lower() == "auto":
        return None
    try:
        return count(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of at least 1 nor auto") from None


def workers(text: str) -> int | None:
    """A number of processes, or "auto"."""
    value = count_or_auto(text)
    if value is not None and value > 1024:
        raise argparse.ArgumentTypeError(f"{value} is more than the 1024 processes that one worker can have")
    return value


def executor(text: str) -> str:
    """A word for an executor; whether it is there is found out later."""
    word = text.strip()
    if not re.fullmatch(r"[a-z]+(\+[a-z]+)?(://\S*)?", word):
        raise argparse.ArgumentTypeError(f"{text!r} is not an executor like lanes or threads")
    return word


def modules(text: str) -> tuple[str, ...]:
    """Names of modules, separated by commas; "none" is none."""
    names = tuple(name for part in text.split(",") if (name := part.strip()))
    if names == ("none",):
        return ()
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise argparse.ArgumentTypeError(f"{name!r} is not the name of a module; or give flow, or none")
    return names


def labels(text: str) -> tuple[str, ...]:
    """Labels, separated by commas."""
    from pgflow_mp.flows.labels import labels_of

    try:
        return labels_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """A time that is not negative, in seconds or with a unit: 30, 0.5, 500ms, 10s, 5m, 2h."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|min|m|h|)\s*", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time like 30, 0.5, 10s or 5m")
    return float(match[1]) * _SECONDS[match[2]]


def whole_seconds(text: str) -> int:
    """A time of at least 1 s, rounded up to whole seconds."""
    value = -int(-seconds(text) // 1)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than a second")
    return _storable(text, value)


def age(text: str) -> float:
    """How long ago something was, with a unit: 30d, 12h, 2w, 90min. In seconds, at most a hundred years."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(s|min|m|h|d|w)\s*", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time with its unit like 30d, 12h or 2w")
    if (value := float(match[1]) * _AGES[match[2]]) > _OLDEST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than a hundred years")
    return value


def moment(text: str) -> datetime:
    """A time: how long ago (2h, 3d), or a date, with or without a time and its zone; else our own zone."""
    found = _span_or_date(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither how long ago, like 2h or 3d, nor a date like 2026-11-26 or 2026-11-26T14:30"
        )
    return datetime.now().astimezone() - found if isinstance(found, timedelta) else found


def pause(text: str) -> timedelta:
    """How long, with a unit, and more than nothing."""
    if not (value := age(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a length of time")
    return timedelta(seconds=value)


def later(text: str) -> datetime | timedelta:
    """A time to come: in how long (10m, 2h), or a date, with or without a time and its zone; else ours."""
    found = _span_or_date(text)
    if found is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither in how long, like 10m or 2h, nor a date like 2026-11-27 or 2026-11-27T03:00"
        )
    return found


def _span_or_date(text: str) -> datetime | timedelta | None:
    with contextlib.suppress(argparse.ArgumentTypeError):
        return timedelta(seconds=age(text))
    with contextlib.suppress(ValueError, OverflowError, OSError):
        return datetime.fromisoformat(text.strip()).astimezone()
    return None


def integer(text: str) -> int:
    """An integer, of either sign."""
    if not re.fullmatch(r"\s*[+-]?\d+\s*", text) or abs(int(text)) > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number within {-_LARGEST} .. {_LARGEST}")
    return int(text)


def port(text: str) -> int:
    """A TCP port; 0: any that is free."""
    if not re.fullmatch(r"\s*\d{1,5}\s*", text, re.ASCII) or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, a number up to 65535; 0: any that is free")
    return int(text)


def natural(text: str) -> int:
    """An integer that is not negative."""
    if not re.fullmatch(r"\s*\+?\d+\s*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
    return _storable(text, int(text))


def _storable(text: str, value: int) -> int:
    """The value, where PostgreSQL's integers go so far: each claim, or each look, would fail of it."""
    if value > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {_LARGEST:,}, the largest integer there is")
    return value


def size(text: str) -> int:
    """A number of bytes, with a unit if wanted: 500MB, 2G, 1.5GiB (units of 1024)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([kmgt]?)(?:i?b)?\s*", text.lower())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 500MB or 2G")
    return int(float(match[1]) * _UNITS[match[2]])


def retry(text: str) -> dict[str, object]:
    """STRATEGY[,NAME=N...] as QueueWorker's retry has it: exponential,limit=5,base=3,cap=300."""
    strategy, *options = (part.strip() for part in text.split(","))
    found: dict[str, object] = {"strategy": strategy}
    for option in options:
        name, _, value = option.partition("=")
        if not re.fullmatch(r"\d{1,18}", value.strip()):
            raise argparse.ArgumentTypeError(f"{option!r} is not NAME=N, a whole number")
        found[name.strip()] = int(value)
    return found


def output_file(text: str) -> str:
    """The name of a file to write; standard output, whatever it is called, is ``-``."""
    return "-" if text in _STANDARD_OUTPUT else text
