"""Errors speak with one voice: one form, the same words for the same situation, and names in double quotes.

CONTRIBUTING.md, section Words, has the rule in prose.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from pgflow_mp import errors
from pgflow_mp.db import connection_errors
from pgflow_mp.embedded import diagnosis
from pgflow_mp.values import foundtext

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "pgflow_mp"
SENTENCES: Final = {name for name, kind in vars(errors).items() if isinstance(kind, type)} | {
    "UsageError",
    "ExecutorLost",
}
OURS: Final = SENTENCES | {"ArgumentTypeError", "ValueError", "TypeError"}
"""What the last three say follows a place and a colon, as in ``--workers: 'x' is not ...``."""
LOGGED: Final = {"on_message", "info", "warning", "error", "debug", "critical", "log", "_say", "say", "note"}
SAID: Final = {"Said", "ExecutorSaid"}
FIXED: Final = re.compile(
    r"^(Slug|Flow slug) '|^Flow '.*queue routing mismatch|^Run not found: <value>$"
    r'|^Flow "<value>" cannot use per-step queues|^Cannot derive a queue for step'
    r"|conflict case-insensitively: step slugs must be unique case-insensitively\.$"
)
"""Texts that the contract has to the letter, and one that goes with them."""
RULES: Final = {
    r"exclude each other": "cannot be used together",
    r"[Ll]eave [^.;,]{1,30} away\b": "leave ... out",
    r"there twice": "occurs twice",
    r"for want of": "for lack of",
    r"is none of": "is not one of",
    r"\banew\b": "again",
    r"\b[Ff]low '|\bmodule '|\boption '|\bfunction '|[Dd]id you mean '": 'names in "...", guesses bare',
    r"(?i)\bflow \S+ has no step \"": 'Step "..." does not exist in flow "..."',
    r"(?i)\b(run|flow|worker|schedule) not found": "There is no ...",
    r"(^|[.?] )For example (?!:)": "For example: what can be pasted",
    r"\bcannot be the id of a run\b": "... is not the id of a run",
}
_NAMES: Final = """
artifacts barrier base burst cap ctx db dead_after delay drain executor former_slugs from_run interval
keep key kind labels limit missed nan on_start only over params pgflow pgflow_mp progress queues rate requires
retry schedule serve ship since start storage tags tolerate
"""
"""Arguments, commands and modules that a text may begin with, spelled as they are typed."""
PASTED: Final = re.compile(
    r"(<command>|pip |python |dask |mpiexec |ray |iconv |tr |(select|alter|create|grant|revoke|drop|vacuum) )"
)
COMMANDS: Final = {"command", "command_for", "resume_command", "program", "start_one", "order"}
"""Functions that return what can be pasted."""
Known: TypeAlias = Mapping[str, list[ast.expr]]


def own_statements(tree: ast.AST) -> Iterator[ast.AST]:
    """What is in a module or function, but not in a function in it."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node
            yield from own_statements(node)


def shown(node: ast.AST, known: Known) -> list[str]:
    """The texts that an argument can be, with a mark for each value in them."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(itertools.chain(*(shown(part, {})[:1] for part in parts)))]
        case ast.FormattedValue(value=value):
            return shown(value, {})[:1] if isinstance(value, ast.Call) else ["<value>"]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in shown(left, known) for b in shown(right, known)]
        case ast.IfExp(body=body, orelse=other):
            return shown(body, known) + shown(other, known)
        case ast.Name(id=name) if name in known:
            return [text for value in known[name] for text in shown(value, {})]
        case ast.Call(func=ast.Name(id=called)) if called in COMMANDS:
            return ["<command>"]
        case ast.Call(func=ast.Attribute(attr=called)) if called in COMMANDS:
            return ["<command>"]
    return ["<value>"]


def calls_in(tree: ast.AST, known: Known) -> Iterator[tuple[ast.Call, Known]]:
    """Every call, with what the names mean where it stands."""
    known = {**known, **assignments(tree)}
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield node, known
        yield from calls_in(node, known)


def assignments(tree: ast.AST) -> dict[str, list[ast.expr]]:
    """The values that names have in a module or a function; of other nodes none."""
    known: dict[str, list[ast.expr]] = {}
    for node in own_statements(tree) if isinstance(tree, ast.Module | ast.FunctionDef) else ():
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known.setdefault(name, []).append(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                known.setdefault(name, []).append(value)
    return known


def texts_of(tree: ast.AST) -> Iterator[tuple[int, str, str]]:
    """What a module says in errors, their hints, and its log: line, kind and text."""
    for node, known in calls_in(tree, {}):
        called = ast.unparse(node.func).rpartition(".")[2]
        if called in OURS:
            kind = "message" if called in SENTENCES else "part"
            for number, part in enumerate(node.args):
                for text in shown(part, known):
                    yield part.lineno, "part" if number else kind, text
            for each in node.keywords:
                for text in shown(each.value, known):
                    yield each.value.lineno, "hint" if each.arg == "hint" else "part", text
        elif called in SAID or (called in LOGGED and isinstance(node.func, ast.Attribute)):
            texts = [(part.lineno, text) for part in node.args for text in shown(part, known)]
            for line, text in [(line, text) for line, text in texts if " " in text][:1]:
                yield line, "log", text


def broken_rules(kind: str, text: str) -> list[str]:
    if FIXED.search(text):
        return []
    broken = [rule for found, rule in RULES.items() if re.search(found, text)]
    return broken + [f"{kind}: {rule}" for rule in broken_form(kind, text)]


def broken_form(kind: str, text: str) -> Iterator[str]:
    first = re.match(r"[\w.]+", text)
    typed = first is not None and (
        first[0].partition(".")[0] in _NAMES.split() or text[len(first[0]) :][:1] in "(="
    )
    if kind in ("message", "hint") and text[:1].islower() and not typed:
        yield "begins with a capital letter, or a name"
    if kind == "log" and re.match(r"[A-Z][a-z]+ ", text) and not re.match("PostgreSQL|Python", text):
        yield "begins small"
    if kind in ("message", "log") and re.search(r"[.:;,!]$", text):
        yield "has no stop at its end"
    if kind == "hint" and text and not text.endswith("<value>"):
        last = re.split(r"(?<=[.?:]) +", text.rstrip("."))[-1]
        pasted = PASTED.match(last) is not None
        if pasted and text.endswith("."):
            yield "ends with what can be pasted, which nothing follows"
        if not pasted and not text.endswith((".", "?")) and ": " not in text:
            yield "ends with a full stop"
        if pasted and not re.search(rf": {re.escape(last)}$", text):
            yield "has a colon before what can be pasted"


def test_the_same_situation_has_the_same_words() -> None:
    wrong, seen = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, kind, text in texts_of(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            for rule in broken_rules(kind, text):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {text} ({rule})")
    assert wrong == []
    assert seen > 1200, "the walk finds the errors"


@pytest.mark.parametrize(
    "code",
    [
        "UsageError('--a and --b exclude each other')",
        "InputError(f\"There is no flow '{slug}' here\")",
        'InputError("x", hint="Leave --follow away" if a else "")',
        "ConfigError(text, hint=f'Did you mean \\'{close}\\'?')",
        'ConfigError("the server is too old")',
        'ConfigError("The server is too old.")',
        'ConfigError(text, hint="upgrade it")',
        'ConfigError(text, hint="Upgrade it")',
        "ConfigError(text, hint=\"Install it: pip install 'pgflow-mp[web]'.\")",
        "ConfigError(text, hint=f\"Upgrade it: {command('migrate')}.\")",
        "ConfigError(text, hint=\"pip install 'pgflow-mp[web]'\")",
        'ConfigError(text, hint="For example --set rate=0.5.")',
        'hint = "look there"\nConfigError(text, hint=hint)',
        'logger.warning("The server is gone: %s", error)',
        'observer.on_message("warn", f"the server is gone {error}.")',
        'post(Said("warn", "The server is gone"))',
    ],
)
def test_other_words_would_be_found(code: str) -> None:
    assert [rule for _, kind, text in texts_of(ast.parse(code)) for rule in broken_rules(kind, text)]


TABLES: Final = {
    "connection_errors": [hint for _, _, hint, _ in connection_errors._CAUSES],
    "parameters": [*connection_errors._FOREIGN.values()],
    "diagnosis": [hint for _, _, hint in diagnosis._CAUSES],
    "foundtext": [hint for _, _, hint in foundtext._MARKS],
}


@pytest.mark.parametrize("name", TABLES)
def test_hints_that_are_kept_in_tables_have_the_form_too(name: str) -> None:
    assert {hint: broken for hint in TABLES[name] if (broken := broken_rules("hint", hint))} == {}


RAISED: Final = re.compile(r"raise (exception|warning|notice)\s+'((?:[^']|'')*)'(.*?);\s*\n", re.DOTALL)
HINT: Final = re.compile(r"hint = (?:format\(\s*)?((?:'(?:[^']|'')*'\s*)+)")
POSTGRESQL: Final = re.compile(r"permission denied for|(insert or update|update or delete) on table \"")
"""How PostgreSQL says it itself, where the same is refused by us."""


def raised_in(sql: str) -> Iterator[tuple[str, str]]:
    """What functions raise, and their hints, each with its kind."""
    for how, text, rest in RAISED.findall(sql):
        yield ("message" if how == "exception" else "log"), text.replace("''", "'").replace("%", "<value>")
        for hint in HINT.findall(rest):
            words = "".join(re.findall(r"'((?:[^']|'')*)'", hint))
            yield "hint", words.replace("''", "'").replace("%s", "<value>")


def test_what_functions_of_the_database_raise_has_the_form_or_is_the_contract_s() -> None:
    contract = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/contract").glob("*.md"))
    wrong, seen = [], 0
    for path in sorted((ROOT / "sql/functions").glob("*.sql")):
        for kind, text in raised_in(path.read_text(encoding="utf-8")):
            seen += 1
            if text.partition("<value>")[0][:25] in contract or POSTGRESQL.match(text):
                continue
            wrong += [f"{path.name}: {text} ({rule})" for rule in broken_rules(kind, text)]
    assert wrong == []
    assert seen > 120, "the walk finds them"


def test_other_words_of_the_database_would_be_found() -> None:
    small = "raise exception 'the run is gone.' using hint = 'look there', errcode = 'PF003';\n"
    assert len([rule for kind, text in raised_in(small) for rule in broken_rules(kind, text)]) == 4


def test_the_contract_s_words_for_a_run_stay_where_the_contract_has_them() -> None:
    found = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        if "Run not found" in path.read_text(encoding="utf-8")
    ]
    assert found == ["flows/context.py"]
