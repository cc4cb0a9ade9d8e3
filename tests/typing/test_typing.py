"""The types of the public API, as mypy --strict sees them in user code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def mypy(name: str, cache: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", HERE / name],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[1],
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mypy")
    return tmp_path_factory.mktemp("mypy")


def test_decorated_functions_keep_their_types_and_pass_a_strict_check(cache: Path) -> None:
    status, report = mypy("flows_that_pass.py", cache)
    assert status == 0, report


def test_wrong_options_and_calls_are_type_errors(cache: Path) -> None:
    text = (HERE / "flows_that_fail.py").read_text()
    expected = {
        (number, match[1])
        for number, line in enumerate(text.splitlines(), 1)
        if (match := re.search(r"# expect: ([a-z-]+)", line))
    }
    _, report = mypy("flows_that_fail.py", cache)
    found = {(int(m[1]), m[2]) for m in re.finditer(r"fail\.py:(\d+): error: .*\[([a-z-]+)\]", report)}
    found = {error for error in found if error[1] != "untyped-decorator"}  # follows from the others
    assert found == expected, report
