"""Passwords in texts of others, which may have been made to be slow to look through."""

from __future__ import annotations

import json
import time

import pytest

from pgflow_mp.redaction import redact, redact_members


@pytest.mark.parametrize(
    "text",
    [
        '{"password": "s3cr3t", "n": 1}',
        "{'db_passwd' : 's3cr3t'}",
        '{"api_key":"s3cr3t \\" still s3cr3t"}',
        '{"a": {"refresh_token": "s3cr3t, cut off',
    ],
)
def test_members_of_objects_that_are_secret_by_their_names_are_hidden(text: str) -> None:
    assert "s3cr3t" not in redact_members(text)
    assert "***" in redact_members(text)


def test_other_members_stay_and_objects_can_still_be_read() -> None:
    given = {"password": "x", "user": "bob", "tokens": 7, "note": "a token: 'b'"}
    assert json.loads(redact_members(json.dumps(given))) == {**given, "password": "***"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at a://b:c@d and e://f:g@h", "at a://b:***@d and e://f:***@h"),
        ("a://b:@d", "a://b:***@d"),
        ("a://@b:c", "a://@b:c"),
        ("@a://b:c", "@a://b:c"),
        ("a://b:c\n\t d@e", "a://b:c\n\t d@e"),
        ("x@y a://b:c://d:e@f@g", "x@y a://b:***@g"),
    ],
)
def test_an_address_is_hidden_from_its_colon_to_the_last_at_of_the_word(text: str, shown: str) -> None:
    assert redact(text) == shown


@pytest.mark.parametrize(
    "piece", ["://a:", "://a:@", "@://a:", '"token', '"token"  ', "password ", "password='"]
)
def test_texts_that_are_made_for_it_do_not_take_long_to_redact(piece: str) -> None:
    began = time.thread_time()
    redact_members(redact(piece * (200_000 // len(piece))))
    assert time.thread_time() - began < 1
