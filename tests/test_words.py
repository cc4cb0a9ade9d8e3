"""Errors speak with one voice: the same words for the same situation, and names in double quotes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgflow_mp import errors

PACKAGE = Path(__file__).resolve().parent.parent / "pgflow_mp"
OURS = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
OURS |= {"UsageError", "ArgumentTypeError", "ValueError", "TypeError"}
FIXED = re.compile(r"^(Slug|Flow slug) '|^Flow '.*queue routing mismatch")
"""Texts that the contract has to the letter, and one that goes with them."""
RULES = {
    r"exclude each other": "cannot be used together",
    r"[Ll]eave [^.;,]{1,30} away\b": "leave ... out",
    r"there twice": "occurs twice",
    r"for want of": "for lack of",
    r"is none of": "is not one of",
    r"\banew\b": "again",
    r"\b[Ff]low '|\bmodule '|\boption '|\bfunction '|[Dd]id you mean '": 'names in "...", guesses bare',
}


def shown(node: ast.AST) -> str:
    """The texts in an argument, with a mark for each value."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(shown(part) if isinstance(part, ast.Constant) else "<value>" for part in parts)
        case ast.BinOp(left=left, right=right):
            return shown(left) + shown(right)
        case ast.IfExp(body=body, orelse=other):
            return f"{shown(body)} | {shown(other)}"
    return "<value>"


def texts_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What a module says in errors and their hints, with its lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in OURS:
            for part in (*node.args, *(each.value for each in node.keywords)):
                yield part.lineno, shown(part)


def broken_rules(text: str) -> list[str]:
    return [] if FIXED.search(text) else [rule for found, rule in RULES.items() if re.search(found, text)]


def test_the_same_situation_has_the_same_words() -> None:
    wrong, seen = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in texts_of(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            for rule in broken_rules(text):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {text} ({rule})")
    assert wrong == []
    assert seen > 1000, "the walk finds the errors"


@pytest.mark.parametrize(
    "code",
    [
        "UsageError('--a and --b exclude each other')",
        "InputError(f\"There is no flow '{slug}' here\")",
        'InputError("x", hint="Leave --follow away" if a else "")',
        "ConfigError(text, hint=f'Did you mean \\'{close}\\'?')",
    ],
)
def test_other_words_would_be_found(code: str) -> None:
    assert [rule for _, text in texts_of(ast.parse(code)) for rule in broken_rules(text)]
