"""README.md tells the truth: its Python files run, its commands give what it shows, its options exist."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from database_server import DatabaseServer

from pgflow_mp import Flow
from pgflow_mp.cli import complaints
from pgflow_mp.cli.main import VERBS
from pgflow_mp.flows.options import MINIMUM
from pgflow_mp.loading import finding

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
PYTHON = [code for language, code in BLOCKS if language == "python"]
PROGRAMS = [code for code in PYTHON if not code.startswith("# test_")]
SHOWN = [
    (BLOCKS[index][1].strip(), BLOCKS[index + 1][1].strip())
    for index in range(len(BLOCKS) - 1)
    if BLOCKS[index][0] == "sh" and BLOCKS[index + 1][0] == ""
]
"""Commands, each with the output that is shown below it."""
EXEMPT = ("-h,", "--version", "--failed")
"""Options that say what to do rather than how: a variable for them would make no sense."""


@pytest.fixture(scope="module")
def place(server: DatabaseServer, template: str) -> Iterator[str]:
    """The connection string of one database with the schema, for all tests here."""
    with server.database(template) as dsn:
        yield dsn


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with the Python files that the page shows, under the names in their first lines."""
    for code in PYTHON:
        (tmp_path / name_of(code)).write_text(code)
    return tmp_path


def name_of(code: str) -> str:
    found = re.match(r"# (\w+\.py)\n", code)
    assert found, f"a Python block does not start with its file name: {code[:40]!r}"
    return found[1]


def help_of(*words: str) -> str:
    command = [sys.executable, "-m", "pgflow_mp", *words, "--help"]
    environment = {**os.environ, "COLUMNS": "100"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The --help of every command."""
    return {verb: help_of(verb) for verb in VERBS}


def test_the_page_shows_files_and_commands() -> None:
    names = [name_of(code) for code in PYTHON]
    assert names == ["first.py", "tour.py", "from_python.py", "test_cubes.py"]
    assert len(SHOWN) == len(PROGRAMS)


def test_the_first_flow_has_at_most_twenty_lines() -> None:
    assert len(PYTHON[0].splitlines()) <= 20 + 1, "and its name"


@pytest.mark.parametrize("code", PROGRAMS, ids=name_of)
def test_a_file_of_the_page_defines_a_flow(code: str, project: Path) -> None:
    ast.parse(code)
    assert len(finding.load_flows(str(project / name_of(code)))) == 1


def test_a_test_of_the_page_passes(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_cubes.py"],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(("command", "output"), SHOWN, ids=[name_of(code) for code in PROGRAMS])
def test_a_command_of_the_page_prints_what_the_page_shows(
    command: str, output: str, project: Path, place: str
) -> None:
    python, *words = shlex.split(command)
    assert python == "python"
    assert shape_of(call(words, project, place)) == shape_of(output)


def shape_of(text: str) -> list[object]:
    """What does not vary: the run's output, else the lines' first words; all of what is no summary."""
    lines = text.strip().splitlines()
    if not lines[0].startswith("completed"):
        return [*lines]
    parts = [line.split(maxsplit=1) for line in lines]
    return [json.loads(rest) if name == "output" else name for name, rest in parts]


def server_commands() -> list[list[str]]:
    """The commands of the section on servers, as words after ``python``."""
    section = README.partition("## A server of your own")[2].partition("\n## ")[0]
    lines = re.findall(r"^python (-m pgflow_mp [^#\n]+)", section, flags=re.MULTILINE)
    return [shlex.split(line) for line in lines]


def call(words: list[str], project: Path, dsn: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=project,
        env={**os.environ, "PGFLOW_DATABASE_URL": dsn},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def test_the_commands_for_a_server_install_and_run(project: Path, empty_dsn: str) -> None:
    install, run, *_ = server_commands()
    assert "Installed" in call(install, project, empty_dsn)
    assert "completed  first" in call(run, project, empty_dsn)


@pytest.mark.slow
def test_the_commands_for_several_boxes_share_a_run(project: Path, place: str) -> None:
    _, _, work, start, status, status_of_run = server_commands()
    (project / "numbers.jsonl").write_text("".join(f"{number}\n" for number in range(2, 500)))
    environment = {**os.environ, "PGFLOW_DATABASE_URL": place}
    work = [word if word != "16" else "1" for word in work]
    boxes = [
        subprocess.Popen([sys.executable, *work], cwd=project, env=environment, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    try:
        time.sleep(3)
        found = re.search(r"[0-9a-f-]{36}", call(start, project, place))
        assert found
        deadline = time.monotonic() + 30
        told = ""
        while "completed" not in told and time.monotonic() < deadline:
            told = call([found[0] if word == "RUN_ID" else word for word in status_of_run], project, place)
        assert "completed" in told
        assert found[0] in call(status, project, place)
    finally:
        for box in boxes:
            box.terminate()
        stopped = [(box.wait(30), box.communicate()[1]) for box in boxes]
    assert [code for code, _ in stopped] == [0, 0], stopped


def test_the_defaults_of_the_page_are_those_of_the_database(
    tx: psycopg.Connection[tuple[object, ...]],
) -> None:
    text = " ".join(README.split())
    said = re.search(r"`max_attempts` is (\d+), `base_delay` (\d+) and `timeout` (\d+) seconds", text)
    shape = json.dumps(Flow("bare").step("only", len).shape())
    tx.execute("select pgflow.ensure_flow_compiled('bare', %s)", (shape,))
    query = "select opt_max_attempts, opt_base_delay, opt_timeout from pgflow.flows where flow_slug = 'bare'"
    assert said
    assert tuple(map(int, said.groups())) == tx.execute(query).fetchone()
    least = re.search(r"the shortest `timeout` is (\d+) seconds", text)
    assert least
    assert int(least[1]) == MINIMUM["timeout"]


def test_the_rights_of_the_page_can_be_granted(tx: psycopg.Connection[tuple[object, ...]]) -> None:
    (block,) = [code for language, code in BLOCKS if language == "sql"]
    tx.execute("create role some_role")
    for statement in filter(None, (line.partition("--")[0].strip() for line in block.splitlines())):
        assert tx.execute(statement.encode()).fetchone()


def test_every_option_of_the_page_exists_with_its_variable(helps: dict[str, str]) -> None:
    rows = re.findall(r"^\| `(--[\w-]+)(?: [A-Z]+)?` \| `(PGFLOW_\w+)` \|", README, flags=re.MULTILINE)
    assert len(rows) > 8
    text = " ".join(helps["run"].split())
    for option, variable in rows:
        assert option in text
        assert f"[env: {variable}" in text, f"{option} has another variable than {variable}"


def test_every_option_named_anywhere_on_the_page_exists(helps: dict[str, str]) -> None:
    ours = {"--help", *re.findall(r"--[a-z][\w-]+", "".join(helps.values()))}
    prose = "".join(part for part in re.split(r"^```.*?^```$", README, flags=re.MULTILINE | re.DOTALL))
    commands = [line for _, block in BLOCKS for line in block.splitlines() if " -m pgflow_mp " in line]
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", prose + "\n".join(commands)))
    assert named <= ours


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_command_has_a_twin_in_the_environment(verb: str, helps: dict[str, str]) -> None:
    options = re.split(r"\n(?=  (?:-\w(?: \w+)?, )?--)", helps[verb].partition("options:")[2])
    bare = [text.split()[0] for text in options[1:] if "[env: " not in " ".join(text.split())]
    assert [option for option in bare if option not in EXEMPT] == []


def test_every_variable_of_the_page_is_that_of_an_option(helps: dict[str, str]) -> None:
    named = set(re.findall(r"\bPGFLOW_\w+", README))
    known = set(re.findall(r"\bPGFLOW_\w+", "".join(helps.values())))
    assert named - known <= {"PGFLOW_FLOWS"}


def test_every_command_is_on_the_page() -> None:
    assert [verb for verb in VERBS if verb != "work" and f"`{verb}" not in README] == []


def test_the_exit_statuses_of_the_page_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \| \S", README, flags=re.MULTILINE)
    ours = [complaints.OK, complaints.RUN_FAILED, complaints.USAGE, complaints.DATABASE, complaints.BUG]
    ours += [complaints.STOPPED, complaints.TIMED_OUT, complaints.INTERRUPTED, complaints.TERMINATED]
    assert [int(code) for row in rows for code in row.split(",")] == ours


def test_every_path_of_the_page_exists() -> None:
    paths = re.findall(r"`((?:pgflow_mp|tests|sql|benchmarks|scripts)/[\w./]*)`", README)
    block = next(block for language, block in BLOCKS if block.startswith("pgflow_mp/"))
    paths += [
        word for line in block.splitlines() for word in line.split() if re.fullmatch(r"[a-z_/]+/", word)
    ]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_set_up_takes_two_commands_and_running_and_testing_one_each() -> None:
    start = README.partition("## Start")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", start, flags=re.MULTILINE | re.DOTALL)
    assert [len(block.splitlines()) for block in blocks] == [2, 1, 1]
