"""Cron lines: which times they name, also where clocks are put forward and back, and what is none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pgflow_mp.errors import InputError
from pgflow_mp.values.cronlines import CronLine

BERLIN = "Europe/Berlin"
FORWARD, BACK = "2026-03-28T12:00+01:00", "2026-10-24T12:00+02:00"
"""The day before clocks go from 2 to 3, and from 3 to 2."""


def after(line: str, moment: str, count: int, zone: str = BERLIN) -> list[str]:
    return [due.local for due in CronLine(line, zone).after(datetime.fromisoformat(moment), count)]


@pytest.mark.parametrize(
    ("line", "from_", "times"),
    [
        # A missing hour: what names it comes right after it, once; what goes by minutes just goes on.
        ("30 2 * * *", FORWARD, ["03-29T03:00+02:00", "03-30T02:30+02:00"]),
        ("0 2,3 * * *", FORWARD, ["03-29T03:00+02:00", "03-30T02:00+02:00"]),
        ("0 * * * *", "2026-03-29T00:30+01:00", ["03-29T01:00+01:00", "03-29T03:00+02:00"]),
        ("*/30 2 * * *", FORWARD, ["03-30T02:00+02:00", "03-30T02:30+02:00"]),
        # An hour that occurs twice: what names it comes at the first of both, the rest in both.
        ("30 2 * * *", BACK, ["10-25T02:30+02:00", "10-26T02:30+01:00"]),
        ("30 * * * *", "2026-10-25T02:00+02:00", ["10-25T02:30+02:00", "10-25T02:30+01:00"]),
        ("*/30 * * * *", "2026-10-25T02:00+02:00", ["10-25T02:30+02:00", "10-25T02:00+01:00"]),
        # Asked in the second of both, the first has passed.
        ("30 2 * * *", "2026-10-25T02:15+01:00", ["10-26T02:30+01:00", "10-27T02:30+01:00"]),
    ],
)
def test_clocks_that_are_put_forward_or_back(line: str, from_: str, times: list[str]) -> None:
    assert [time.removeprefix("2026-") for time in after(line, from_, 2)] == times


def test_days_and_names() -> None:
    assert after("0 3 L * *", "2026-02-01T00:00+01:00", 1) == ["2026-02-28T03:00+01:00"]
    assert after("0 9 * * mon#2", "2026-11-01T00:00+01:00", 1) == ["2026-11-09T09:00+01:00"]
    assert after("@daily", "2026-11-26T12:00+00:00", 1, "Asia/Kolkata") == ["2026-11-27T00:00+05:30"]
    assert CronLine("@Weekly").after(datetime(2026, 11, 26, tzinfo=UTC), 1)[0].at.weekday() == 6
    (due,) = CronLine("30 5 * * *", "Asia/Kolkata").after(datetime(2026, 1, 1, tzinfo=UTC), 1)
    assert due == (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T05:30+05:30")


@pytest.mark.parametrize(
    "line",
    [
        *("", "* * * *", "* * * * * *", "61 * * * *", "*/0 * * * *", "0 0 31 2 *", "0 0 30 2,2 *", "@often"),
        *("0 0 L-3 * *", "0 0 * * MON#6", "٣ * * * *", "0 0 5-1 * *", "x" * 300, "1 " * 200, "\0 * * * *"),
    ],
)
def test_what_is_no_cron_line_is_refused(line: str) -> None:
    with pytest.raises(InputError) as refused:
        CronLine(line)
    assert "For example" in refused.value.hint


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Berlin", "Did you mean Europe/Berlin?"),
        ("Europe/Berln", "Did you mean Europe/Berlin?"),
        ("localtime", ""),
        ("../etc/passwd", ""),
        ("/etc/localtime", ""),
        ("\0", ""),
        ("", ""),
        ("x" * 5000, ""),
    ],
)
def test_what_is_no_time_zone_is_refused(zone: str, hint: str) -> None:
    with pytest.raises(InputError, match="There is no time zone") as refused:
        CronLine("@daily", zone)
    assert hint in refused.value.hint


def test_a_plan_looks_back_no_further_than_a_hundred_times_and_ahead_two_months() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    long_ago = datetime(2001, 1, 1, tzinfo=UTC)
    for line, step, ahead in (
        ("* * * * *", timedelta(minutes=1), 200),
        ("0 12 * * *", timedelta(days=1), 59),
    ):
        times = [due.at for due in CronLine(line).plan(long_ago, now)]
        assert times == [now + i * step for i in range(-99, ahead + 1)]
    times = [due.at for due in CronLine("* * * * *").plan(now - timedelta(minutes=3), now)]
    assert times[:4] == [now + timedelta(minutes=i) for i in (-2, -1, 0, 1)]
    later = now + timedelta(days=9)
    assert CronLine("0 0 * * *").plan(later, now)[0].at == datetime(2026, 12, 6, tzinfo=UTC)
    assert (
        len(CronLine("0 0 29 2 *").plan(now, now)) == 1
    )  # the next one, though it is more than two months away


def test_a_span_has_both_its_ends_and_a_thousand_times_at_most() -> None:
    line = CronLine("0 3 * * *", BERLIN)
    first, last = line.moment("2026-10-24"), line.moment("2026-10-26", last=True)
    assert [due.local for due in line.between(first, last)] == [
        *("2026-10-24T03:00+02:00", "2026-10-25T03:00+01:00", "2026-10-26T03:00+01:00")
    ]
    exact = line.moment("2026-10-24T03:00")
    assert len(line.between(exact, exact)) == 1
    assert line.moment("2026-10-24T03:00Z") == datetime(2026, 10, 24, 3, tzinfo=UTC)
    with pytest.raises(InputError, match="more than 1,000 times"):
        CronLine("* * * * *").between(first, last)
    assert line.between(line.moment("0001-01-02"), line.moment("1999-12-31")) == []
    for text in ("yesterday", "2026-13-01", "2026-02-30", "", "0001-01-01T00:00+23:00"):
        with pytest.raises(InputError, match="neither a date nor a time"):
            line.moment(text)
