"""What several commands answer, they answer alike: unknown flows, pauses, refusals, tables, JSON."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen
from database_roles import role_with

SLOW = f"{FLOWS}:slow"
BY_FLOW = (
    ("status",),
    ("status", "--group", "flow"),
    ("status", "--watch", "--json"),
    ("runs", "--json"),
    ("workers", "--all"),
    ("prune", "--keep", "1d"),
)


def started(cli: Cli, *options: str) -> str:
    done = cli("start", SLOW, "--input", "[0]", *options)
    assert done.code == 0, done
    return done.out.strip()


def test_a_flow_that_is_not_there_is_an_error_of_whatever_lists(cli: Cli, bare_cli: Cli) -> None:
    assert_one_screen(
        cli("status", "--flow", "nosuch"), 2, 'There is no flow "nosuch"', "Flows there: none yet"
    )
    started(cli)
    for words in BY_FLOW:
        assert_one_screen(
            cli(*words, "--flow", "nosuch"), 2, 'There is no flow "nosuch"', "Flows there: slow."
        )
    for words in (("status",), ("runs",), ("workers",), BY_FLOW[-1]):
        assert_one_screen(
            bare_cli(*words, "--flow", "nosuch"), 2, 'There is no flow "nosuch": nothing was ever'
        )


@pytest.mark.parametrize("access", ["reader", "starter"])
def test_it_is_one_for_roles_that_see_no_tables_too(cli: Cli, dsn: str, tmp_path: Path, access: str) -> None:
    started(cli)
    with role_with(dsn, access) as restricted:
        limited = Cli(tmp_path, restricted)
        assert_one_screen(limited("runs", "--flow", "nosuch"), 2, 'no flow "nosuch"', "Flows there: slow.")
        assert limited("runs", "--flow", "slow").code == 0


def test_a_cancelled_run_is_said_to_be_that(cli: Cli) -> None:
    run_id = started(cli)
    assert cli("cancel", run_id).code == 0
    for words in (("cancel",), ("pause",), ("resume",)):
        done = cli(*words, run_id)
        text = f"Run {run_id} of slow has been cancelled already; nothing was changed.\n"
        assert (done.code, done.out) == (1, text)
    failed = cli("run", f"{FLOWS}:barred", "--input", "{}", "--workers", "1")
    assert failed.code == 1
    run_id = cli("runs", "--flow", "barred", "--json").json["runs"][0]["run_id"]
    assert cli("cancel", run_id).out.startswith(f"Run {run_id} of barred has failed already;")


def test_hints_about_the_schema_are_commands_to_paste(empty_dsn: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path, f"{empty_dsn} password=s3cret connect_timeout=7 keepalives_idle=9")
    refused = cli("status")
    assert_one_screen(refused, 3, "has no pgflow schema", "Install it: python -m pgflow_mp install --dsn")
    assert "s3cret" not in refused.err
    advised = " ".join(refused.err.partition("Install it: ")[2].split())
    words = shlex.split(advised)
    assert words[:5] == ["python", "-m", "pgflow_mp", "install", "--dsn"]
    assert len(words) == 6
    pasted = Cli(tmp_path)(*words[3:])
    assert pasted.code == 0, (pasted, refused.err, words)
    assert cli("status").code == 0


def test_a_script_that_is_run_twice_names_the_database(empty_dsn: str, bare_cli: Cli) -> None:
    script = bare_cli("install", "--print").out
    hint = re.search(r"using hint = (format\('This script.*?);\n", script, re.DOTALL)
    assert hint is not None
    with psycopg.connect(empty_dsn) as conn:
        row = conn.execute(f"select {hint[1]}, current_database()".encode()).fetchone()
    assert row is not None
    assert str(row[0]).endswith(f"python -m pgflow_mp migrate --dsn 'dbname={row[1]}'")


def test_a_role_without_rights_reads_what_grants_them(cli: Cli, dsn: str, tmp_path: Path) -> None:
    started(cli)
    with role_with(dsn, None) as restricted:
        for words in (("status",), ("workers",), ("flows",), ("pause", "slow")):
            refused = Cli(tmp_path, restricted)(*words)
            assert_one_screen(
                refused,
                3,
                "The database refuses: permission denied for",
                "select pgflow.grant_access('some_role', 'reader');",
                *("'starter'", "'operator'", "'worker'"),
            )
            assert "LINE 1" not in refused.err
            assert "^" not in refused.err


@pytest.mark.slow
def test_tables_in_pipes_have_no_trailing_blanks(cli: Cli) -> None:
    run_id = started(cli, "--tag", "t")
    cli("schedule", SLOW, "--cron", "0 3 1 1 *", "--input", "[0]")
    for words in (
        *(("status",), ("status", run_id), ("status", "--group", "flow"), ("runs",), ("flows",)),
        *(("workers", "--all"), ("schedule", "list"), ("failures", run_id), ("limits", "slow")),
    ):
        done = cli(*words)
        assert done.code == 0, done
        assert [line for line in done.out.splitlines() if line != line.rstrip()] == []
        assert done.out.endswith("\n")
        assert not done.out.endswith("\n\n")


@pytest.mark.slow
def test_json_of_lists_is_as_the_page_says(cli: Cli, bare_cli: Cli) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operating.md").read_text()
    shapes = {
        ("runs",): ["runs", "next"],
        ("flows",): ["flows", "next"],
        ("workers",): ["workers"],
        ("status", "--group", "flow"): ["groups"],
        ("status", "--group", "status"): ["groups"],
        ("status",): None,
        ("limits", "slow"): None,
        ("schedule", "list"): None,
    }
    empty = {words: bare_cli(*words, "--json") for words in shapes if words[0] != "limits"}
    started(cli)
    for words, keys in shapes.items():
        for done in (cli(*words, "--json"), empty.get(words)):
            if done is not None:
                assert (list(done.json) if isinstance(done.json, dict) else None) == keys, words
                assert isinstance(done.json, dict | list)
        name = " ".join(words[:1] if words[0] == "limits" else words)
        row = next(line for line in page.splitlines() if re.match(rf"\| .*`{name}`.* \| .*(`|array)", line))
        assert ("array" in row) is (keys is None), row


def test_flows_and_json_tell_until_when_something_is_paused(cli: Cli) -> None:
    run_id = started(cli)
    before = datetime.now(UTC)
    paused = cli("pause", "slow", "--for", "10m", "--json").json
    assert list(paused) == ["flow", "run_id", "status", "paused", "until", "changed"]
    left = datetime.fromisoformat(paused["until"]) - before
    assert timedelta(minutes=9) < left < timedelta(minutes=11)
    shown = cli("flows").out
    assert re.search(r"\nslow: paused until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(in (9:\d\d|10:00)\)\n", shown)
    (flow,) = cli("flows", "--json").json["flows"]
    assert (flow["paused"], datetime.fromisoformat(flow["paused_until"]) - before) == (True, left)
    assert cli("pause", run_id, "--json").json["until"] is None, "its own pause has no end"
    assert cli("resume", run_id, "--json").json["until"] == paused["until"], "its flow's has"
    assert cli("pause", "slow", "--json").json["until"] is None
    assert "paused until" not in cli("flows").out
    resumed = cli("resume", "slow", "--json").json
    assert (resumed["paused"], resumed["until"]) == (False, None)


def test_a_run_for_later_tells_programs_when(cli: Cli) -> None:
    before = datetime.now(UTC)
    told = cli("start", SLOW, "--input", "[0]", "--after", "2h", "--json").json
    left = datetime.fromisoformat(told["starts_at"]) - before
    assert timedelta(hours=2) - timedelta(minutes=1) < left < timedelta(hours=2, minutes=1)
    words = ("start", SLOW, "--input", "[0]", "--json")
    exact = cli(*words, "--after", "2036-11-27T03:00+01:00", "--key", "k").json
    assert exact["starts_at"] == "2036-11-27T02:00:00+00:00"
    assert cli(*words, "--after", "10m", "--key", "k").json["starts_at"] == exact["starts_at"]
    assert cli(*words, "--after", "2020-01-01T00:00").json["starts_at"] is None, "that was at once"
    assert "starts_at" not in cli(*words).json
