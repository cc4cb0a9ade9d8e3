"""What commands advise can be pasted: it names the database that was named, and things that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_harness import Cli, OnTerminal

from pgflow_mp.cli.main import main

BAD = """
from pgflow_mp import Flow

flow = Flow("a_flow_of_long_name", max_attempts=1)


@flow.map
def work(number: int) -> int:
    if number == 2:
        raise ValueError("not this one")
    return number
"""


def lines(text: str) -> list[str]:
    """The command lines in it that name a database, or should."""
    said = " ".join(text.split()).replace("python -m pgflow_mp", "\npython -m pgflow_mp")
    return [line for line in said.splitlines()[1:] if "--help" not in line]


def test_commands_that_are_advised_name_the_database(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD)
    failed = cli("run", "bad.py", "--input", "[1, 2]", "--json")
    assert failed.code == 1
    run = failed.json["run_id"]
    flow = failed.json["flow"]
    for nobody in (["workers"], ["workers", "--flow", flow], ["top", "--once"], ["stacks"]):
        told = cli(*nobody)
        assert told.code == 0
        assert [line.split(" --dsn ")[0] for line in lines(told.out)] == ["python -m pgflow_mp FLOW"], nobody
    waits = cli("start", "bad.py", "--input", "[1]").out.strip()
    for words, code in (
        (["failures", run], 0),
        (["status", run], 0),
        (["status", waits], 0),
        (["status", "nope"], 2),
        (["logs", "nope"], 2),
        (["runs", "--before", "nope"], 2),
        (["run", "bad.py", "--resume", "nope"], 2),
        (["run", "simple", "--resume", run], 2),
        (["start", "bad.py", "--input", "[1]", "--from-run", "nope", "--reuse", "work"], 2),
        (["results", waits, "work"], 2),
        (["replay", run, "work", "1"], 2),
        (["delete", "a_flow_of_long_name"], 2),
        (["pause", "00000000-0000"], 2),
        (["top", "nobody", "--once"], 2),
        (["stacks", "nobody"], 2),
        (["cancel", waits], 0),
    ):
        done = cli(*words)
        assert done.code == code, (words, done.err)
        found = lines(done.out + done.err)
        assert found, words
        assert [line for line in found if " --dsn " not in line] == [], words
    drained = cli("drain", "a_flow_of_long_name")
    assert "no worker of a_flow_of_long_name is alive that was not told to drain before" in drained.out


def test_the_name_of_a_flow_is_whole_in_the_list_of_flows(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(BAD.replace("a_flow_of_long_name", "thumbnails"))
    cli("start", "bad.py", "--input", "[1]")
    shown = OnTerminal(cli, "flows").finish()
    assert shown.code == 0
    assert re.search(r"^\W*thumbnails +1 ", shown.out, re.MULTILINE), shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize("words", [["status", "abc"], ["limits", "simple"], ["logs", "abc"]])
def test_where_nothing_was_ever_started_a_way_on_is_told(bare_cli: Cli, words: list[str]) -> None:
    done = bare_cli(*words)
    assert done.code == 2
    assert "Name the database with --dsn or --data-dir" in " ".join(done.err.split())


def test_lists_of_nothing_advise_what_uses_the_place_that_was_named(bare_cli: Cli) -> None:
    for verb in ("status", "runs", "flows", "workers"):
        told = bare_cli(verb, "--data-dir", "elsewhere").out
        assert told.rstrip().endswith("--data-dir elsewhere"), told


def test_help_of_what_is_no_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "statsu"]) == 2
    assert 'There is no command "statsu"; did you mean status?' in capsys.readouterr().err
    assert main(["limits", "--help"]) == 0
    assert "limits encode" not in " ".join(capsys.readouterr().out.split())
