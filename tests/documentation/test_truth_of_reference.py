"""docs/errors.md, events.md and configuration.md name what there is in the code, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import psycopg
import pytest
from docsite.reference.commands import exit_statuses, parsers
from pages import ROOT, text_of

import pgflow_mp
from pgflow_mp.cli import complaints
from pgflow_mp.errors import FlowDefinitionError

DOCS = ROOT / "docs"
ERRORS, EVENTS, CONFIGURATION = (
    text_of(DOCS / f"{name}.md") for name in ("errors", "events", "configuration")
)
SOURCES = sorted((ROOT / "pgflow_mp").rglob("*.py"))
SQL = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "sql").rglob("*.sql"))}
ROOT_ERROR = "PgflowError"
OF_THE_WEB_PAGE = {"TooMany"}
"""Answered to a browser as status 503; no program meets it."""
OF_OURS_ALONE = {"PGFLOW_MP_IMPORTING", "PGFLOW_MP_NOT_PRELOADED", "PGFLOW_BENCH_REDIS"}
"""Variables by which processes of the package tell each other something."""


def rows(text: str, pattern: str) -> list[tuple[str, ...]]:
    """The cells of a table's rows whose first cell is like the pattern."""
    found = re.findall(rf"^\| ({pattern}) \|(.*)\|$", text, flags=re.MULTILINE)
    return [(first.strip("`"), *(cell.strip() for cell in rest.split("|"))) for first, rest in found]


# -- errors -----------------------------------------------------------------------------------------------


def classes_of_errors() -> dict[str, int]:
    """Each error class of the package with the exit status of a command that ends with it."""
    found: dict[str, tuple[list[str], int | None]] = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                found[node.name] = bases, _own_status(node)

    def status(name: str) -> int | None:
        bases, own = found.get(name, ([], None))
        return (
            own
            if own is not None
            else next((code for base in bases if (code := status(base)) is not None), None)
        )

    def is_error(name: str) -> bool:
        return name == ROOT_ERROR or any(is_error(base) for base in found.get(name, ([], None))[0])

    names = [name for name in found if is_error(name) and name != ROOT_ERROR and not name.startswith("_")]
    return {name: status(name) or 1 for name in names if name not in OF_THE_WEB_PAGE}


def _own_status(node: ast.ClassDef) -> int | None:
    for line in node.body:
        if isinstance(line, ast.AnnAssign | ast.Assign):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if (
                isinstance(target, ast.Name)
                and target.id == "exit_code"
                and isinstance(line.value, ast.Constant)
            ):
                return int(str(line.value.value))
    return None


def test_every_error_class_is_told_of_with_its_exit_status() -> None:
    there = classes_of_errors()
    definitions = {name for name in there if name in ("FlowDefinitionError", "FlowFileError")}
    assert complaints.exit_code(FlowDefinitionError("x")) == complaints.USAGE
    there |= dict.fromkeys(definitions, complaints.USAGE)
    told = {
        name: int(re.findall(r"\d+", cells[-1])[0]) for name, *cells in rows(ERRORS, r"`[A-Z]\w*[a-z]\w*`")
    }
    assert told == there
    public = {name for name in pgflow_mp.__all__ if name in there}
    assert len(public) > 10


def test_every_sqlstate_is_told_of() -> None:
    codes = {code for text in SQL.values() for code in re.findall(r"errcode = '(\w+)'", text)}
    told = rows(ERRORS, r"`[0-9A-Z]{5}`")
    named = {code if code.startswith("PF") else cells[0].strip("`") for code, *cells in told}
    assert named == codes | {"raise_exception"}
    for code, condition, *_ in told:
        known = psycopg.errors.lookup(code) if not code.startswith("PF") else None
        assert known is None or known.__name__.lower() == condition.strip("`").replace("_", "").lower(), code
    assert [code for code, *cells in told if not all(cells[1:])] == [], "what it means, what to do"


def test_exit_statuses_are_told_of_with_what_to_do() -> None:
    told = {int(status) for status, *_ in rows(ERRORS, r"\d+")}
    numbers = {
        value
        for name, value in vars(complaints).items()
        if re.fullmatch("[A-Z][A-Z_]+", name) and isinstance(value, int)
    }
    assert told == numbers
    assert {int(status) for status, _ in exit_statuses()} <= told


# -- events -----------------------------------------------------------------------------------------------


def test_every_channel_and_event_is_told_of_with_its_keys() -> None:
    channels = {name for text in SQL.values() for name in re.findall(r"pg_notify\(\s*'(\w+)'", text)}
    assert {name for name, *_ in rows(EVENTS, r"`pgflow_\w+`")} == channels
    told = {
        name: set(re.findall(r"`(\w+)`", cells[-1])) for name, *cells in rows(EVENTS, r"`(?:run|step):\w+`")
    }
    sent = events_of_the_functions()
    assert told.keys() == sent.keys()
    for event, keys in sent.items():
        assert told[event] == keys, event


def events_of_the_functions() -> dict[str, set[str]]:
    """The keys of each event, as the SQL functions send them."""
    found: dict[str, set[str]] = {}
    for path, text in SQL.items():
        if path.name == "0110_events.sql" or path.parent.name != "functions":
            continue
        for what, call in re.findall(
            r"perform pgflow\._emit_(run|step)_event\((.*?)\n  *\);", text, re.DOTALL
        ):
            texts = re.findall(r"(?<=[(,\s])'([a-z_]+)'(?=[,)\s])", call)
            status = next(text for text in texts if text in ("started", "completed", "failed", "skipped"))
            object_, body = call.partition("jsonb_build_object(")[2], call.rpartition(")")[2]
            keys = set(re.findall(r"'(\w+)', ", object_)) | set(re.findall(r"'(input|output)'", body))
            keys -= {"handler_failed", "condition_unmet", "dependency_skipped"}
            found.setdefault(f"{what}:{status}", {"step_slug"} if what == "step" else set()).update(keys)
    return found


def test_what_notifications_tell_without_content_is_what_the_page_says() -> None:
    body = (
        SQL[ROOT / "sql" / "functions" / "0110_events.sql"]
        .partition("_without_content")[2]
        .partition("$$;")[0]
    )
    harmless = set(re.findall(r"'(\w+)'", body.partition("in (")[2]))
    said = EVENTS.partition("## What is left out")[2].partition("and nothing else")[0]
    assert set(re.findall(r"`(\w+)`", said)) == harmless


# -- configuration ----------------------------------------------------------------------------------------


_LIKE_A_VARIABLE = re.compile(r"PG[A-Z]{2,}|PGFLOW_\w+|OTEL_\w+|XDG_\w+|[A-Z]+_(NUM|MAX)_\w+")


def variables_that_are_read() -> Iterator[str]:
    """Names of environment variables in the package: looked up, or in the manner of such names."""
    for path in SOURCES:
        if path.parts[-2] == "peers":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and _LIKE_A_VARIABLE.fullmatch(str(node.value)):
                yield str(node.value)
            name, place = "", None
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                name, place = node.func.attr, (node.func.value, node.args[0])
            elif isinstance(node, ast.Subscript):
                name, place = "[]", (node.value, node.slice)
            elif isinstance(node, ast.Compare):
                name, place = "in", (node.comparators[0], node.left)
            if place and name in ("get", "pop", "getenv", "[]", "in", "setdefault"):
                whole, key = ast.unparse(place[0]), place[1]
                if re.search(r"environ|\benv\b", whole) and re.fullmatch(r"'[A-Z]\w+'", ast.unparse(key)):
                    yield ast.unparse(key).strip("'")


def test_every_variable_that_is_read_is_told_of() -> None:
    twins = {twin.variable for parser in parsers().values() for twin in parser.twins}
    read = set(variables_that_are_read())
    assert {"NO_COLOR", "TERM", "PGHOST", "OTEL_SERVICE_NAME", "OMP_NUM_THREADS", "PGFLOW_FLOWS"} <= read
    pages = CONFIGURATION + text_of(DOCS / "cli.md")
    assert sorted(name for name in read - twins - OF_OURS_ALONE if f"`{name}`" not in pages) == []


def test_keys_of_pyproject_and_settings_of_the_database_are_those_of_the_page() -> None:
    keys = {
        key
        for path in SOURCES
        for key in re.findall(r'\.get\("pgflow_mp", \{\}\)\.get\("(\w+)"\)', path.read_text(encoding="utf-8"))
    }
    assert keys == {"flows"}
    assert "That is the only key there is" in CONFIGURATION
    names = {
        name
        for text in SQL.values()
        for name in re.findall(r"s\.name = '(\w+)'", text)
        if "pgflow.settings" in text
    }
    assert names
    assert {name for name, *_ in re.findall(r"`pgflow\.settings`, `(\w+)`()", CONFIGURATION)} == names


@pytest.mark.parametrize("page", ["errors.md", "events.md", "configuration.md"])
def test_pages_are_linked_from_the_index(page: str) -> None:
    assert f"]({page})" in text_of(DOCS / "README.md")
