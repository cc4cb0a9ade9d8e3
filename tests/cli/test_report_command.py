"""report: a file to mail, on the command line."""

from __future__ import annotations

import re

from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen
from html_pages import Page


def test_a_run_s_report_is_written_whole_or_not_at_all(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:lenient", "--input", "[1, 2, 3, 4]", "--workers", "1", "--json")
    run_id = done.json["run_id"]
    file = cli.cwd / "a report.html"
    file.write_text("what was there")
    done = cli("report", run_id[:8], "-o", file.name)
    assert (done.code, done.out) == (0, "")
    assert re.fullmatch(rf"Wrote a report.html: run {run_id}, [\d.]+ kB.\n", done.err), done.err
    page = Page(file.read_text())
    [row, everything] = page.rows("Items of each step")
    assert (row["step"], row["state"], row["items"], row["failed"]) == (
        *("check", "completed with failures"),
        *("4", "1"),
    )
    assert (everything["completed"], everything["attempts"]) == ("3", "4")
    assert "1 item in 1 group of alike errors: 1 were tolerated." in page.texts
    assert "4 attempts in" in page.text
    assert "1 lane, in use for" in page.text
    assert [path.name for path in cli.cwd.iterdir() if path.name.startswith(".a")] == []
    piped = cli("report", run_id, "-o", "-")
    assert Page(piped.out).rows("Items of each step") == [row, everything]
    assert Page(cli("report", run_id).out).rows("Items of each step") == [row, everything]

    (cli.cwd / "folder").mkdir()
    assert_one_screen(cli("report", run_id, "-o", "folder"), 2, "folder is a directory")
    assert_one_screen(cli("report", run_id, "-o", "none/r.html"), 2, "there is no directory none")
    assert_one_screen(cli("report", "ffffffff", "-o", "r.html"), 2, "There is no run ffffffff")
    assert_one_screen(cli("report"), 2, "RUN_ID is missing")
    assert not (cli.cwd / "r.html").exists()
    terminal = OnTerminal(cli, "report", run_id)
    ended = terminal.finish()
    assert ended.code == 2
    assert "--output report.html" in " ".join(ended.out.split())
