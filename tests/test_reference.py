"""README.md and the pages under docs/ name what there is: commands, options, statuses, defaults, rights.

And nothing that is not: what the program has and docs/cli.md lacks, or the other way round, fails here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest
import warm_python
from pages import PAGES, README, ROOT, blocks, name_of, prose_of, text_of

from pgflow_mp import Flow
from pgflow_mp.cli import complaints
from pgflow_mp.cli.main import VERBS
from pgflow_mp.db.rights import ACCESS

DOCS = ROOT / "docs"
CLI = text_of(DOCS / "cli.md")
OURS = [README, *(page for page in PAGES if page.parent.name != "contract")]
EXEMPT = ("-h,", "--help-all", "--version", "--failed")
"""Options that say what to do rather than how: a variable for them would make no sense."""


class Option(NamedTuple):
    """An option of a command as its --help-all tells it, in one line."""

    flag: str
    variable: str
    help: str


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The --help-all of every command."""
    return {verb: warm_python.said("pgflow_mp", verb, "--help-all", COLUMNS="100").stdout for verb in VERBS}


def told(text: str) -> Iterator[str]:
    """The options of a --help-all, each in one line."""
    for part in re.split(r"\n(?=  (?:-\w(?: \w+)?, )?--)", text.partition("options:")[2])[1:]:
        yield " ".join(part.partition("\n\n")[0].split())


def options(helps: dict[str, str]) -> list[Option]:
    found = []
    for text in helps.values():
        for line in told(text):
            flag, variable = re.search(r"--[\w-]+", line), re.search(r"\[env: (\w+)", line)
            if flag and variable:
                found.append(Option(flag[0], variable[1], line))
    return found


def rows() -> list[tuple[str, str, str]]:
    """(option, variable, default) of the tables of docs/cli.md."""
    pattern = r"^\| `(--[\w-]+)(?: [A-Z_]+)?`(?:, `-\w`)? \| `(\w+)` \| ([^|]+) \|"
    return re.findall(pattern, CLI, flags=re.MULTILINE)


def test_the_page_of_commands_has_every_option_with_its_variable_and_no_other(helps: dict[str, str]) -> None:
    there = {(option.flag, option.variable) for option in options(helps)}
    assert len(there) > 30
    assert {(flag, variable) for flag, variable, _ in rows()} == there


def test_the_defaults_of_options_are_those_that_their_help_tells(helps: dict[str, str]) -> None:
    wrong = []
    for flag, variable, default in rows():
        value = default.strip("`")
        if not re.fullmatch(r"\d+|`[a-z]+`", default):
            continue  # in words
        says = rf"\((?:default: )?{value}\)|\b{value} \((?:\w+, )?the default\)"
        texts = [option.help for option in options(helps) if option[:2] == (flag, variable)]
        if not any(re.search(says, text) for text in texts):
            wrong.append((flag, value))
    assert wrong == []


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_every_option_that_a_page_names_exists(page: Path, helps: dict[str, str]) -> None:
    ours = {"--help", "--help-all", *re.findall(r"--[a-z][\w-]+", "".join(helps.values()))}
    commands = [line for _, block in blocks(page) for line in block.splitlines() if " -m pgflow_mp " in line]
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*\w", prose_of(page) + "\n".join(commands)))
    assert named - ours - {"--no"} == set()


@pytest.mark.parametrize("page", OURS, ids=name_of)
def test_every_variable_that_a_page_names_is_that_of_an_option(page: Path, helps: dict[str, str]) -> None:
    known = set(re.findall(r"\bPGFLOW_\w+", "".join(helps.values())))
    assert set(re.findall(r"\bPGFLOW_\w+", text_of(page))) - known <= {"PGFLOW_FLOWS"}


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_command_has_a_twin_in_the_environment(verb: str, helps: dict[str, str]) -> None:
    bare = [line.split()[0] for line in told(helps[verb]) if "[env: " not in line]
    assert [option for option in bare if option not in EXEMPT] == []


def test_every_command_is_on_the_page_of_commands() -> None:
    table = CLI.partition("| command |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)[^`]*`", re.sub(r"(?m)\|[^|]+\|$", "", table))) == set(VERBS)


def test_the_exit_statuses_of_the_page_are_those_of_the_program() -> None:
    found = re.findall(r"^\| ([\d, ]+) \| \S", CLI.partition("## Exit statuses")[2], flags=re.MULTILINE)
    numbers = {name: value for name, value in vars(complaints).items() if re.fullmatch("[A-Z][A-Z_]+", name)}
    ours = {value for value in numbers.values() if isinstance(value, int)}
    assert {int(code) for row in found for code in row.split(",")} == ours


def test_the_defaults_of_the_pages_are_those_of_the_database(
    tx: psycopg.Connection[tuple[object, ...]],
) -> None:
    shape = json.dumps(Flow("bare").step("only", len).shape())
    tx.execute("select pgflow.ensure_flow_compiled('bare', %s)", (shape,))
    query = "select opt_max_attempts, opt_base_delay, opt_timeout from pgflow.flows where flow_slug = 'bare'"
    stored = tx.execute(query).fetchone()
    table = text_of(DOCS / "options.md")
    names = ("max_attempts", "base_delay", "timeout")
    said = [re.search(rf"^\| `{name}` \|(?:[^|]*\|){{2}} (\d+) \|", table, re.MULTILINE) for name in names]
    assert tuple(int(found[1]) for found in said if found) == stored
    words = " ".join(text_of(DOCS / "flows.md").split())
    told = re.search(r"tried (\d+) times, may take (\d+) seconds each time, and waits (\d+) seconds", words)
    assert told
    assert (int(told[1]), int(told[3]), int(told[2])) == stored


def test_every_set_of_rights_is_on_the_page_of_servers(tx: psycopg.Connection[tuple[object, ...]]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="There is no access") as refused:
        tx.execute("select pgflow.grant_access('nobody', 'none of them')")
    hint = refused.value.diag.message_hint or ""
    there = re.findall(r"\w+", hint.removeprefix("Give ").replace(" or ", " "))
    statements = "".join(text for language, text in blocks(DOCS / "server.md") if language == "sql")
    assert set(re.findall(r"grant_access\('\w+', '(\w+)'", statements)) == set(there)
    assert set(ACCESS.values()) <= set(there)
