"""Following a step: each item once, as it ends, in either storage, whatever becomes of the connection."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from range_harness import start_in_ranges, store_in_ranges
from tcp_proxy import TcpProxy
from worker_harness import adapted, compiled, settings, start, threaded

from pgflow_mp.client.following import Follower
from pgflow_mp.client.waiting import Deadline
from pgflow_mp.db import engine
from pgflow_mp.db.keeper import Keeper
from pgflow_mp.db.reads import finished
from pgflow_mp.db.reads.finished import END, IndexSet
from pgflow_mp.errors import FlowNotFound, RunNotFound, WaitTimeout
from pgflow_mp.worker.worker import Worker


def started(dsn: str, storage: str, input: Any, **options: Any) -> str:
    """A run of the flow "mischief" in this storage, with these policies, which workers are to leave."""
    if storage == "ranges":
        return start_in_ranges(dsn, "mischief", input, **options)
    compiled(dsn, "mischief")
    store_in_ranges(dsn, "mischief")  # so that there is a row for the options
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("update pgflow.step_policies set storage = 'tasks'")
        for name, value in options.items():
            table = "steps" if name.startswith("opt_") else "step_policies"
            conn.execute(f"update pgflow.{table} set {name} = %s".encode(), (value,))
    return start(dsn, "mischief", input)


def drawn(follower: Follower) -> Iterator[tuple[int, str, bytes | None, bytes]]:
    for stretches in follower:
        for stretch in stretches:
            for index, given, output in stretch.items():
                yield index, stretch.status, given, output


@pytest.mark.parametrize(
    ("storage", "ordered"),
    [
        ("ranges", False),
        ("tasks", True),
        pytest.param("ranges", True, marks=pytest.mark.slow),
        pytest.param("tasks", False, marks=pytest.mark.slow),
    ],
)
def test_each_item_once_over_cut_connections(dsn: str, storage: str, ordered: bool) -> None:
    items: list[list[Any]] = [["echo", n] for n in range(400)]
    items[7], items[250], items[399] = ["flaky", 1], ["permanent", "no"], ["flaky", 1]
    items[100] = ["sleep", 0.4]
    run_id = started(dsn, storage, items, tolerated_failures=1)
    with TcpProxy(dsn) as proxy, Keeper(proxy.dsn) as keeper:
        follower = Follower(keeper, run_id, "act", inputs=True, ordered=ordered)
        with threaded(Worker(settings(dsn, "mischief", compile="skip"))):
            found = []
            for item in drawn(follower):
                found.append(item)
                if len(found) in (1, 150, 300):
                    proxy.cut()
    indexes = [index for index, _, _, _ in found]
    assert sorted(indexes) == [*range(400)]
    assert (indexes == sorted(indexes)) is ordered  # a retry comes later than the others
    by_index = {index: (status, given, output) for index, status, given, output in found}
    assert by_index[0] == ("completed", b'["echo", 0]', b"0")
    assert by_index[7] == ("completed", b'["flaky", 1]', b"2")
    assert by_index[250] == ("failed", b'["permanent", "no"]', b"null")
    assert {by_index[n][2] for n in range(8, 100)} == {b"%d" % n for n in range(8, 100)}
    assert follower.run.status in ("started", "completed")


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_it_ends_with_a_run_that_fails_or_is_cancelled(dsn: str, storage: str) -> None:
    run_id = started(dsn, storage, [["echo", 0], ["permanent", "no"], ["sleep", 60]])
    with Keeper(dsn) as keeper:
        follower = Follower(keeper, run_id, "act", to_the_end=True)
        with threaded(Worker(settings(dsn, "mischief", compile="skip", workers=1, grace=0.5))):
            began = time.monotonic()
            found = dict(item[:2] for item in drawn(follower))
        assert found == {0: "completed", 1: "failed"}
        assert follower.run.status == "failed"
        assert time.monotonic() - began < 20
        run_id = start(dsn, "mischief", [["echo", 0]])
        follower = Follower(keeper, run_id, "act", to_the_end=True)
        with adapted(dsn) as conn:
            timer = threading.Timer(0.3, lambda: engine.cancel_run(conn, run_id))
            timer.start()
            assert list(drawn(follower)) == []
            timer.join()
        assert follower.run.status == "failed"


def test_what_is_not_there_and_what_takes_too_long(dsn: str) -> None:
    run_id = start(dsn, "mischief", [["echo", 0]])
    with Keeper(dsn) as keeper:
        with pytest.raises(RunNotFound):
            Follower(keeper, "00000000-0000-4000-8000-000000000000", "act")
        with pytest.raises(FlowNotFound, match=r'Step "acts" does not exist in flow "mischief"'):
            Follower(keeper, run_id, "acts")
        with pytest.raises(WaitTimeout):
            next(drawn(Follower(keeper, run_id, "act", deadline=Deadline(0.2, "it"))))


def test_sets_of_indexes_are_as_few_intervals_as_there_are() -> None:
    rolls = random.Random(7)
    for _ in range(50):
        ours, theirs = IndexSet(), set[int]()
        for _ in range(30):
            begin = rolls.randrange(60)
            end = begin + rolls.randrange(1, 6)
            ours.add(begin, end)
            theirs.update(range(begin, end))
            low, high = sorted(rolls.sample(range(70), 2))
            missing = ours.missing(low, high)
            assert [n for begin, end in missing for n in range(begin, end)] == [
                n for n in range(low, high) if n not in theirs
            ]
            assert ours.missing(low, high, 1) == missing[:1]
        assert len(ours) == len(theirs)
        assert ours.missing(0, END)[-1][1] == END


def test_looks_are_bounded_and_come_to_everything(dsn: str) -> None:
    run_id = started(dsn, "tasks", [["echo", n] for n in range(50)])
    with adapted(dsn) as conn:
        conn.execute(
            "update pgflow.step_tasks set status = 'completed', completed_at = now(), "
            """output = '"0123456789"' """
            "where task_index >= 30"
        )
        gaps, seen, looks = [(0, 7), (9, END)], Counter[int](), 0
        while gaps:
            found, looked = finished.look(conn, run_id, "act", gaps, inputs=False, rows=10, size=50)
            seen.update(index for stretch in found for index, _, _ in stretch.items())
            looks += 1
            gaps = [(max(begin, looked), end) for begin, end in gaps if end > looked]
        assert seen == Counter(range(30, 50))
        assert 7 <= looks <= 15
