"""``calculate_retry_delay`` (contract section 3)."""

from __future__ import annotations

import pytest

from .helpers import Db


@pytest.mark.parametrize(
    ("base", "attempts", "seconds"),
    [
        (5, 1, 10),
        (5, 2, 20),
        (5, 3, 40),
        (1, 0, 1),
        (0, 5, 0),
        (1, 10, 1024),
        (3, 1, 6),
        (0.3, 1, 0),
        (1.7, 1, 3),
    ],
)
def test_the_delay_is_base_times_two_to_the_attempts_rounded_down(
    plain_db: Db, base: float, attempts: int, seconds: int
) -> None:
    assert plain_db.value("select pgflow.calculate_retry_delay(%s::numeric, %s)", base, attempts) == seconds


@pytest.mark.parametrize(("base", "attempts"), [(5, 31), (5, 62), (1, 1000), (2147483647, 1), (1, 100000)])
def test_a_huge_delay_is_clamped_instead_of_overflowing(plain_db: Db, base: int, attempts: int) -> None:
    delay = plain_db.value("select pgflow.calculate_retry_delay(%s, %s)", base, attempts)
    assert delay > 3600
    assert plain_db.value("select clock_timestamp() + make_interval(secs => %s) is not null", delay)


def test_it_can_be_called_by_name(plain_db: Db) -> None:
    query = "select pgflow.calculate_retry_delay(base_delay => 5, attempts_count => 1)"
    assert plain_db.value(query) == 10


@pytest.mark.parametrize(("base", "attempts"), [(None, 1), (5, None), (0, None), (None, 100), (None, None)])
def test_without_a_base_or_a_count_there_is_no_delay(
    plain_db: Db, base: int | None, attempts: int | None
) -> None:
    query = "select pgflow.calculate_retry_delay(%s::numeric, %s::int)"
    assert plain_db.value(query, base, attempts) is None
