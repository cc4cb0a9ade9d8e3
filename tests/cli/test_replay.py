"""``replay``: one item again, in this process, and nothing recorded."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen

PICKY = f"{FLOWS}:picky"


def picture(cli: Cli) -> list[tuple[object, ...]]:
    """Everything of the database that a replay could change."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        return (
            conn.execute("select t::text from pgflow.step_tasks t order by 1").fetchall()
            + conn.execute("select r::text from pgflow.runs r order by 1").fetchall()
        )


def failed_run(cli: Cli) -> str:
    assert cli("run", PICKY, "--input", "[1, 3]", "--workers", "1").code == 1
    (run,) = cli("status", "--json").json
    return str(run["run_id"])


def test_a_failed_item_shows_its_traceback_and_a_good_one_its_output(cli: Cli) -> None:
    run_id = failed_run(cli)
    before = picture(cli)
    done = cli("replay", run_id, "check", "1", PICKY)
    assert (done.code, done.out) == (1, "")
    assert "check[1] 3 failed here after" in done.err
    assert "the run has it as failed" in done.err
    assert "PermanentError: 3 is not allowed" in done.err
    assert 'raise PermanentError(f"{number} is not allowed")' in done.err
    (cli.cwd / "allowed-3").touch()
    done = cli("replay", run_id[:8], "check", "1", PICKY)
    assert (done.code, done.out) == (0, "3\n")
    told = cli("replay", run_id, "check", "0", PICKY, "--json").json
    assert (told["status"], told["output"], told["error"], told["index"]) == ("completed", 1, None, 0)
    assert told["input"] == 1
    assert picture(cli) == before


@pytest.mark.slow
def test_the_input_of_a_dependent_step_is_its_parents_output(cli: Cli) -> None:
    assert cli("run", f"{FLOWS}:sums", "--input", "[1, 2]", "--workers", "1").code == 0
    (run,) = cli("status", "--json").json
    done = cli("replay", run["run_id"], "total", "0", f"{FLOWS}:sums")
    assert (done.code, done.out) == (0, "6\n")
    done = cli("replay", run["run_id"], "double", "1", f"{FLOWS}:sums")
    assert (done.code, done.out) == (0, "4\n")
    assert "a handler prints" in done.err


@pytest.mark.slow
def test_pdb_opens_at_the_line_that_raised(cli: Cli) -> None:
    run_id = failed_run(cli)
    screen = OnTerminal(cli, "replay", run_id, "check", "1", PICKY, "--pdb")
    screen.wait_for(r"\(Pdb\)")
    os.write(screen._terminal, b"p number * 1000\n")
    screen.wait_for(r"3000")
    os.write(screen._terminal, b"q\n")
    assert screen.finish().code == 1


STUBBORN = """
import os
import time
from pathlib import Path
from pgflow_mp import Flow

stubborn = Flow("stubborn")

@stubborn.map
def look(name: str) -> str:
    if Path("replay").exists():
        os.write(2, b"looking\\n")
        os.abort() if name == "crash" else time.sleep(60)
    return name
"""


def test_an_item_that_crashes_or_never_ends_shows_where_it_was(cli: Cli) -> None:
    (cli.cwd / "stubborn.py").write_text(STUBBORN)
    run_id = cli("run", "stubborn.py", "--input", '["crash", "stuck"]', "--json").json["run_id"]
    (cli.cwd / "replay").touch()
    crashed = cli("replay", run_id, "look", "0", "stubborn.py")
    assert crashed.code == -signal.SIGABRT
    assert re.search(r'File ".*stubborn\.py", line 13 in look', crashed.err), crashed
    stuck = OnTerminal(cli, "replay", run_id, "look", "1", "stubborn.py")
    stuck.wait_for("looking")
    stuck.interrupt()
    shown = stuck.finish()
    assert shown.code == 130
    assert 'look[1] "stuck" was here after' in shown.out
    assert re.search(r'File ".*stubborn\.py", line 1[23], in look', shown.out), shown
    assert "Interrupted." in shown.out


@pytest.mark.slow
def test_misuse_is_one_screen(cli: Cli, tmp_path: Path) -> None:
    run_id = failed_run(cli)
    assert_one_screen(
        cli("replay", run_id, "chekc", "0", PICKY),
        2,
        'Step "chekc" does not exist in flow',
        "steps are check",
    )
    assert_one_screen(cli("replay", run_id, "check", "2", PICKY), 2, "has no item 2", "the items 0 to 1")
    assert_one_screen(cli("replay", run_id, "check", "x", PICKY), 2, "not a whole number")
    assert_one_screen(cli("replay", run_id, "check", "0", "simple"), 2, 'not of "simple"', "FLOW")
    assert_one_screen(
        cli("replay", run_id, "check", "0", PICKY, "--json", "--pdb"), 2, "cannot be used together"
    )
    assert_one_screen(cli("replay", "abcdef12", "check", "0"), 2, "There is no run abcdef12")


@pytest.mark.slow
def test_a_handler_cannot_write_through_the_connection_it_is_given(cli: Cli) -> None:
    flow = cli.cwd / "writes.py"
    flow.write_text(
        "from pgflow_mp import Context, Flow\n"
        'writes = Flow("writes", max_attempts=1)\n'
        "@writes.step\n"
        "def note(ctx: Context) -> None:\n"
        '    ctx.connect().execute("create table if not exists noted ()")\n'
    )
    assert cli("run", "writes.py", "--input", "{}").code == 0
    (run,) = cli("status", "--json").json
    done = cli("replay", run["run_id"], "note", "0", "writes.py")
    assert done.code == 1
    assert "ReadOnlySqlTransaction" in done.err


def test_a_replayed_item_receives_what_on_start_makes_and_it_is_ended(cli: Cli, tmp_path: Path) -> None:
    notes, target = tmp_path / "notes", f"{FLOWS.parent / 'start_flows.py'}:flow"
    Path(f"{notes}.order").write_text("raise")
    done = cli("run", target, "--input", '["a", "b"]', "--workers", "1", PGFLOW_TEST_NOTES=str(notes))
    assert done.code == 1
    assert 'error: on_start function "model" of flow "starts" failed: FileNotFoundError' in done.err
    (run,) = cli("status", "--json").json
    assert f"--resume {run['run_id']} --dsn " in " ".join(done.err.split())
    done = cli("replay", run["run_id"], "act", "1", target, PGFLOW_TEST_NOTES=str(notes))
    assert (done.code, done.out) == (1, "")
    assert 'on_start function "model" of flow "starts" failed: FileNotFoundError' in done.err
    Path(f"{notes}.order").unlink()
    notes.unlink()
    done = cli("replay", run["run_id"], "act", "1", target, PGFLOW_TEST_NOTES=str(notes))
    assert (done.code, done.out) == (0, '["b","big",1]\n')
    assert [line.split()[0] for line in notes.read_text().splitlines()] == ["name", "begin", "end"]
