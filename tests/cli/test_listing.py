"""runs, flows, workers and status on one database: filters, pages, tags, states, JSON as it is documented."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cli_harness import Cli, OnTerminal, assert_one_screen
from worker_harness import adapted

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.starting import start_once
from pgflow_mp.observe.run_reports import ItemCounts, RunDetails, RunReport, StepReport
from pgflow_mp.observe.whole_runs import WholeRun
from pgflow_mp.observe.worker_reports import FlowReport, LaneReport, WorkerInfo

PAGE = (Path(__file__).parents[2] / "docs" / "operating.md").read_text(encoding="utf-8")
WORKER = str(uuid.UUID(int=5))


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    """Flows "f" and "g"; of "f" five runs, the second and the fourth with a tag, the third cancelled."""
    with adapted(dsn) as conn:
        for slug in ("f", "g"):
            conn.execute("select pgflow.create_flow(%s, max_attempts => 2, base_delay => 30)", (slug,))
            conn.execute("select pgflow.add_step(%s, 'm', step_type => 'map')", (slug,))
        runs = [
            start_once(
                conn,
                "f",
                json.dumps([n, 2, 3]).encode(),
                str(uuid.UUID(int=n << 96)),
                tags=["even"] * (n % 2),
            )
            for n in range(5)
        ]
        engine.cancel_run(conn, runs[2].run_id)
        yield conn


def ids(found: Any) -> list[int]:
    """Which of the fixture's runs these are."""
    return [uuid.UUID(run["run_id"]).int >> 96 for run in found]


def test_runs_are_found_by_everything_they_have_and_paged(cli: Cli, conn: Connection) -> None:
    def found(*options: str) -> list[int]:
        return ids(cli("runs", "--json", *options).json["runs"])

    assert found() == [4, 3, 2, 1, 0]
    assert found("--tag", "even") == [3, 1]
    assert found("--tag", "even", "--tag", "odd") == []
    assert found("--status", "cancelled") == [2]
    assert found("--status", "open,Completed_With_Failures", "--limit", "2") == [4, 3]
    assert found("--flow", "g") == found("--since", "2090-01-01") == found("--key", "k") == []
    assert found("--since", "1h", "--until", "2090-01-01T00:00+02:00") == [4, 3, 2, 1, 0]
    first = cli("runs", "--json", "--limit", "2").json
    assert (ids(first["runs"]), first["next"]) == ([4, 3], str(uuid.UUID(int=3 << 96)))
    last = cli("runs", "--json", "--limit", "3", "--before", first["next"][:8]).json
    assert (ids(last["runs"]), last["next"]) == ([2, 1, 0], None)
    shown = OnTerminal(cli, "runs", "--limit", "2").finish().out.replace("\r", "")
    assert re.search(r"\n00000004-\S+ +f +queued, no worker +0/3 ", shown)
    assert "\nThere are more; add --before 00000003-0000" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert cli("runs", "--tag", "none").out.startswith("No such runs in ")
    assert_one_screen(cli("runs", "--tag", "a b"), 2, "cannot have the tag 'a b'")
    assert_one_screen(cli("runs", "--status", "done"), 2, "'done' is not one of queued, running")
    assert_one_screen(
        cli("runs", "--since", "yesterday"), 2, "neither how long ago, like 2h or 3d, nor a date"
    )
    assert_one_screen(
        cli("runs", "--before", "0000"), 2, "begins the ids of several runs", "00000004-0000-0000"
    )
    assert cli("runs", PGFLOW_TAG="even,odd").out.startswith("No such runs")


def test_how_a_run_is_in_words(cli: Cli, conn: Connection) -> None:
    run = str(uuid.UUID(int=1 << 96))
    shown = cli("status", run[:9]).out
    assert "\ntags even\nstarted " in shown
    assert "\n3 queued; no worker serves m\n" in shown
    assert re.search(r"f +1 +4 +0 +0 +0, 1 +0 ", cli("flows").out), cli("flows").out
    assert "\nf: 4 runs queued, no worker serves m\n" in cli("flows").out
    assert cli("workers").out.startswith("No workers at ")

    engine.register_worker(conn, WORKER, "f", "box:1", 60)
    [task, *_] = engine.claim_tasks(conn, "f", WORKER, 1)
    assert [step["counts"]["running"] for step in cli("status", task.run_id, "--json").json["steps"]] == [1]
    assert "\n1 running, 2 queued\n" in cli("status", task.run_id).out
    engine.fail_tasks(conn, task.run_id, "m", [task.task_index], ["no"], WORKER, [1], [False])
    others = [each for each in engine.claim_tasks(conn, "f", WORKER, 99) if each.run_id == task.run_id]
    for each in others:
        engine.complete_tasks(conn, task.run_id, "m", [each.task_index], [b"1"], WORKER, [each.attempt])
    shown = cli("status", task.run_id).out
    assert re.search(r"\n1 waiting for a retry \(next in (59|60|[0-5]\d)\.\d s\)\n", shown), shown
    assert re.search(r"\nm +waiting +2/3 +1 waiting for a retry", shown), shown
    [told] = [run for run in cli("runs", "--json").json["runs"] if run["run_id"] == task.run_id]
    assert (told["state"], told["done"], told["counts"]["attempts"]) == ("waiting", 2, 3)
    assert 40 < told["next_retry"] <= 60
    conn.execute("select pgflow.pause_flow('f')")
    assert re.search(r" paused +\d", cli("flows").out)
    assert cli("runs", "--status", "paused", "--json").json["next"] is None
    assert "\npaused; 1 waiting for a retry" in cli("status", task.run_id).out
    workers = cli("workers").out
    assert re.search(r"\nbox:1 +idle .* f$", workers.rstrip()), workers
    engine.stop_workers(conn, [WORKER])
    assert cli("workers", "--json").json == {"workers": []}
    assert [each["state"] for each in cli("workers", "--all", "--json").json["workers"]] == ["stopped"]


@pytest.mark.parametrize(
    "struct", [RunReport, RunDetails, WholeRun, StepReport, ItemCounts, FlowReport, WorkerInfo, LaneReport]
)
def test_the_page_names_every_field(struct: type[msgspec.Struct]) -> None:
    assert [field for field in struct.__struct_fields__ if f"`{field}`" not in PAGE] == []


def test_without_any_database_nothing_is_made(bare_cli: Cli) -> None:
    for verb, told in (("runs", "No runs yet. "), ("flows", "No flows yet. "), ("workers", "No workers. ")):
        done = bare_cli(verb)
        assert (done.code, done.out[: len(told)]) == (0, told)
    assert bare_cli("runs", "--json").json == {"runs": [], "next": None}
    assert bare_cli("flows", "--json").json == {"flows": [], "next": None}
    assert bare_cli("workers", "--json").json == {"workers": []}
    assert list(bare_cli.cwd.iterdir()) == []
