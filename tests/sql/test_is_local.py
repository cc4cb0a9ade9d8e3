"""``is_local`` (contract section 3)."""

from __future__ import annotations

import pytest

from .helpers import LOCAL_SECRET, Db


def set_secret(db: Db, secret: str) -> None:
    db.do("select set_config('app.settings.jwt_secret', %s, true)", secret)


def test_the_well_known_secret_means_local(plain_db: Db) -> None:
    set_secret(plain_db, LOCAL_SECRET)
    assert plain_db.value("select pgflow.is_local()") is True


@pytest.mark.parametrize(
    "secret", ["", "other", LOCAL_SECRET + "x", LOCAL_SECRET.upper(), " " + LOCAL_SECRET]
)
def test_any_other_secret_does_not(plain_db: Db, secret: str) -> None:
    set_secret(plain_db, secret)
    assert plain_db.value("select pgflow.is_local()") is False


def test_no_secret_at_all_is_false_and_not_null(plain_db: Db) -> None:
    assert plain_db.value("select pgflow.is_local()") is False


def test_the_answer_follows_a_change_of_the_setting(plain_db: Db) -> None:
    set_secret(plain_db, LOCAL_SECRET)
    assert plain_db.value("select pgflow.is_local()") is True
    set_secret(plain_db, "production")
    assert plain_db.value("select pgflow.is_local()") is False
