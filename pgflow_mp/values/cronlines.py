"""Cron lines: the times that they name, in a time zone.

Five fields (minute, hour, day of the month, month, day of the week) as Debian's cron reads them, with L, LW
and 5#2, or @hourly, @daily, @weekly, @monthly, @yearly. When clocks are put forward, what names an hour that
is missing comes right after it; when they are put back, what names its minutes and hours comes once, at the
first of both times. What comes every few minutes, or every hour (a field that begins with a star), goes by
the time that has passed: nothing comes instead of a missing hour, and one that occurs twice counts twice.
"""

from __future__ import annotations

import difflib
import re
from collections import deque
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from itertools import takewhile
from typing import Final, NamedTuple

from pgflow_mp.errors import InputError

MOST: Final = 1000
"""Times of a backfill."""
_AHEAD: Final = 200
_BEHIND: Final = 100
_FAR: Final = timedelta(days=60)
_FIRST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_HINT: Final = (
    "A cron line has five fields: minute, hour, day of the month, month, day of the week. For example: "
    "'0 3 * * *' is every day at 3, '*/10 8-18 * * MON-FRI' every ten minutes of a working day."
)


class Due(NamedTuple):
    """A time: in UTC, and as a text of the schedule's time zone such as 2026-11-26T03:00+01:00."""

    at: datetime
    local: str


class CronLine:
    """The times that ``line`` names in ``time_zone`` (IANA). Raises InputError for what is neither."""

    def __init__(self, line: str, time_zone: str = "UTC") -> None:
        self.line = " ".join(line.split())
        self.time_zone = time_zone
        self._zone = _zone(time_zone)
        self._fields = _ALIASES.get(self.line.lower(), self.line)
        if len(self._fields.split()) != 5 or len(self.line) > 200:
            raise InputError(f"{line!r} is not a cron line", hint=_HINT)
        now = datetime.now(UTC)
        if not self.after(now, 1):
            raise InputError(f"The cron line {line!r} names no time of the next 50 years", hint=_HINT)

    def after(self, moment: datetime, count: int) -> list[Due]:
        """The next times after a moment, up to ``count``."""
        found: list[Due] = []
        for due in self._times(moment):
            found.append(due)
            if len(found) >= count:
                break
        return found

    def between(self, first: datetime, last: datetime) -> list[Due]:
        """Those from ``first`` to ``last``, both included. Raises InputError for more than 1000."""
        found: list[Due] = []
        for due in self._times(max(first, _FIRST) - timedelta(seconds=1)):
            if due.at > last:
                break
            found.append(due)
            if len(found) > MOST:
                text = f"{self.line!r} names more than {MOST:,} times of that span"
                hint = f"Ask for them in parts: the first of them go to {found[MOST - 1].local}."
                raise InputError(text, hint=hint)
        return found

    def plan(self, after: datetime, now: datetime) -> list[Due]:
        """Those to be kept: the last 100 that passed since ``after``, and up to 200 of the next two months.

        No further: rules of time zones change. At least one.
        """
        missed: deque[Due] = deque(maxlen=_BEHIND)
        span = timedelta(hours=2)
        while after < now:  # far back only as far as it takes
            since = max(after, now - span)
            missed = deque(takewhile(lambda due: due.at <= now, self._times(since)), maxlen=_BEHIND)
            if since == after or len(missed) >= _BEHIND:
                break
            span *= 8
        coming = self.after(max(after, now), _AHEAD)
        return [*missed, *(due for i, due in enumerate(coming) if not i or due.at < now + _FAR)]

    def moment(self, text: str, *, last: bool = False) -> datetime:
        """A date or time of the schedule's time zone, or with an offset, in UTC. A date is its first minute,
        or its ``last``. Raises InputError."""
        try:
            if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
                day = date.fromisoformat(text) + timedelta(days=1 if last else 0)
                midnight = datetime(day.year, day.month, day.day, tzinfo=self._zone).astimezone(UTC)
                return midnight - timedelta(seconds=1 if last else 0)
            found = datetime.fromisoformat(text)
            return (found if found.tzinfo else found.replace(tzinfo=self._zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            text = f"{text!r} is neither a date nor a time"
            raise InputError(text, hint="For example: 2026-11-26, or 2026-11-26T03:00") from None

    def _times(self, moment: datetime) -> Iterator[Due]:
        from cronsim import CronSim, CronSimError

        try:
            for found in CronSim(self._fields, moment.astimezone(self._zone)):
                if (at := found.astimezone(UTC)) > moment:  # an hour that comes twice is begun anew
                    yield Due(at, found.isoformat(timespec="minutes"))
        except CronSimError as error:
            text = f"{self.line!r} is not a cron line: {str(error)[:1].lower()}{str(error)[1:]}"
            raise InputError(text, hint=_HINT) from None
        except (AssertionError, ValueError, OverflowError) as error:
            raise InputError(f"{self.line!r} is not a cron line", hint=_HINT) from error


def _zone(name: str) -> tzinfo:
    """The time zone. Raises InputError."""
    import zoneinfo

    if name.upper() == "UTC":
        return UTC
    try:
        if name != "localtime":  # which is another one on each machine
            return zoneinfo.ZoneInfo(name)
        raise KeyError(name)
    except (KeyError, ValueError, OSError):
        known = zoneinfo.available_timezones()
        ends = {each.rpartition("/")[2].lower(): each for each in sorted(known)}
        close = difflib.get_close_matches(name.rpartition("/")[2].lower(), ends, 1)
        hint = f"Did you mean {ends[close[0]]}?" if close else "For example: UTC, or Europe/Berlin"
        raise InputError(f"There is no time zone {name!r}", hint=hint) from None
