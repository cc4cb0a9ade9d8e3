"""Numbers and tables that people read: they fit the terminal, and agree with each other."""

from __future__ import annotations

import io
import os
import re
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cli_harness import Cli, OnTerminal
from rich.console import Console

from pgflow_mp.db import connection, engine, wire
from pgflow_mp.db.reads import worked
from pgflow_mp.db.reads.worked import Span
from pgflow_mp.executors.lanes.lifeline import TERMINATE
from pgflow_mp.executors.verdicts import describe_exit
from pgflow_mp.observe.picture import Picture
from pgflow_mp.worker.lane_states import Utilisation

FLOW = """
from pgflow_mp import Flow
flow = Flow("figures", max_attempts=2, base_delay=1)
@flow.map
def a_step_with_a_name_that_is_longer_than_the_column_for_names_is_wide(x: int, ctx) -> int:
    if x % 2 or ctx.attempt == 1 and x == 0:
        raise ValueError("a long text " * 30)
    return x
"""


@pytest.fixture
def failed(cli: Cli) -> str:
    """The id of a failed run of 20 items, 10 of which fail for good, and one only at first."""
    (cli.cwd / "figures.py").write_text(FLOW)
    done = cli("run", "figures.py", "--input", str(list(range(20))), "--workers", "1", "--json")
    assert done.code == 1, done
    assert (done.json["items"] + done.json["failed"] <= 20, done.json["retried"] > 0) == (True, True)
    return str(done.json["run_id"])


def test_a_status_fits_every_terminal_and_its_numbers_agree(cli: Cli, failed: str) -> None:
    for width in (60, 80, 200):
        shown = OnTerminal(cli, "status", failed, size=(50, width), COLUMNS=str(width))
        lines = shown.finish().out.replace("\r", "").splitlines()
        head = next(line for line in lines if line.startswith("step"))
        assert head.split() == ["step", "status", "items", "took"]
        row = lines[lines.index(head) + 1]
        assert " failed " in row
        assert "/20 " in row
        assert " s " in row
        assert len(row.rstrip()) <= width
        assert row.rstrip().endswith("…") or width == 200
        runs = OnTerminal(cli, "status", size=(50, width), COLUMNS=str(width)).finish().out
        assert failed in runs.replace("\r", "").replace("\n", "")
    name = "figures_with_a_name_that_leaves_no_room"  # for the ids; how they begin is as good
    other = FLOW.replace('"figures"', f'"{name}"')
    (cli.cwd / "figures.py").write_text(other)
    started = cli("start", "figures.py", "--input", "[1]").out.strip()
    runs = OnTerminal(cli, "status", size=(50, 80), COLUMNS="80").finish().out.replace("\r", "")
    (line,) = [line for line in runs.splitlines() if line.startswith(started[:13])]
    assert line.split()[1].startswith(name[:20])
    one = cli("status", line.split()[0])
    assert one.code == 0
    assert re.match(r"started \d+ s ago, took [\d.]+ s so far$", one.out.splitlines()[1]), one
    assert cli("status", "--flow", "nope").code == 2
    assert cli("cancel", failed).out.startswith(f"Run {failed} of figures has failed already")
    record = cli("status", failed, "--json").json
    assert record["failed_tasks"] == sum(step["failed_tasks"] for step in record["steps"])


def test_a_picture_in_a_narrower_terminal_leaves_nothing_of_the_wider_one_in_sight() -> None:
    sizes = [(80, 24)]
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    picture = Picture(console, lambda: os.terminal_size(sizes[-1]))
    picture.set_renderable("x" * 70 + "\n" + "y" * 70)

    def drawn() -> str:
        stream = console.file = io.StringIO()
        console.print(picture.position_cursor(), picture, end="")
        return stream.getvalue()

    assert "\n" * 24 not in drawn()
    assert drawn().count("\x1b[1A") == 1  # over itself
    sizes.append((40, 24))
    assert "\n" * 24 + "\x1b[H" in drawn()
    assert console.width == 40
    sizes.append((90, 24))
    assert "\n" * 24 not in drawn()


def used(sent: float, *, busy: float = 0.0) -> float:
    now = time.monotonic()
    share = Utilisation(now - 1)
    share.look(now, 0.0, [], 2)
    flight: Any = SimpleNamespace(lane=1, sent=now + sent)
    return share.look(now + 1, busy, [flight], 2)


def test_a_lane_that_is_at_one_item_all_the_time_is_no_idle_one() -> None:
    assert used(-5.0) == 0.5
    assert used(+0.9) == 0.0
    assert used(+0.9, busy=1.5) == 0.75


def test_how_a_process_was_ended_has_no_number_that_means_nothing() -> None:
    assert describe_exit(-TERMINATE) == "terminated by its worker"
    assert describe_exit(-11) == "signal 11 (SIGSEGV)"
    assert describe_exit(3) == "exit code 3"


def test_what_a_run_took_is_the_time_in_which_somebody_worked_on_it(cli: Cli, dsn: str) -> None:
    """Interrupted in the evening, resumed in the morning: two hours, and not ten."""
    with connection.connect(dsn) as conn:
        wire.adapt(conn)
        conn.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 'a')")
        run_id = engine.start_flow(conn, "f", b"{}")
        started = "started_at = now() - interval '10 hours', completed_at = now(), status = 'completed'"
        conn.execute(f"update pgflow.runs set {started}, remaining_steps = 0")
        conn.execute(
            f"update pgflow.step_states set {started}, remaining_tasks = 0, output = '1',"
            " created_at = now() - interval '10 hours'"
        )
        for began, beat, stopped in (("10 hours", "9 hours", "9 hours"), ("1 hour", "0 hours", None)):
            conn.execute(
                "insert into pgflow.workers"
                " (worker_id, queue_name, function_name, started_at, last_heartbeat_at, stopped_at) values"
                " (gen_random_uuid(), 'f', 'x', now() - %s::interval, now() - %s::interval,"
                " now() - %s::interval)",
                (began, beat, stopped),
            )
    one, several = cli("status", run_id).out, cli("status").out
    assert "\ncompleted, started 10 h ago, took 2:00:0" in one, one
    assert "2:00:0" in several, several


def test_times_without_a_worker_that_is_known_are_taken_as_they_are() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    at = [start + timedelta(hours=hour) for hour in range(11)]
    assert worked.seconds([], "f", at[0], at[3]) == 3 * 3600
    assert worked.seconds([Span("g", at[0], at[1])], "f", at[0], at[3]) == 3 * 3600
    overlapping = [Span("f", at[1], at[4]), Span("f", at[2], at[3]), Span("f", at[8], at[10])]
    assert worked.seconds(overlapping, "f", at[1], at[9]) == 4 * 3600
    assert worked.seconds(overlapping, "f", at[0], at[9]) == 5 * 3600
