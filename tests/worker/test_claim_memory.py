"""A claim whose answer does not fit into what memory the process has left."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import psycopg
import pytest
from range_harness import store_in_ranges
from worker_harness import compiled

from pgflow_mp.db import claiming
from pgflow_mp.worker.claim import _Thrift
from pgflow_mp.worker.planner import ClaimRequest

ROOMS = [1, 2, 3, 5, 9, 17, 33, 60]  # MB, of which some do not do for 16 MB of pages, in ways of their own
CLAIMS = """
import json, queue, resource, sys, uuid
from pgflow_mp.worker import inbox
from pgflow_mp.worker.claim import Claimer
from pgflow_mp.worker.planner import ClaimRequest

ENDS = (inbox.Claimed, inbox.ClaimLost, inbox.ClaimFailed, inbox.ThreadFailed)
FREE = resource.RLIM_INFINITY
STEPS = {"chain": ["double", "as_text", "joined"]}

def ask(claimer, posted, worker, items):
    claimer.request(ClaimRequest("chain", "chain", worker, 100, items))
    while not isinstance(post := posted.get(timeout=20), ENDS):
        pass
    return post

for room in json.loads(sys.argv[2]):
    posted, worker = queue.SimpleQueue(), str(uuid.uuid4())
    claimer = Claimer(sys.argv[1], posted.put, worker_name="t", dead_after=100.0, lease=None, steps=STEPS)
    claimer.start()
    ask(claimer, posted, worker, 0)
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + (room << 20), FREE))
    post = ask(claimer, posted, worker, 34)
    resource.setrlimit(resource.RLIMIT_AS, (FREE, FREE))
    found = [worker, type(post).__name__, repr(getattr(post, "error", ""))]
    if found[1] != "Claimed":  # what is left of it: less is claimed, by another id
        post = ask(claimer, posted, str(uuid.uuid4()), 34)
    print(json.dumps([*found, sum(map(len, getattr(post, "ranges", ())))]), flush=True)
    claimer.stop()
    claimer.join(5)
    claimer.close()
"""


@pytest.mark.slow
def test_what_was_claimed_by_an_answer_without_room_goes_back_and_less_is_claimed(dsn: str) -> None:
    compiled(dsn, "chain")
    store_in_ranges(dsn, "chain")
    with psycopg.connect(dsn, autocommit=True) as conn:
        elements = "select jsonb_agg(repeat('x', 500000)) from generate_series(1, 300)"
        conn.execute(f"select pgflow.start_flow('chain', ({elements}))".encode())
        done = subprocess.run(
            [sys.executable, "-c", CLAIMS, dsn, json.dumps(ROOMS)],
            env={**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        claims = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(claims) == len(ROOMS), done.stderr
        assert {kind for _, kind, *_ in claims} == {"Claimed", "ClaimLost"}, claims
        assert all(0 < items <= (34 if kind == "Claimed" else 3) for _, kind, _, items in claims), claims
        lost = [worker for worker, kind, *_ in claims if kind == "ClaimLost"]
        held = "select count(*) from pgflow.ranges where worker_id = any (%s::uuid[])"
        assert conn.execute(held, (lost,)).fetchone() != (0,)
        for worker in lost:
            conn.execute("select pgflow.retire_worker(%s)", (worker,))
        assert conn.execute(held, (lost,)).fetchone() == (0,)


@pytest.mark.parametrize(
    ("error", "undone"),
    [
        (psycopg.errors.ProgramLimitExceeded(), True),
        (psycopg.errors.OutOfMemory(), True),
        (psycopg.errors.AdminShutdown(), False),
        (psycopg.OperationalError("lost"), False),
        (psycopg.DatabaseError("out of memory for query result"), False),
        (psycopg.DataError("a value cannot be read"), False),
        (MemoryError(), False),
        (ValueError(), False),
    ],
    ids=repr,
)
def test_only_what_the_server_refuses_has_certainly_claimed_nothing(error: Exception, undone: bool) -> None:
    assert claiming.is_undone(error) is undone


def test_ever_less_is_claimed_while_there_is_no_room_and_as_much_as_before_after_a_while() -> None:
    thrift, request = _Thrift(), ClaimRequest("f", "q", "w", 10, 1000)
    assert thrift.cut(request, 0.0) == (request, False)
    found = []
    for _ in range(9):
        thrift.no_room("q", 5.0)
        cut, sparing = thrift.cut(request, 6.0)
        assert sparing
        found.append(cut.items)
    assert found == [63, 16, 4, 1, 1, 1, 1, 1, 1]
    assert thrift.cut(ClaimRequest("f", "other", "w", 10, 1000), 6.0)[1] is False
    assert thrift.cut(request, 36.0) == (request, False)
