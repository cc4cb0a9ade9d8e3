"""What may be done on the page where actions are allowed, and what is asked before."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli
from database_server import DatabaseServer
from web_harness import TOKEN, Outline, Served, serve

from pgflow_mp.db import engine, schedules, wire


class Acting:
    """A page with actions, and its database with a flow of one map."""

    def __init__(self, served: Served, conn: engine.Connection) -> None:
        self.served, self.conn = served, conn

    def start(self, flow: str = "acted", items: int = 2) -> str:
        return engine.start_flow(self.conn, flow, json.dumps([*range(items)]).encode())

    def status(self, run_id: str) -> str:
        return engine.run_status(self.conn, run_id) or "gone"

    def post(self, path: str, **form: str) -> str:
        """What the page says after it."""
        answer = self.served.post(path, **form)
        return (self.served.follow(answer) if answer.status == 303 else answer).words


@pytest.fixture(scope="module")
def acted(
    server: DatabaseServer, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Acting]:
    with server.database(template) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        wire.adapt(conn)
        for flow in ("acted", "other"):
            conn.execute("select pgflow.create_flow(%s, max_attempts => 1)", (flow,))
            conn.execute("select pgflow.add_step(%s, 'only', step_type => 'map')", (flow,))
        cli = Cli(tmp_path_factory.mktemp("serve"), dsn)
        try:
            served = serve(cli, "--allow-actions", PGFLOW_WEB_TOKEN=TOKEN)
            served.enter()
            acting = Acting(served, conn)
            acting.start("other")  # where there are runs, pages have forms
            yield acting
        finally:
            cli.kill_all()


def test_a_run_is_cancelled_retried_and_deleted_after_questions(acted: Acting) -> None:
    run = acted.start()
    path = f"/runs/{run}"
    assert f"Cancel run {run}?" in acted.post(path, action="cancel")
    assert acted.status(run) == "started"
    assert "Cancelled." in acted.post(path, action="cancel", sure="1")
    assert acted.status(run) == "failed"
    assert "Nothing was changed: the run had ended already." in acted.post(path, action="cancel", sure="1")
    assert "Retried." in acted.post(path, action="retry")
    assert acted.status(run) == "started"
    assert "only a run that has ended can be removed" in acted.post(path, action="delete", sure="1")
    acted.post(path, action="cancel", sure="1")
    assert "This cannot be taken back." in acted.post(path, action="delete")
    assert acted.status(run) == "failed"
    assert f"Deleted run {run}." in acted.post(path, action="delete", sure="1")
    assert acted.status(run) == "gone"
    assert "There is no run" in acted.post(path, action="retry")


def test_what_was_done_is_told_once_and_cannot_be_made_up(acted: Acting) -> None:
    answer = acted.served.post(f"/runs/{acted.start()}", action="pause")
    assert "Paused." in acted.served.follow(answer).words
    assert "Paused." not in acted.served.follow(answer).words
    assert "hello" not in acted.served.ask("/runs?said=hello").words


def test_runs_and_flows_are_paused_and_resumed(acted: Acting) -> None:
    run = acted.start()
    assert "Paused." in acted.post(f"/runs/{run}", action="pause")
    assert run in acted.served.ask("/runs?state=paused").text
    assert "Resumed." in acted.post(f"/runs/{run}", action="resume")
    assert run not in acted.served.ask("/runs?state=paused").text
    assert "Paused." in acted.post("/flows/other", action="pause")
    assert "It was paused already." in acted.post("/flows/other", action="pause")
    acted.start("other")
    assert "other is paused: " in acted.served.ask("/").words
    assert "Resumed." in acted.post("/flows/other", action="resume")
    assert 'There is no flow "nix"' in acted.post("/flows/nix", action="pause")


def test_a_pause_that_ends_by_itself_says_when(acted: Acting) -> None:
    run, when = acted.start(), r"paused until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \(in (9:\d\d|10:00)\): "
    acted.conn.execute("select pgflow.pause_run(%s, null, now() + interval '10 min')", (run,))
    words = acted.served.ask(f"/runs/{run}").words
    assert re.search(f"P{when[1:]}workers take nothing of it\\.", words), words
    acted.conn.execute("select pgflow.resume_run(%s)", (run,))
    acted.start("other")
    acted.conn.execute("select pgflow.pause_flow('other', null, now() + interval '10 min')")
    words = acted.served.ask("/").words
    assert re.search(rf"other is {when}\d+ runs? on hold\.", words), words
    acted.conn.execute("select pgflow.resume_flow('other')")


def test_ticked_runs_and_all_of_a_filter_are_acted_upon(acted: Acting) -> None:
    runs = [acted.start() for _ in range(3)]
    untouched = acted.start("other")
    ticked = {"action": "cancel", "which": "ticked", "run": runs[0]}
    assert "Cancel 1 run?" in acted.post("/runs", **ticked)
    assert acted.status(runs[0]) == "started"
    assert "Cancelled 1 run." in acted.post("/runs", **ticked, sure="1")
    assert [acted.status(run) for run in runs] == ["failed", "started", "started"]
    every = {"action": "cancel", "which": "all", "flow": "acted", "state": "queued"}
    sure = acted.served.post("/runs", **every)
    kept = [
        (given["name"], given["value"])
        for tag, given in Outline(sure.text).elements
        if tag == "input" and given.get("type") == "hidden"
    ]
    assert ("flow", "acted") in kept
    assert ("which", "all") in kept
    assert "Cancelled" in acted.post("/runs", **every, sure="1")
    assert {acted.status(run) for run in runs} == {"failed"}
    assert acted.status(untouched) == "started"
    assert "Deleted" in acted.post("/runs", action="delete", which="all", flow="acted", sure="1")
    assert {acted.status(run) for run in runs} == {"gone"}


def test_a_worker_is_drained_and_a_schedule_paused(acted: Acting) -> None:
    worker = str(uuid.uuid4())
    engine.register_worker(acted.conn, worker, "other", "box:1")
    assert "Drain worker box:1?" in acted.post(f"/workers/{worker}", action="drain")
    assert "It ends what it runs, and stops." in acted.post(f"/workers/{worker}", action="drain", sure="1")
    assert "draining" in acted.served.ask(f"/workers/{worker}").words
    assert "It was told so before" in acted.post(f"/workers/{worker}", action="drain", sure="1")
    due = [(datetime(2099, 1, 1, 3, tzinfo=UTC), "2099-01-01T03:00+00:00")]
    schedules.set_schedule(acted.conn, "other", "at-night", "0 3 * * *", "UTC", b"[]", due)
    path = "/schedules/other/at-night"
    assert "0 3 * * *" in acted.served.ask("/schedules").words
    assert "Paused other / at-night." in acted.post(path, action="pause")
    assert schedules.schedules(acted.conn)[0].paused_at is not None
    assert "Resumed other / at-night." in acted.post(path, action="resume")
    assert acted.served.post("/schedules/other/nix", action="pause").status in (404, 409)


@pytest.mark.parametrize(
    ("path", "form", "words"),
    [
        ("/runs", {"action": "cancel", "which": "ticked"}, "No run is ticked"),
        ("/runs", {"action": "cancel", "run": "1"}, "has no id"),
        ("/runs", {"action": "drop", "which": "all"}, "no action 'drop'"),
        ("/runs", {"action": "cancel", "which": "all", "state": "odd"}, "state is 'odd'"),
        ("/runs/00000000-0000-4000-8000-000000000000", {"action": "retry"}, "There is no run"),
        ("/flows/acted", {"action": "delete"}, "no action 'delete'"),
        ("/workers", {"action": "drain"}, "nothing to do under this address"),
        ("/nix", {"action": "cancel"}, "nothing to do under this address"),
    ],
)
def test_what_makes_no_sense_is_told(acted: Acting, path: str, form: dict[str, str], words: str) -> None:
    assert words in acted.post(path, **form)


def test_a_role_that_may_not_act_is_told_so(acted: Acting, tmp_path: Path) -> None:
    from database_roles import role_with

    run = acted.start()
    with role_with(acted.conn.info.dsn, "starter") as dsn:
        cli = Cli(tmp_path, dsn)
        try:
            served = serve(cli, "--allow-actions", PGFLOW_WEB_TOKEN=TOKEN)
            served.enter()
            answer = served.post(f"/runs/{run}", action="cancel", sure="1")
            assert (answer.status, "may not" in answer.words) == (403, True)
        finally:
            cli.kill_all()
    assert acted.status(run) == "started"
