"""requirements-dev.txt satisfies pyproject.toml on every Python, has hashes, and names no registry."""

from __future__ import annotations

import tomllib
from typing import Any

import lock
import pytest

TEXT = lock.LOCK.read_text(encoding="utf-8")
PROJECT: dict[str, Any] = tomllib.loads((lock.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HASH = f"--hash=sha256:{'0' * 64}"
SMALL: dict[str, Any] = {
    "name": "pgflow-mp",
    "dependencies": ["one>=1.0", "two>=2; python_version < '3.12'"],
    "optional-dependencies": {"web": ["four"], "test": ["three>=3,<4"], "dev": ["pgflow_mp[test, web]"]},
}
GOOD = f"""# comment
one==1.5 \\
    {HASH} \\
    {HASH}
two==2.1 ; python_full_version < '3.12' \\
    {HASH}
three==3.0 ; python_full_version < '3.12' \\
    {HASH}
three==3.9 ; python_full_version >= '3.12' \\
    {HASH}
four==4rc1 \\
    {HASH}
"""


def test_the_lock_satisfies_pyproject() -> None:
    """Where it does not: scripts/lock.py."""
    assert list(lock.problems(TEXT, PROJECT)) == []


def test_a_lock_that_fits_has_no_problems() -> None:
    assert list(lock.problems(GOOD, SMALL)) == []


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (GOOD, "", "is missing"),
        ("# comment", "--index-url https://example.org", "names a place to install from"),
        ("# comment", "--find-links /opt/wheels", "names a place to install from"),
        ("one==1.5", "one @ https://example.org/one.whl", "names a place to install from"),
        ("one==1.5", "one>=1.5", "one>=1.5 is not pinned"),
        ("one==1.5", "one==0.9", "no version that satisfies one>=1.0 for Python 3.11.2, 3.11.9, 3.12.9"),
        ("one==1.5", "other==1.5", "no version that satisfies one>=1.0"),
        (
            "two==2.1 ; python_full_version < '3.12'",
            "two==2.1 ; python_full_version < '3.11.5'",
            "Python 3.11.9",
        ),
        (
            "three==3.9 ; python_full_version >= '3.12'",
            "three==4.0 ; python_full_version >= '3.12'",
            "three<4,>=3",
        ),
        ("three==3.9 ; python_full_version >= '3.12'", "three==3.9", "three<4,>=3 for Python 3.11.2, 3.11.9"),
        ("four==4rc1", "five==5", "four for Python"),
        (f"four==4rc1 \\\n    {HASH}", "four==4rc1", "four has no hashes"),
        (f"four==4rc1 \\\n    {HASH}", "four==4rc1 \\\n    --hash=md5:00", "four has no hashes"),
        ("four==4rc1", "four four", "four four"),
    ],
)
def test_what_does_not_fit_is_said(before: str, after: str, problem: str) -> None:
    assert before in GOOD
    assert problem in "\n".join(lock.problems(GOOD.replace(before, after, 1), SMALL))
