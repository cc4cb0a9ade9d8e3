"""``is_valid_slug`` (contract section 3)."""

from __future__ import annotations

import pytest

from .helpers import Db


@pytest.mark.parametrize(
    "slug",
    [
        "valid",
        "valid_slug",
        "valid123",
        "validSlug",
        "A",
        "x" * 128,
        "Run",
        "runs",
        "RUN",
        "a_b_1",
    ],
)
def test_a_letter_then_letters_digits_and_single_underscores_is_valid(plain_db: Db, slug: str) -> None:
    assert plain_db.value("select pgflow.is_valid_slug(%s)", slug) is True


@pytest.mark.parametrize(
    "slug",
    [
        "",
        " ",
        "_leading",
        "_",
        "run_",
        "a__b",
        "1abc",
        "123",
        "run",
        "has space",
        "has-dash",
        "-dash",
        "dot.ted",
        "trailing ",
        " leading",
        "new\nline",
        "ends_with_newline\n",
        "émile",
        "naïve",
        "日本",
        "semi;colon",
        "quote'",
        'double"',
        "dollar$",
        "x" * 129,
        "a/b",
        "\uff41",
    ],
)
def test_anything_else_is_invalid(plain_db: Db, slug: str) -> None:
    assert plain_db.value("select pgflow.is_valid_slug(%s)", slug) is False


def test_null_is_false_and_not_null(plain_db: Db) -> None:
    assert plain_db.value("select pgflow.is_valid_slug(null)") is False
