"""The options of a worker: what makes no sense is refused when they are made, not by what meets it later."""

from __future__ import annotations

from fractions import Fraction
from http import HTTPStatus
from typing import Any

import pytest

from pgflow_mp.errors import ConfigError
from pgflow_mp.worker.settings import WorkerSettings


def made(**options: Any) -> WorkerSettings:
    return WorkerSettings(dsn="", targets=("flows.py",), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"workers": 1.5}, "workers must be a whole number, not 1.5"),
        ({"workers": "2"}, "workers must be a whole number, not '2'"),
        ({"workers": True}, "workers must be a whole number, not True"),
        ({"batch_size": 2**31}, "batch_size must be at most 2,147,483,647, not 2147483648"),
        ({"visibility_timeout": 10**11}, "visibility_timeout must be at most 2,147,483,647"),
        ({"max_memory_per_worker": 10**20}, "max_memory_per_worker must be at most"),
        ({"grace": float("inf")}, "grace must be at most 3,153,600,000, not inf"),
        ({"grace": float("nan")}, "grace must be at least 0, not nan"),
        ({"grace": "30"}, "grace must be a number, not '30'"),
        ({"dead_after": 1e17}, "dead_after must be at most"),
        ({"heartbeat_interval": float("nan")}, "heartbeat_interval must be more than 0, not nan"),
        ({"load_timeout": None}, "load_timeout must be more than 0, not None"),
        ({"max_poll_seconds": float("inf")}, "max_poll_seconds must be at most"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_with_its_name(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**options)
    assert str(caught.value).startswith(text)


def test_numbers_may_be_of_any_type_that_is_one() -> None:
    found = made(workers=HTTPStatus.CONTINUE, grace=Fraction(1, 2), linger=0, keep=None, dead_after=10**9)
    assert (found.lanes, found.grace, found.keep) == (100, 0.5, None)
