"""Large values cost a few times their size, whatever they are made of: no pattern walks through them."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

MB: Final = 1_000_000
SIZE: Final = 16 * MB
MOST: Final = 3
"""Bytes of memory for each byte of JSON, besides the value itself."""

PROGRAM: Final = """
import resource, sys
from pgflow_mp.errors import PgflowError
from pgflow_mp.flows.failures import describe_exception
from pgflow_mp.values.inputs import parse_json, parse_jsonl
from pgflow_mp.values.outputs import encode_output

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

def failing(error):
    try:
        raise error
    except BaseException as raised:
        assert len(describe_exception(raised)) <= 8192

work, size, value = {work}, {size}, None
value = {value}
before = peak()
try:
    work(value)
except PgflowError as error:
    assert len(str(error)) < 1000
print(peak() - before)
"""

OUTPUTS: Final = {
    "a string": "'x' * size",
    "quotes and backslashes": r"""'"\\' * (size // 4)""",
    "characters of two bytes": "'é' * (size // 2)",
    "characters of four bytes": "'😀' * (size // 4)",
    "control characters": r"'\x01' * (size // 6)",
    "texts of escapes": r"'\\u0000' * (size // 7)",
    "backslashes and NUL": r"'\\' * (size // 2) + '\0'",
    "strings": "['x' * 47] * (size // 50)",
    "strings and a NUL": r"['x' * 95] * (size // 100) + ['\0']",
    "strings and NaN": "['x' * 95] * (size // 100) + [1.5, float('nan')]",
}
FAILURES: Final = {
    "a message": "ValueError('x' * size)",
    "a message of lines": r"ExceptionGroup('all', [ValueError('x\n' * (size // 2))])",
    "a key": "KeyError('x' * size)",
    "a cause": "_caused(size)",
    "a note": r"_noted(size)",
}
HELPERS: Final = """
def _caused(size):
    error = ValueError("small")
    error.__cause__ = ValueError("x" * size)
    return error

def _noted(size):
    error = ValueError("small")
    error.add_note("x\\n" * (size // 2))
    return error
"""
INPUTS: Final = {
    "a string": """b'"' + b'x' * size + b'"'""",
    "characters of four bytes": """b'"' + 'x😀'.encode() * (size // 5) + b'"'""",
    "backslashes": r"""b'"' + b'\\\\' * (size // 2) + b'\\\\u0000"'""",
    "objects": """b'[' + b'{"name": "one of many"},' * (size // 24) + b'1]'""",
    "objects in an object": """b'{"all": [' + b'{"name": "one of many"},' * (size // 24) + b'1]}'""",
    "an error at the end": """b'["' + b'x' * size + b'", oops]'""",
}


def bytes_taken(work: str, value: str) -> int:
    program = HELPERS + PROGRAM.format(work=work, size=SIZE, value=value)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("value", OUTPUTS.values(), ids=OUTPUTS)
def test_a_large_result_takes_a_few_times_its_size(value: str) -> None:
    assert bytes_taken("encode_output", value) < MOST * SIZE


@pytest.mark.parametrize("value", FAILURES.values(), ids=FAILURES)
def test_a_large_error_text_is_cut_before_it_is_looked_at(value: str) -> None:
    assert bytes_taken("failing", value) < MOST * SIZE


@pytest.mark.parametrize("value", INPUTS.values(), ids=INPUTS)
def test_a_large_input_takes_a_few_times_its_size(value: str) -> None:
    assert bytes_taken("lambda text: parse_json(text, 'x')", value) < MOST * SIZE


def test_large_lines_take_a_few_times_their_size() -> None:
    value = r"""(b'{"name": "' + b'x' * 80 + b'"}\n') * (size // 93)"""
    assert bytes_taken("lambda text: parse_jsonl(text, 'x')", value) < 4 * SIZE
