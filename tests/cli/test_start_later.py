"""``start --after`` and ``--wait``, and ``pause --for``."""

from __future__ import annotations

import re
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen, finish

from pgflow_mp.db.pausing import list_pauses


def holds(cli: Cli) -> dict[str, float]:
    """The seconds for which runs are held yet, by run."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        return {str(p.run_id): (p.until - now(conn)).total_seconds() for p in list_pauses(conn) if p.until}


def now(conn: psycopg.Connection) -> datetime:
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def test_a_run_starts_later_whichever_way_it_is_started(cli: Cli) -> None:
    (cli.cwd / "items.jsonl").write_text("1\n2\n")
    zone = (datetime.now().astimezone() + timedelta(hours=1)).isoformat(timespec="seconds")
    ways = {
        cli("start", f"{FLOWS}:square", "--input", "[1]", "--after", zone, "--tag", "t").out.strip(),
        cli("start", f"{FLOWS}:square", "--input", "items.jsonl", "--after", "60min").out.strip(),
        cli("start", "square", "--input", "[1]", "--key", "a", "--after", "1h").out.strip(),
        cli("start", "square", "--input", "items.jsonl", "--key", "b", "--after", "1h").out.strip(),
    }
    held = holds(cli)
    assert (len(ways), set(held)) == (4, ways)
    assert all(3500 < left <= 3600 for left in held.values()), held
    again = cli("start", "square", "--input", "[1]", "--key", "a", "--after", "2d")
    assert again.out.strip() in ways
    assert max(holds(cli).values()) <= 3600
    listed = cli("runs", "--tag", "t")
    assert re.search(r"starts in (59:\d\d|1:00:00)", listed.out), listed
    [run] = cli("runs", "--tag", "t", "--json").json["runs"]
    assert (run["state"], run["status"]) == ("paused", "started")
    assert datetime.fromisoformat(run["paused_until"]) == datetime.fromisoformat(zone)
    told = cli("status", run["run_id"])
    assert re.search(r"starts at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(in [\d:]+\)", told.out), told
    past = cli("start", "square", "--input", "[1]", "--after", "2020-01-01").out.strip()
    assert past not in holds(cli)
    assert cli("resume", run["run_id"]).out == f"Resumed run {run['run_id']} of square.\n"
    assert run["run_id"] not in holds(cli)


CODE = """
from pgflow_mp import Flow, PermanentError

def check(number: int) -> int:
    if number == 3:
        raise PermanentError("3 is not allowed")
    return number

tolerant = Flow("tolerant", max_attempts=1, storage="tasks").map("check", check, tolerate=5)
strict = Flow("strict", max_attempts=1, storage="ranges").map("check", check)
"""


@pytest.mark.slow
def test_waiting_lasts_until_workers_have_ended_the_run(cli: Cli) -> None:
    (cli.cwd / "checks.py").write_text(CODE)
    runs = [
        cli.start("start", f"checks.py:{name}", "--input", "[1, 2, 3]", "--wait", "--after", "2s")
        for name in ("tolerant", "strict")
    ]
    left = cli.start("start", f"{FLOWS}:slow", "--input", "[0]", "--wait")
    assert left.stdout is not None
    ids = [process.stdout.readline().strip() for process in runs if process.stdout is not None]
    begun = time.time()
    assert left.stdout.readline().strip() != ""
    worker = cli.start("checks.py", "--workers", "1")
    ended = [finish(process) for process in runs]
    assert [done.code for done in ended] == [0, 1], ended
    assert time.time() - begun < 12
    for done, run_id in zip(ended, ids, strict=True):
        assert (done.out, run_id.count("-")) == ("", 4)
        assert ("3 is not allowed" in done.err) == bool(done.code), done
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        early = conn.execute(
            "select count(*) from pgflow.items i join pgflow.runs r using (run_id)"
            " where i.started_at < r.started_at + interval '1.9 s'"
        ).fetchone()
    assert early == (0,)
    time.sleep(0.2)
    left.send_signal(signal.SIGINT)
    stopped = finish(left)
    assert stopped.code == 130
    assert stopped.err.count("note: no worker serves nap; the run waits for one: ") == 1
    assert "goes on without this command." in stopped.err
    assert cli("runs", "--status", "open", "--json").json["runs"][0]["flow_slug"] == "slow"
    worker.send_signal(signal.SIGINT)
    finish(worker)


def test_waiting_ends_with_its_time_and_with_the_run(cli: Cli) -> None:
    done = cli("start", f"{FLOWS}:slow", "--input", "[0]", "--wait", "--timeout", "0.3s", "--json")
    run_id = done.json["run_id"]
    assert (done.code, f"Run {run_id} has not ended, and goes on." in done.err) == (124, True)
    keyed = ("start", "slow", "--input", "[5]", "--key", "k")
    cancelled, deleted = cli.start(*keyed, "--wait"), cli.start("start", "slow", "--input", "[6]", "--wait")
    assert cancelled.stdout is not None
    assert deleted.stdout is not None
    cli("cancel", cancelled.stdout.readline().strip(), "--reason", "enough")
    first = finish(cancelled)
    assert (first.code, "enough" in first.err) == (1, True), first
    assert cli(*keyed, "--wait").code == 1  # it had failed
    gone = deleted.stdout.readline().strip()
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        conn.execute("select pgflow.delete_flow_and_data('slow')")
    last = finish(deleted)
    assert (last.code, f'Run {gone} of flow "slow" was deleted' in last.err) == (1, True), last


def test_a_pause_for_some_time(cli: Cli) -> None:
    run_id = cli("start", f"{FLOWS}:slow", "--input", "[0]").out.strip()
    done = cli("pause", run_id, "--for", "10m")
    assert done.out.startswith(
        f"Paused run {run_id} of slow for 10:00.\n"
        f"Go on with it before that: python -m pgflow_mp resume {run_id}"
    )
    assert 500 < holds(cli)[run_id] <= 600
    assert cli("pause", "slow", "--for", "1h").out.startswith("Paused flow slow for 1:00:00.")
    assert re.search(r"starts in (59:|1:00:00)", cli("runs").out)
    assert cli("pause", "slow", "--json").json["changed"]
    assert " paused " in cli("runs").out


def test_what_makes_no_sense_is_one_screen(cli: Cli, tmp_path: Path) -> None:
    start = ("start", f"{FLOWS}:slow", "--input", "[0]")
    assert_one_screen(cli(*start, "--after", "soon"), 2, "--after: 'soon' is neither in how long, like 10m")
    assert_one_screen(cli(*start, "--after", "999999d"), 2, "--after")
    assert_one_screen(cli(*start, "--timeout", "3"), 2, "--timeout is for --wait, which is missing")
    assert_one_screen(cli("pause", "slow", "--for", "0s"), 2, "--for: '0s' is not a length of time")
    assert_one_screen(cli("pause", "slow", "--for", "10"), 2, "--for: '10' is not a time with its unit")
    assert cli("runs").out.startswith("No runs")
