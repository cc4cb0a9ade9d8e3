"""Errors that differ only in their values have one pattern, and others have not."""

from __future__ import annotations

import time

import pytest

from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.verdicts import crash_error, deaths_error, losses_error, memory_error, timeout_error
from pgflow_mp.observe.folding import coarse, fold, kind_of

TABLE = [
    (
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0x8b in position 1: invalid start byte",
        "UnicodeDecodeError: 'utf-8' codec can't decode byte * in position *: invalid start byte",
    ),
    (
        "ValueError: invalid literal for int() with base 10: 'a7'",
        "ValueError: invalid literal for int() with base *: '*'",
    ),
    # quotes of all kinds; apostrophes are none
    ('ValueError: no "it\'s"', "ValueError: no '*'"),
    ("ValueError: no 'it\\'s'", "ValueError: no '*'"),
    ("ValueError: don't and can't 'x'", "ValueError: don't and can't '*'"),
    ("ValueError: b'\\x00\\x01' is no text", "ValueError: b'*' is no text"),
    ("ValueError: “x” «y» `z`", "ValueError: *"),
    ("ValueError: to float: 'a long text of which the end was cut o", "ValueError: to float: '*'"),
    # numbers, dates, ids, addresses
    ("KeyError: 17", "KeyError: *"),
    ("KeyError: 'user_17'", "KeyError: '*'"),
    ("E: -1.5e-10 to 1,234,567, 12% or 3-7", "E: * to * or *"),
    ("E: no user named 'bob', nor one of the name 'eve'", "E: no user named '*', nor one of the name '*'"),
    ("E: item17 at 2026-01-02T03:04:05Z", "E: item* at *"),
    ("E: <Foo object at 0x7f8c12345678> is broken", "E: <Foo object at *> is broken"),
    ("E: run 6fc89284-c6ec-4d91-b027-fd5829c1b987", "E: run *"),
    ("E: digest 9e107d9d372bb6826bd81d3542a419d6 differs", "E: digest * differs"),
    ("E: mail to joe@example.com failed", "E: mail to * failed"),
    # paths and addresses of the web
    ("OSError: [Errno 2] No such file: '/data/a b/c.gz'", "OSError: [Errno 2] No such file: '*'"),
    ("OSError: no /data/a/b.gz there", "OSError: no * there"),
    ("OSError: no C:\\data\\x.csv there.", "OSError: no * there."),
    ("OSError: no ./x, ~/y or ../z", "OSError: no * or *"),
    ("OSError: a.gz", "OSError: *"),
    ("OSError: data/raw/file is bad, and/or broken", "OSError: * is bad, and/or broken"),
    ("HTTPError: status 503 from http://u:p@host:80/x?y=1", "HTTPError: status 503 from *"),
    # values of any length are one
    ("E: bad row {'a': 1, 'b': [1, 2], 'c': None}", "E: bad row {*}"),
    ("E: bad row {'a': 1}", "E: bad row {*}"),
    ("E: bad row [[1, 2], ['x']]", "E: bad row [*]"),
    ("E: bad row [4]", "E: bad row [*]"),
    ("E: bad row [b'x', b'y']", "E: bad row [*]"),
    ("E: shapes (3, 4) and (5,) differ", "E: shapes (*) and (*) differ"),
    # what names the code stays
    ("AttributeError: 'NoneType' object has no attribute 'strip'", None),
    ("TypeError: unsupported operand type(s) for +: 'int' and 'str'", None),
    ("TypeError: f() got an unexpected keyword argument 'x2'", None),
    ("NameError: name 'foo' is not defined", None),
    ("ModuleNotFoundError: No module named 'numpy.foo1'", None),
    ("boto3.S3Error: HTTP Error 404: Not Found", None),
    ("ValueError: int64 overflow in utf-8 of float32", None),
    ("InputMismatch: Expected `int`, got `str` - at `$.a`", None),
    ("InputMismatch: Expected `int` - at `$[17].a`", "InputMismatch: Expected `int` - at `$[*].a`"),
    ("Crashed: its process died from signal 11 (SIGSEGV)", None),
    ("Crashed: its process ended with exit code 3", None),
    ("TimeoutError", None),
    ("", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "pattern"), TABLE, ids=[line for line, _ in TABLE])
def test_what_varies_is_folded_and_what_names_the_code_is_not(line: str, pattern: str | None) -> None:
    assert fold(line) == (line if pattern is None else pattern)
    assert fold(fold(line)) == fold(line)  # a pattern can be asked for as it is shown


def test_how_an_item_failed_is_told_by_our_own_errors_alone() -> None:
    crash = crash_error("s", 7, Cause.CRASH, "signal 11 (SIGSEGV)")
    ours = {
        timeout_error("s", 7, 3): "timed out",
        crash: "crashed",
        f"quarantined after 2 crashes: {crash}": "crashed",
        f"quarantined, its last attempt (3 of 3) crashed: {crash}": "crashed",
        crash_error("s", 7, Cause.OUT_OF_MEMORY, "signal 9 (SIGKILL)"): "crashed",
        crash_error("s", 7, Cause.CRASH, "exit code 3"): "crashed",
        memory_error("s", 7, 2**29, 2**28): "crashed",
        deaths_error("s", 7, 3): "crashed",
        losses_error("s", 7, 3): "crashed",
    }
    theirs = [
        "TimeoutError: timed out",
        "MemoryError",
        "MemoryError: Unable to allocate 3 GiB",
        "Crashed: no",
    ]
    assert {line: kind_of(line) for line in ours} == ours
    assert {kind_of(line) for line in theirs} == {"error"}


def test_the_same_errors_of_two_items_have_one_pattern() -> None:
    assert fold(timeout_error("words", 700, 3)) == fold(timeout_error("words", 8, 3))
    assert fold(memory_error("words", 700, 2**29, 2**28)) == fold(memory_error("words", 8, 2**30, 2**28))
    assert fold(deaths_error("words", 700, 3)) == fold(deaths_error("words", 8, 3))


def test_of_too_many_patterns_the_type_is_left() -> None:
    assert coarse("ValueError: one two three") == "ValueError: *"
    assert coarse("what a mess") == "*"


HOSTILE = ["'" * 400, "'a" * 200, '"\\' * 200, "/" * 400, "a.b-" * 100, "1," * 200, "[" * 400, "x/" * 200]
HOSTILE += ["ab" * 200, "* " * 200, "[*]" * 130, "a" * 399 + "/", " '" * 200, "1." * 200, "(('*'" * 80]
HOSTILE += ['Crashed: step "' * 30, "0x" * 200, "a@b." * 100, "{'a': " * 70]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:8])
def test_no_text_is_slow(text: str) -> None:
    began = time.thread_time()
    fold(text * 100)
    kind_of(text * 100)
    assert time.thread_time() - began < 0.1
