"""Usage: help, options, their environment twins, typos. Nothing here needs a database."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import environment

from pgflow_mp.cli import converters
from pgflow_mp.cli import main as cli_main
from pgflow_mp.cli.complaints import report
from pgflow_mp.cli.main import VERBS, main
from pgflow_mp.cli.parser import Parser
from pgflow_mp.errors import ConfigError, InputError


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("PGFLOW_", "PG")) or name == "DATABASE_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("verb", [*VERBS, ""])
def test_help_fits_the_screen_and_names_a_variable_for_every_option(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help-all"] if verb else ["--help-all"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert "exit status:" in text
    parser = cli_main._parser(verb or "work", cli_main._module(verb or "work"))
    for twin in parser.twins:
        assert f"[env: {twin.variable}" in text
    named = {action.dest for action in parser._actions if action.option_strings}
    # retry --failed is a part of the command rather than a choice.
    assert named - {twin.dest for twin in parser.twins} - {"failed"} == {"help", "help_all", "version"}


def test_help_imports_neither_driver_nor_screen_nor_what_flows_are_made_of(tmp_path: Path) -> None:
    code = (
        "import sys; from pgflow_mp.cli.main import VERBS, main\n"
        "for verb in VERBS: main([verb, '--help']); main([verb, '--help-all'])\n"
        "main(['--version'])\n"
        "names = ('psycopg', 'rich', 'psutil', 'multiprocessing', 'msgspec', 'csv', 'pyarrow')\n"
        "print([name for name in names if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment(tmp_path)
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_what_the_package_offers_is_there_once_it_is_asked_for() -> None:
    code = (
        "import pgflow_mp; assert {*pgflow_mp.__all__} <= {*dir(pgflow_mp)}\n"
        "from pgflow_mp import *; from pgflow_mp.flows.flow import Flow as same; assert Flow is same"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_wrapped_in_a_list_goes_on_below_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--help-all"]) == 0
    (last,) = re.findall(r"^  75   run: an operator .*\n(.*)", capsys.readouterr().out, re.MULTILINE)
    assert last == "       is lost; it can be resumed"


def test_a_command_that_fits_into_a_line_is_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    again = "python -m pgflow_mp run flows.py:words --resume 0d8d1cc2 --workers 2"
    report(InputError("It ended", hint=f"Nothing that was recorded is lost. Go on with it: {again}"))
    assert capsys.readouterr().err.splitlines()[1:] == [
        " hint: Nothing that was recorded is lost. Go on with it:",
        f"       {again}",
    ]


@pytest.mark.parametrize("typed", ["python -m pgflow_mp x", "pip install x"])
def test_a_command_to_type_is_spelled_as_it_is_typed(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    report(ConfigError("x", hint=typed))
    assert f"hint: {typed}" in said(capsys)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"pgflow_mp \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["rnu"], ['There is no command or module "rnu"; did you mean run?']),
        (["statsu"], ["did you mean status?"]),
        (["frobnicate", "simple"], ['There is no command or module "frobnicate"', "compile"]),
        (["run", "simple", "--wrokers", "3"], ["There is no option --wrokers; did you mean --workers?"]),
        (["run", "simple", "wide"], ["Too many arguments: wide"]),
        (["run"], ["Which flow is to be run?", "code_metrics"]),
        (["start"], ["FLOW is missing"]),
        (["replay"], ["RUN_ID and STEP are missing"]),
        (["status", "-n", "3"], ["There is no option -n"]),
        (["start", "simple", "--priority", "high"], ["--priority: 'high' is not a whole number within"]),
        (["run", "simple", "--priority", "2147483648"], ["--priority: '2147483648' is not a whole number"]),
        (["status", "--limit", "2147483648"], ["--limit: '2147483648' is more than 2,147,483,647"]),
        (["--visibility-timeout", "100000d"], ["is not a time"]),
        (
            ["--visibility-timeout", "1000000h"],
            ["'1000000h' is more than 2,147,483,647"],
        ),
        (["--batch-size", "1" + 40 * "0"], ["is neither a number of at least 1 nor auto"]),
        (["replay", "run", "step", "2147483648"], ["INDEX: '2147483648' is more than 2,147,483,647"]),
        (["prune"], ["hint: For example: python -m pgflow_mp prune --keep 30d"]),
        (["run", "simple", "-i"], ["--input needs a value"]),
        (["run", "simple", "--workers"], ["--workers needs a value"]),
        (["--workers", "many"], ["--workers: 'many' is neither a number of at least 1 nor auto"]),
        (["--workers", "5000"], ["5000 is more than the 1024 processes"]),
        (["--executor", "Dusk!"], ["--executor: 'Dusk!' is not an executor like lanes or threads"]),
        (["--executor", "dusk"], ["There is no executor 'dusk'", "lanes, threads, inline"]),
        (["--grace", "soon"], ["--grace: 'soon' is not a time like 30, 0.5, 10s or 5m"]),
        (["--max-memory-per-worker", "much"], ["'much' is not a size like 500MB or 2G"]),
        (["--compile", "never"], ["--compile: 'never' is not one of"]),
        (["--dead-after", "1"], ["--dead-after (1 s) must be at least twice --heartbeat-interval (2 s)"]),
        (["--dsn", "host=x", "--data-dir", "y"], ["--dsn and --data-dir cannot be used together"]),
        (
            ["run", "simple", "--resume", "abcd", "--input", "1"],
            ["--resume and --input cannot be used together"],
        ),
        (["run", "simple", "--json", "-o", "-"], ["both want standard output"]),
    ],
)
def test_a_wrong_command_line_is_refused_with_a_way_out(
    arguments: list[str], parts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    text = said(capsys)
    assert text.startswith("error: ")
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("PGFLOW_WORKERS", "lots", "The environment variable PGFLOW_WORKERS is 'lots'"),
        ("PGFLOW_COMPILE", "maybe", "which is not one of: check, extend, skip, recreate"),
        ("PGFLOW_DEBUG", "perhaps", "PGFLOW_DEBUG is 'perhaps': 'perhaps' is neither yes nor no"),
        ("PGFLOW_LOG_LEVEL", "loud", "PGFLOW_LOG_LEVEL is 'loud'"),
        ("PGFLOW_PRIORITY", "1.5", "The environment variable PGFLOW_PRIORITY is '1.5'"),
        ("PGFLOW_MAX_POLL_SECONDS", "-1", "PGFLOW_MAX_POLL_SECONDS is '-1'"),
    ],
)
def test_a_bad_value_in_the_environment_is_blamed_on_its_variable(
    variable: str,
    value: str,
    part: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(variable, value)
    commands = {
        "PGFLOW_PRIORITY": ["start", "simple"],
        "PGFLOW_DEBUG": ["status"],
        "PGFLOW_LOG_LEVEL": ["status"],
    }
    assert main(commands.get(variable, [])) == 2
    assert part in said(capsys)


def work_parser() -> Parser:
    return cli_main._parser("work", cli_main._module("work"))


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    parse = work_parser().parse
    assert parse([], {}).grace == 30.0
    assert parse([], {"PGFLOW_GRACE": "5s"}).grace == 5.0
    assert parse(["--grace", "1m"], {"PGFLOW_GRACE": "nonsense"}).grace == 60.0
    assert parse([], {"PGFLOW_GRACE": ""}).grace == 30.0
    assert parse([], {"PGFLOW_DEBUG": "yes"}).debug is True
    assert parse(["--no-debug"], {"PGFLOW_DEBUG": "1"}).debug is False
    assert parse(["--workers", "auto"], {"PGFLOW_WORKERS": "3"}).workers is None


def test_options_may_stand_before_the_command() -> None:
    assert cli_main._split(["--workers", "3", "run", "x"]) == ("run", ["--workers", "3", "x"])
    assert cli_main._split(["--debug", "status", "--json"]) == ("status", ["--debug", "--json"])
    assert cli_main._split(["--workers", "16"]) == ("work", ["--workers", "16"])
    assert cli_main._split(["--workers=16", "flows.py"]) == ("work", ["--workers=16", "flows.py"])


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30.0), ("0.5", 0.5), ("500ms", 0.5), ("10s", 10.0), ("5m", 300.0), ("2h", 7200.0)],
)
def test_times_have_units(text: str, value: float) -> None:
    assert converters.seconds(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000", 1000),
        ("1k", 1024),
        ("500MB", 500 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("2g", 2 * 1024**3),
    ],
)
def test_sizes_have_units(text: str, value: int) -> None:
    assert converters.size(text) == value


def test_a_bug_of_ours_is_called_one_and_shows_no_traceback_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("pgflow_mp.cli.connecting.never_used", broken)
    assert main(["status", "--data-dir", "x"]) == 70
    text = said(capsys)
    assert "Unexpected ZeroDivisionError: oops" in text
    assert "This is a bug in pgflow_mp" in text
    assert "Traceback" not in text
    assert main(["status", "--data-dir", "x", "--debug"]) == 70
    assert "Traceback" in said(capsys)
