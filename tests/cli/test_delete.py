"""``delete``: a run that has ended, or a flow, with everything of it."""

from __future__ import annotations

import psycopg
from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen


def rows(cli: Cli) -> tuple[int, int]:
    """Runs and flows."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        found = conn.execute(
            "select (select count(*) from pgflow.runs), (select count(*) from pgflow.flows)"
        ).fetchone()
    assert found is not None
    return found


def test_a_run_goes_when_it_has_ended(cli: Cli) -> None:
    gone = cli("run", f"{FLOWS}:square", "--input", "[1]", "--json").json["run_id"]
    stays = cli("start", f"{FLOWS}:square", "--input", "[1]", "--json").json["run_id"]
    assert_one_screen(cli("delete", stays), 2, f"Run {stays} is started", "Cancel it first")
    assert cli("delete", gone[:13]).out == f"Removed run {gone} of square.\n"
    assert rows(cli) == (1, 1)
    assert_one_screen(cli("delete", gone), 2, f"There is no run {gone}")


def test_a_flow_goes_when_somebody_has_confirmed_it(cli: Cli) -> None:
    cli("run", f"{FLOWS}:square", "--input", "[1]")
    assert_one_screen(cli("delete", "square"), 2, "This removes flow square with all its runs", "--yes")
    terminal = OnTerminal(cli, "delete", "square")
    terminal.wait_for(r"\[y/N\]")
    terminal.type("n\n")
    assert terminal.finish().code == 2
    assert rows(cli) == (1, 1)
    told = cli("delete", "square", "--yes", "--json")
    assert told.json == {"flow": "square", "run_id": None, "deleted": True}
    assert rows(cli) == (0, 0)
    assert_one_screen(cli("delete", "square"), 2, "There is no flow, and no run, 'square'")
