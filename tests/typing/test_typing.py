"""What the type checkers say of users' code: what is right, and what is wrong, by line."""

from __future__ import annotations

import inspect
import runpy
from pathlib import Path

import pytest
import type_checkers

from pgflow_mp import FlowDefinitionError

HERE = Path(__file__).parent
RIGHT = sorted((HERE / "right").glob("*.py"))
WRONG = sorted((HERE / "wrong").glob("*.py"))


@pytest.mark.parametrize(
    "checker",
    [pytest.param(name, marks=[] if name == "mypy" else pytest.mark.slow) for name in type_checkers.CHECKERS],
)
def test_users_code_is_right_or_wrong_where_it_says_so(checker: str, tmp_path: Path) -> None:
    """All files at once: a checker takes longest to begin."""
    pytest.importorskip(checker)
    different = type_checkers.compared(checker, [*RIGHT, *WRONG], tmp_path / "cache")
    assert different == "", different


def test_typed_flows_can_be_defined() -> None:
    runpy.run_path(str(HERE / "right" / "typed_flows.py"))


def test_type_mistakes_are_refused_at_the_latest_where_they_are_defined() -> None:
    """And both checkers tell of eight in ten, before anything runs."""
    file = HERE / "wrong" / "type_mistakes.py"
    mistakes = [each for each in runpy.run_path(str(file)).values() if inspect.isfunction(each)]
    mistakes = [each for each in mistakes if each.__code__.co_filename == str(file)]
    for mistake in mistakes:
        with pytest.raises(FlowDefinitionError):
            mistake()
    assert len(mistakes) >= 10
    for checker in type_checkers.CHECKERS:
        assert len(type_checkers.expected(checker, [file])) >= 0.8 * len(mistakes)


def test_what_is_right_is_strict_and_expects_no_error_and_each_wrong_file_expects_some() -> None:
    assert [file.name for file in RIGHT if "# pyright: strict\n" not in file.read_text()] == []
    for checker in type_checkers.CHECKERS:
        assert type_checkers.expected(checker, RIGHT) == frozenset()
        assert [file.name for file in WRONG if not type_checkers.expected(checker, [file])] == []
