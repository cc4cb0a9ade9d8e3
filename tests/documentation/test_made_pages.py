"""What is made from the package is whole: every command, option, variable, SQL function and public name."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from docsite import docstrings, rst
from docsite.reference import commands, python_api, sql_functions
from docsite.staging import Stage
from pages import ROOT

import pgflow_mp
from pgflow_mp import testing
from pgflow_mp.cli.main import VERBS

Tx = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A folder for pages."""
    return Stage(ROOT, tmp_path_factory.mktemp("stage"))


def text_below(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*.rst")))


def test_every_command_has_a_page_with_all_its_options_and_variables(stage: Stage) -> None:
    commands.write(stage)
    for verb, parser in commands.parsers().items():
        page = (stage.folder / commands.FOLDER / f"{verb}.rst").read_text()
        flags = {flag for action in parser._actions for flag in action.option_strings}
        told = set(
            re.findall(
                r"(?<![\w-])--?[a-z][\w-]*", "".join(re.findall(r"^\.\. option::.*", page, re.MULTILINE))
            )
        )
        assert told == flags, verb
        assert {twin.variable for twin in parser.twins} <= set(re.findall(r"\b[A-Z_]{4,}\b", page)), verb
        assert f"pgflow-mp {verb}" in page or verb == "work", verb
    assert set(commands.parsers()) == set(VERBS)


def test_an_option_without_help_would_be_seen() -> None:
    silent = [
        f"{verb} {action.option_strings or action.dest}"
        for verb, parser in commands.parsers().items()
        for action in parser._actions
        if not action.help
    ]
    assert silent == []


def test_every_sql_function_that_is_not_internal_is_told_of(tx: Tx) -> None:
    query = """
      select p.proname from pg_catalog.pg_proc p
      where p.pronamespace = 'pgflow'::regnamespace and p.proname !~ '^_'
        and p.prorettype <> 'trigger'::regtype
    """
    there = Counter(str(name) for (name,) in tx.execute(query))
    del there["is_valid_queue_name"]  # of a constraint, which a migration made
    assert Counter(function.name for function in sql_functions.functions()) == there
    assert [function.name for function in sql_functions.functions() if not function.comment] == []


def test_pages_of_sql_functions_say_who_may_call_them(tx: Tx) -> None:
    reach = {
        "reader": {"reader"},
        "starter": {"reader", "starter"},
        "operator": {"reader", "starter", "operator"},
        "worker": {"reader", "starter", "worker"},
    }
    pages = {function.name: function.access for function in sql_functions.functions()}
    for access, includes in reach.items():
        tx.execute(f"create role pgflow_docs_{access}")
        row = tx.execute("select pgflow.grant_access(%s, %s)", (f"pgflow_docs_{access}", access)).fetchone()
        assert row is not None
        granted = {re.sub(r"^pgflow\.|\(.*", "", str(each)) for each in row[0]}  # type: ignore[attr-defined]
        shared = {"installation_id"} if access == "operator" else set()
        assert granted - shared == {name for name, page in pages.items() if page in includes}, access


def test_sql_functions_tell_what_they_raise() -> None:
    by_name = {function.name: function for function in sql_functions.functions()}
    assert ("unique_violation", "There is a run % already") in by_name["open_load"].errors
    assert by_name["open_load"].signature.startswith(
        "open_load(flow_slug text, run_id uuid default null)\nreturns uuid"
    )


def test_every_public_name_has_its_place_in_the_api(stage: Stage) -> None:
    python_api.write(stage)
    told = text_below(stage.folder / python_api.FOLDER)
    for module in (pgflow_mp, testing):
        for name in module.__all__:
            assert re.search(
                rf"(?:autoclass|autofunction|py:type):: {module.__name__}\.{name}$", told, re.MULTILINE
            ), name
    assert "autoclass:: pgflow_mp.observe.run_reports.RunReport" in told, "what the client answers"


def test_what_is_public_says_what_it_is() -> None:
    silent = []
    for name in pgflow_mp.__all__:
        value = getattr(pgflow_mp, name)
        members = (
            inspect.getmembers(value)
            if inspect.isclass(value) and value.__module__ != "pgflow_mp.errors"
            else []
        )
        found = [(name, value), *((f"{name}.{key}", member) for key, member in members if key[0] != "_")]
        silent += [
            key for key, it in found if (inspect.isroutine(it) or it is value) and not inspect.getdoc(it)
        ]
    assert silent == []


@pytest.mark.parametrize(
    ("docstring", "linked"),
    [
        ("Raises RunNotFound, InputError.", "Raises :exc:`RunNotFound`, :exc:`InputError`."),
        ("See docs/ranges.md.", "See :doc:`/ranges`."),
        ("``raise InputError(...)`` :exc:`InputError`", "``raise InputError(...)`` :exc:`InputError`"),
        ("    raise InputError", "    raise InputError"),
        ("So:\n\n    run()\n\n    stop()", "So:\n\n.. code-block:: python\n\n    run()\n\n    stop()"),
        ("So::\n\n    run()", "So::\n\n    run()"),
    ],
)
def test_docstrings_lead_to_what_they_name(docstring: str, linked: str) -> None:
    lines = docstring.split("\n")
    docstrings.render(None, "", "", None, None, lines)
    assert lines == linked.split("\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("use --dsn or PGFLOW_KEY", "use ``--dsn`` or ``PGFLOW_KEY``"),
        ("('data/**/*.png': a path)", r"('data/\*\*/\*.png': a path)"),
        ("a_b and c_ of d", r"a_b and c\_ of d"),
        ("--retries' number", r"``--retries``\ ' number"),
    ],
)
def test_texts_of_the_program_are_shown_as_they_are(text: str, shown: str) -> None:
    assert rst.prose(text).replace(r"\ ' ", r"\ ' ") in (shown, shown.replace(r"\ ' number", r"\ ' number"))
