"""What the type checkers say of users' code: what is right, and what is wrong, by line."""

from __future__ import annotations

from pathlib import Path

import pytest
import type_checkers

HERE = Path(__file__).parent
RIGHT = sorted((HERE / "right").glob("*.py"))
WRONG = sorted((HERE / "wrong").glob("*.py"))


@pytest.mark.parametrize("checker", type_checkers.CHECKERS)
def test_users_code_is_right_or_wrong_where_it_says_so(checker: str, tmp_path: Path) -> None:
    """All files at once: a checker takes longest to begin."""
    pytest.importorskip(checker)
    different = type_checkers.compared(checker, [*RIGHT, *WRONG], tmp_path / "cache")
    assert different == "", different


def test_what_is_right_is_strict_and_expects_no_error_and_each_wrong_file_expects_some() -> None:
    assert [file.name for file in RIGHT if "# pyright: strict\n" not in file.read_text()] == []
    for checker in type_checkers.CHECKERS:
        assert type_checkers.expected(checker, RIGHT) == frozenset()
        assert [file.name for file in WRONG if not type_checkers.expected(checker, [file])] == []
