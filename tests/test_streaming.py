"""as_completed and imap: items out of Python's loops as they end, and nothing left behind where nothing is to
be."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import DatabaseServer
from streaming_flows import Pair, in_ranges, in_tasks, several, whole
from worker_harness import eventually, threaded

from pgflow_mp import Client, FlowNotFound, InputError, RunFailed, WaitTimeout
from pgflow_mp.client import FinishedItem
from pgflow_mp.flows.flow import Flow
from pgflow_mp.runner import resume
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.worker import Worker

HERE = Path(__file__).parent
FILE = HERE / "streaming_flows.py"
RANGES_OR_SLOW = pytest.mark.parametrize(
    "flow", [pytest.param(in_tasks, marks=pytest.mark.slow), in_ranges], ids=lambda flow: str(flow.slug)
)
BOTH = pytest.mark.parametrize("flow", [in_tasks, in_ranges], ids=lambda flow: str(flow.slug))


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        yield found


@pytest.fixture
def empty_of_runs(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for one test."""
    with server.database(template) as found:
        yield found


def left(dsn: str) -> dict[str, int]:
    """Rows of whatever belongs to runs, where there are any."""
    tables = ["runs", "step_states", "step_tasks", "range_maps", "ranges", "pages", "loads", "leavings"]
    queries = [f"select '{name}', count(*) from pgflow.{name}" for name in tables]
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(" union all ".join(queries).encode()).fetchall()
    return {name: count for name, count in rows if count}


def status_of(dsn: str, run_id: str) -> Any:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select status from pgflow.runs where run_id = %s", (run_id,)).fetchone()
    return None if row is None else row[0]


@BOTH
def test_items_come_in_order_converted_and_nothing_is_left(
    server: DatabaseServer, template: str, flow: Flow
) -> None:
    with server.database(template) as dsn:
        found = list(flow.imap(iter([3, 13, *range(4, 12)]), executor="inline", dsn=dsn, keep=False))
        assert left(dsn) == {}
    assert [item.index for item in found] == [*range(10)]
    first, second, third, *_ = found
    assert (first.input, first.output, first.status, first.error) == (3, Pair(3, "x"), "completed", None)
    assert (second.input, second.output, second.status) == (13, None, "failed")
    assert "PermanentError: thirteen" in str(second.error)
    assert type(third) is FinishedItem
    assert third.seconds is not None
    assert 0 <= third.seconds < 30


def test_the_items_of_any_map_and_parameters_for_the_others(dsn: str) -> None:
    found = list(several.imap([1, 2], executor="inline", dsn=dsn, step="twice", params={"factor": 2}))
    assert [(item.input, item.output) for item in found] == [(1, 2), (2, 4)]
    assert list(in_ranges.imap([], executor="inline", dsn=dsn)) == []


def test_what_makes_no_sense_is_refused_at_once(dsn: str) -> None:
    with pytest.raises(
        InputError, match=r'Whose items\? Flow "several" has the maps twice, thrice'
    ) as caught:
        several.imap([1])
    assert "step='thrice'" in caught.value.hint
    with pytest.raises(FlowNotFound, match='Step "once" does not exist in flow "several"'):
        several.imap([1], step="once")
    with pytest.raises(InputError, match='Other steps of flow "whole" read its input, which items given'):
        whole.imap([1])
    with pytest.raises(InputError, match="has no map over its input"):
        Flow("steps").step("a", len).imap([1])


def test_items_that_cannot_be_drawn_start_nothing(server: DatabaseServer, template: str) -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with server.database(template) as dsn:
        with pytest.raises(LookupError, match="no more"):
            next(in_ranges.imap(failing(), executor="inline", dsn=dsn))
        assert left(dsn) == {}


@BOTH
def test_a_run_that_fails_raises_what_run_does_after_its_items(
    server: DatabaseServer, template: str, flow: Flow
) -> None:
    with server.database(template) as dsn:
        found: list[FinishedItem] = []
        items = flow.imap([1, 13, 13], executor="inline", dsn=dsn, keep=False, ordered=False)
        with pytest.raises(
            RunFailed, match=r'step "pair" task [12] \(13\): .*PermanentError: thirteen'
        ) as caught:
            found.extend(items)
        assert found[0].index == 0
        assert "Nothing is kept" in caught.value.hint
        assert left(dsn) == {}


@RANGES_OR_SLOW
def test_leaving_early_cancels_what_runs_and_cleans_up(
    server: DatabaseServer, template: str, flow: Flow
) -> None:
    with server.database(template) as dsn:
        began = time.monotonic()
        for item in flow.imap([1, 1000, *[0.2] * 5000], workers=2, dsn=dsn, keep=False, ordered=False):
            assert item.output == Pair(1, "x")
            break
        assert left(dsn) == {}
        assert time.monotonic() - began < 20  # of the 60 s that an item would have slept
        assert not [thread for thread in threading.enumerate() if thread.name == "pgflow-imap"]


@pytest.mark.slow
def test_a_run_that_is_kept_can_be_gone_on_with(dsn: str) -> None:
    run_id = "00000000-0000-4000-8000-00000000000a"
    items = in_ranges.imap([0.7] * 6, workers=1, dsn=dsn, run_id=run_id, timeout=1.5, grace=0.1)
    with pytest.raises(WaitTimeout) as caught:
        list(items)
    assert "resume(in_ranges" in caught.value.hint
    assert status_of(dsn, run_id) == "started"
    output = resume(in_ranges, run_id, workers=2, dsn=dsn)
    assert output == {"pair": [Pair(0, "x")] * 6}
    again = list(in_ranges.imap([0.7] * 6, executor="inline", dsn=dsn, run_id=run_id))
    assert [item.output for item in again] == output["pair"]
    for _ in in_ranges.imap([2, 1000.5], executor="inline", dsn=dsn, run_id=run_id):
        break
    assert status_of(dsn, run_id) == "completed"


@RANGES_OR_SLOW
def test_a_client_gets_items_as_they_end(dsn: str, flow: Flow) -> None:
    serving = WorkerSettings(dsn=dsn, targets=(str(FILE),), flows=(flow.slug,), workers=2, grace=1.0)
    with Client(dsn) as client, threaded(Worker(serving)) as worker:
        eventually(lambda: worker.worker.state == "running", 30)
        run = client.start(flow, [0.5, 13, 1])
        found = {item.index: item for item in run.as_completed("pair", timeout=30)}
        assert {index: item.status for index, item in found.items()} == {
            0: "completed", 1: "failed", 2: "completed",
        }  # fmt: skip
        assert (found[2].input, found[2].output) == (1, [1, "x"])
        assert [item.index for item in run.as_completed("pair", ordered=True)] == [0, 1, 2]
        assert list(run.results("pair")) == [[0, "x"], [1, "x"]]
        with pytest.raises(FlowNotFound):
            run.as_completed("pairs")
        run = client.start(flow, [1000, 1])
        items = run.as_completed("pair", timeout=20)
        assert next(items).index == 1
        run.cancel("enough")
        with pytest.raises(RunFailed, match="enough"):
            next(items)
        run = client.start(flow, [1000])
        with pytest.raises(WaitTimeout):
            next(run.as_completed("pair", timeout=0.3))
        run.cancel()


SCRIPT = """
import sys
from streaming_flows import in_ranges

if __name__ == "__main__":
    items = in_ranges.imap(
        [1, 0.5] + [1000] * 4, workers=2, ordered=False, dsn=sys.argv[1], run_id=sys.argv[2], grace=1.0
    )
    print(next(items).index, flush=True)
    if sys.argv[3] == "leave":
        sys.exit(7)  # the loop is left where it is
    list(items)
"""


@pytest.mark.parametrize("how", [pytest.param("leave", marks=pytest.mark.slow), "interrupt"])
def test_a_process_that_ends_in_the_midst_leaves_no_worker(
    empty_of_runs: str, tmp_path: Path, how: str
) -> None:
    dsn = empty_of_runs
    (tmp_path / "script.py").write_text(SCRIPT)
    run_id = f"00000000-0000-4000-8000-0000000000{'b' if how == 'leave' else 'c'}0"
    process = subprocess.Popen(
        [sys.executable, "script.py", dsn, run_id, how],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{HERE}:{HERE.parent}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    begun = process.stdout.readline()
    if how == "interrupt":
        time.sleep(0.3)  # it waits for the next item
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert begun in ("0\n", "1\n"), said
    if how == "leave":
        assert (process.returncode, said) == (7, "")
        assert status_of(dsn, run_id) == "failed"
    else:
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt: Run " in said
        assert "Go on with it: resume(in_ranges" in said
        assert status_of(dsn, run_id) == "started"


@pytest.mark.slow
@BOTH
def test_memory_stays_the_same_however_many_items(dsn: str, flow: Flow) -> None:
    items = ({"n": 1, "text": f"{n:0200d}"}["n"] for n in range(200_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(item.output == Pair(1, "x") for item in flow.imap(items, workers=2, dsn=dsn, keep=False))
    assert count == 200_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # KB
