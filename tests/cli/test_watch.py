"""``status --watch`` and ``status --group``."""

from __future__ import annotations

import json

import psycopg
import pytest
from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen, finish

from pgflow_mp.client import Client

COMPLETED = "select pgflow.start_flow('empty', '[]')"
"""Without any item it is completed at once."""


def started(cli: Cli) -> list[str]:
    """Runs of two flows: queued, cancelled and completed; those that go on are answered."""
    first = cli("start", f"{FLOWS}:slow", "--input", "[0, 1]").out.strip()
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        conn.execute("select pgflow.create_flow('empty'), pgflow.add_step('empty', 'm', step_type => 'map')")
        conn.execute(COMPLETED)
        conn.execute(COMPLETED)
    with Client(cli.dsn) as client:
        client.start_flow("slow", [1]).cancel()
        client.pause(second := client.start_flow("slow", [1]))
        return [first, second.run_id]


def test_runs_are_counted_by_flow_and_by_status(cli: Cli) -> None:
    nothing = cli("status", "--group", "flow")
    assert nothing.out.startswith("No runs in ")
    runs = started(cli)
    rows = [line.split() for line in cli("status", "--group", "flow").out.splitlines()]
    assert rows == [
        ["flow", "queued", "paused", "completed", "cancelled"],
        ["empty", "2"],
        ["slow", "1", "1", "1"],
    ]
    assert cli("status", "--group", "flow", "--json").json == {
        "groups": [
            {"flow_slug": "empty", "runs": 2, "states": {"completed": 2}},
            {"flow_slug": "slow", "runs": 3, "states": {"paused": 1, "queued": 1, "cancelled": 1}},
        ]
    }
    by_status = cli("status", "--group", "status", "--flow", "slow", "--json").json["groups"]
    assert by_status == [{"state": state, "runs": 1} for state in ("queued", "paused", "cancelled")]
    shown = [line.split() for line in cli("status", "--group", "status").out.splitlines()]
    assert shown == [
        ["status", "runs"],
        ["queued", "1"],
        ["paused", "1"],
        ["completed", "2"],
        ["cancelled", "1"],
    ]
    assert_one_screen(cli("status", "--group", "day"), 2, "--group: 'day' is not one of")
    assert_one_screen(cli("status", runs[0], "--group", "flow"), 2, "--group is for all runs")


@pytest.mark.slow
def test_runs_are_watched_until_they_have_ended(cli: Cli) -> None:
    first, second = started(cli)
    one = cli.start("status", first, "--watch", "--json")
    every = cli.start("status", "--watch")
    counts = cli.start("status", "--group", "status", "--watch", "--json")
    seen = OnTerminal(cli, "status", first, "--watch")
    left = OnTerminal(cli, "status", "--watch")
    seen.wait_for("queued.*\n(.*\n)*.*Ctrl-C ends this")
    left.wait_for("Ctrl-C ends this")
    left.interrupt()
    stopped = left.finish()
    assert stopped.code == 130, stopped
    assert "\x1b[K" not in left.raw  # at the edge that takes the last character
    assert left.raw.rindex("\x1b[?1049l") < left.raw.rindex("slow")
    assert one.stdout is not None
    assert json.loads(one.stdout.readline())["state"] == "queued"
    for process in (every, counts):
        assert process.stdout is not None
        process.stdout.readline()
    assert cli.dsn is not None
    with Client(cli.dsn) as client:
        client.cancel(first)
        ended = [finish(one)]
        client.cancel(second)
    ended += [finish(every), finish(counts), seen.finish()]
    assert [done.code for done in ended] == [0, 0, 0, 0], ended
    [last] = ended[0].out.splitlines()
    assert json.loads(last)["state"] == "cancelled"
    assert ended[1].out.count("cancelled") >= 3
    assert json.loads(ended[2].out.splitlines()[-1])["groups"] == [
        {"state": "completed", "runs": 2},
        {"state": "cancelled", "runs": 3},
    ]
    assert "cancelled, started" in ended[3].out
