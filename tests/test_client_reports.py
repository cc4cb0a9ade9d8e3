"""What a client tells of runs, items, workers and flows, and how it steers them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from artifact_flows import pictures
from database_server import DatabaseServer
from tcp_proxy import TcpProxy
from worker_harness import compiled, eventually, settings, start, threaded

from pgflow_mp import Client, Flow, FlowNotFound, InputError, RunNotFound, WaitTimeout, run
from pgflow_mp.client.progressing import RunProgress
from pgflow_mp.worker.settings import WorkerState
from pgflow_mp.worker.stats import Ending
from pgflow_mp.worker.worker import Worker

UNKNOWN = "11111111-1111-4111-8111-111111111111"


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        for flow in ("chain", "mischief", "single"):
            compiled(found, flow)
        yield found


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    with psycopg.connect(dsn) as conn:  # what other tests left
        conn.execute("select pgflow.cancel_run(run_id) from pgflow.runs where status = 'started'")
    with Client(dsn) as found:
        yield found


def test_runs_are_listed_by_what_is_asked_for(client: Client, dsn: str) -> None:
    before = datetime.now(UTC)
    done, keyed = start(dsn, "chain", [1, 2]), client.start_flow("chain", [3], key="nightly")
    with threaded(Worker(settings(dsn, "chain"))):
        client.wait(done, 30)
        keyed.wait(30)
    failed, open_ = start(dsn, "mischief", [["permanent", "no"]]), client.start_flow("single", "ann")
    with threaded(Worker(settings(dsn, "mischief"))):
        client.wait(failed, 30, "failed")
    gone = client.cancel(start(dsn, "mischief", [["echo", 1]]))
    mine = [gone.run_id, open_.run_id, failed, keyed.run_id, done]
    assert [each.run_id for each in client.runs(since=before)] == mine
    assert [each.state for each in client.runs(since=before)] == [
        "cancelled",
        "queued",
        "failed",
        "completed",
        "completed",
    ]
    assert [each.run_id for each in client.runs(states="cancelled", since=before)] == mine[:1]
    assert [each.run_id for each in client.runs(flow="mischief", states=["failed", "cancelled"])][:2] == [
        gone.run_id,
        failed,
    ]
    assert [each.run_id for each in client.runs(key="nightly")] == [keyed.run_id]
    assert client.runs(since=before, until=before) == []
    first = client.runs(2, since=before)
    assert [each.run_id for each in client.runs(since=before, after=first[-1])] == mine[2:]
    naive = before.astimezone().replace(tzinfo=None)  # local time
    assert len(client.runs(since=naive)) == 5
    with pytest.raises(InputError, match="'yesterday' is not a datetime"):
        client.runs(since="yesterday")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'done' is not a state of a run") as caught:
        client.runs(states="done")  # type: ignore[arg-type]
    assert "completed_with_failures" in caught.value.hint


def test_one_run_is_told_with_its_steps_and_items(client: Client, dsn: str) -> None:
    run_id = start(dsn, "mischief", [["echo", 1], ["permanent", "no"], ["echo", 3]])
    with threaded(Worker(settings(dsn, "mischief", workers=1))):
        client.wait(run_id, 30, "failed")
    report = client.report(run_id)
    assert (report.state, report.counts.failed) == ("failed", 1)
    (step,) = client.steps(run_id)
    assert step == report.steps[0]
    items = list(client.items(run_id, "act"))
    assert [item.index for item in items] == [0, 1, 2]
    (bad,) = client.items(run_id, "act", statuses="failed")
    assert (bad.index, bad.input) == (1, '["permanent", "no"]')
    assert "PermanentError" in str(bad.error)
    assert [item.index for item in client.items(run_id, "act", start=1, limit=1)] == [1]
    assert list(client.items(run_id, "act", limit=0)) == []
    (group,) = client.failures(run_id)
    assert (group.items, group.step) == (1, "act")
    assert client.run(run_id[:13]).run_id == run_id  # how it begins is enough
    with pytest.raises(FlowNotFound):
        client.items(run_id, "acts")
    with pytest.raises(InputError, match="'bad' is not a status of an item"):
        client.items(run_id, "act", statuses=["bad"])  # type: ignore[list-item]
    for nobody in (UNKNOWN, "zzz", ""):
        for ask in (client.run, client.report, client.steps, lambda run: client.items(run, "act")):
            with pytest.raises(RunNotFound):
                ask(nobody)


def test_items_come_in_pages_of_any_number(client: Client, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgflow_mp.client.asking._PAGE", 7)
    run_id = start(dsn, "mischief", [["echo", n] for n in range(50)])
    assert [item.index for item in client.items(run_id, "act")] == [*range(50)]
    assert [item.index for item in client.items(run_id, "act", start=5, limit=20)] == [*range(5, 25)]
    assert [item.index for item in client.items(run_id, "act", statuses="queued", limit=9)] == [*range(9)]


def test_flows_are_paused_and_workers_drained(client: Client, dsn: str) -> None:
    assert {"chain", "mischief", "single"} <= {flow.flow_slug for flow in client.flows()}
    run = client.start_flow("chain", [1])
    assert client.pause(run)
    assert not client.pause(run.run_id, reason="again")
    assert client.report(run).state == "paused"
    assert client.pause(flow="chain", reason="upkeep")
    assert [flow.flow_slug for flow in client.flows() if flow.paused] == ["chain"]
    worker = Worker(settings(dsn, "chain", name="diligent"))
    with threaded(worker) as thread:
        eventually(lambda: worker.state is WorkerState.RUNNING)
        (known,) = eventually(lambda: [each for each in client.workers() if each.name == "diligent"])
        assert known.flows == ["chain"]
        with pytest.raises(WaitTimeout):
            run.wait(0.3)
        assert client.resume(run)
        assert client.resume(flow="chain")
        assert not client.resume(flow="chain")
        assert run.result(30) == {"joined": "#2"}
        assert client.drain(worker="somebody else") == []
        (drained,) = client.drain(flow="chain")
        assert (drained.name, drained.queue) == ("diligent", "chain")
        assert client.drain(worker="diligent") == []  # it does already
        eventually(lambda: thread.report is not None, 30)
        assert thread.report is not None
        assert thread.report.ending is Ending.DEPRECATED
    for call in (client.pause, client.resume, client.delete, client.drain):
        with pytest.raises(FlowNotFound):
            call(flow="nobody")
    for call in (client.pause, client.resume, client.delete):
        with pytest.raises(InputError, match="A run or a flow"):
            call()
        with pytest.raises(RunNotFound):
            call(UNKNOWN)
    with pytest.raises(InputError, match="Which workers"):
        client.drain()


def test_runs_and_flows_are_removed_with_all_of_them(client: Client, dsn: str, tmp_path: Path) -> None:
    place = tmp_path / "place"

    def kept() -> list[str]:
        return sorted(path.name for path in place.rglob("*") if path.is_file())

    options: dict[str, Any] = {"dsn": dsn, "executor": "inline", "artifacts": str(place)}
    first, second = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
    for run_id in (first, second):
        run(pictures, [1], run_id=run_id, **options)
    assert len(kept()) == 6
    client.delete(first)
    assert client.get_run(first) is None
    assert len(kept()) == 3
    open_ = client.start_flow("pictures", [1])
    with pytest.raises(InputError, match="is started, only a run that has ended can be removed") as caught:
        client.delete(open_)
    assert caught.value.hint == "Cancel it first."
    assert client.prune(timedelta(days=1), flow="pictures").runs == 0
    assert client.prune(0, flow="pictures").runs == 1
    assert kept() == []
    client.delete(flow="pictures")
    assert client.get_run(open_.run_id) is None
    assert "pictures" not in {flow.flow_slug for flow in client.flows()}
    with pytest.raises(FlowNotFound):
        client.prune(0, flow="pictures")
    for nonsense in (-1, float("nan"), 1e12, "30d"):
        with pytest.raises(InputError, match="keep must be from 0 to"):
            client.prune(nonsense)  # type: ignore[arg-type]


def test_progress_goes_from_nothing_to_all_over_cut_connections(client: Client, dsn: str) -> None:
    run_id = start(dsn, "mischief", [["sleep", 0.02]] * 20 + [["echo", 1]] * 5)
    with TcpProxy(dsn) as proxy, Client(proxy.dsn) as watcher:
        seen: list[RunProgress] = []
        feed = watcher.progress(run_id, interval=0.05, timeout=30)
        first = next(feed)
        assert (first.status, first.done, first.total, first.is_total) == ("started", 0, 25, True)
        with threaded(Worker(settings(dsn, "mischief", linger=0.05))):
            for now in feed:
                seen.append(now)
                if len(seen) == 2:
                    proxy.cut()
    last = seen[-1]
    assert (last.status, last.is_over, last.done, last.total) == ("completed", True, 25, 25)
    assert sum(now.new for now in seen) == 25
    assert len(seen) > 2
    assert any(now.rate > 0 and now.eta is not None for now in seen)
    assert [now.done for now in seen] == sorted(now.done for now in seen)
    (only,) = list(client.progress(run_id, step="act"))
    assert only.steps[0].done == 25


def test_progress_of_a_chain_knows_what_it_does_not_know_yet(client: Client, dsn: str) -> None:
    run = client.start_flow("chain", [1, 2, 3])
    first = next(client.progress(run))
    assert (first.total, first.is_total) == (3 + 1, False)  # of the map over a map nothing is known
    with pytest.raises(FlowNotFound):
        client.progress(run, step="nobody")
    with pytest.raises(InputError, match="interval must be more than 0"):
        client.progress(run, interval=0)
    with pytest.raises(WaitTimeout):
        list(client.progress(run, timeout=0.1))
    run.cancel()
    assert [now.status for now in client.progress(run)] == ["failed"]


def test_a_client_is_used_from_many_threads(client: Client, dsn: str) -> None:
    runs = [client.start_flow("chain", [n]) for n in range(4)]
    outputs: list[object] = []
    waiters = [
        threading.Thread(target=lambda run=run: outputs.append(client.wait(run.run_id, 30).output))
        for run in runs
    ]
    for waiter in waiters:
        waiter.start()
    with threaded(Worker(settings(dsn, "chain"))):
        for waiter in waiters:
            waiter.join(30)
    assert sorted(str(output) for output in outputs) == [f"{{'joined': '#{2 * n}'}}" for n in range(4)]


def test_a_flow_that_is_at_hand_is_made_known_when_it_is_started(client: Client) -> None:
    fresh = Flow("fresh_from_python")
    fresh.map("double", abs)
    with pytest.raises(FlowNotFound):
        client.start("fresh_from_python", [1])
    run = client.start(fresh, iter([1, 2]))
    assert (client.report(run).state, client.report(run).counts.items) == ("queued", 2)
    run.cancel()
