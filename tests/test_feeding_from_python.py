"""Iterators, generators and async iterators feed runs from Python, item by item."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from worker_harness import FLOWS, compiled

from pgflow_mp.client import Client
from pgflow_mp.errors import FlowNotFound, InputError
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.runner import run


def flow_of(slug: str) -> Flow:
    (found,) = [flow for flow in load_flows(str(FLOWS)) if flow.slug == slug]
    return found


def stored(dsn: str) -> tuple[object, ...] | None:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "select (select count(*) from pgflow.runs), (select count(*) from pgflow.loads), "
            "(select coalesce(sum(items), 0) from pgflow.loads)"
        ).fetchone()


async def drawn() -> AsyncIterator[int]:
    yield 1
    yield 2


def failing() -> Iterator[int]:
    yield from range(50_000)
    raise LookupError("no more")


def test_run_draws_iterators_and_leaves_nothing_of_one_that_fails(dsn: str) -> None:
    chain = flow_of("chain")
    wanted = str(uuid.uuid4())
    for items in (iter([1, 2]), drawn()):
        assert run(chain, items, dsn=dsn, workers=1, run_id=wanted) == {"joined": "#2 #4"}
    assert stored(dsn) == (1, 1, 2)
    assert run(chain, [1, 2], dsn=dsn, workers=1, params={"rate": 1}) == {"joined": "#2 #4"}
    assert stored(dsn) == (2, 2, 4)
    with pytest.raises(LookupError):
        run(chain, failing(), dsn=dsn, workers=1)
    with pytest.raises(InputError, match="Item 1 cannot be stored as JSON"):
        run(chain, iter([1, float("nan")]), dsn=dsn, workers=1)
    assert stored(dsn) == (2, 2, 4)


def test_a_client_starts_runs_over_any_iterable(dsn: str) -> None:
    compiled(dsn, "chain")
    compiled(dsn, "single")
    with Client(dsn) as client:
        found = client.start(flow_of("chain"), range(100_000), priority=2)
        assert found.status == "started"
        assert stored(dsn) == (1, 1, 100_000)
        again = client.start("chain", [], run_id=found.run_id)
        assert again.run_id == found.run_id
        with pytest.raises(LookupError):
            client.start("chain", failing())
        with pytest.raises(FlowNotFound, match="There is no flow 'nowhere'"):
            client.start("nowhere", [1])
        with pytest.raises(InputError, match="has no map over its input"):
            client.start("single", [1])
        with pytest.raises(InputError, match="cannot be the id of a run"):
            client.start("chain", [1], run_id="x")
    assert stored(dsn) == (1, 1, 100_000)


def test_params_that_nobody_reads_are_refused(dsn: str) -> None:
    with pytest.raises(InputError, match="has none"):
        run(flow_of("single"), [1], params={"a": 1}, dsn=dsn)
    with pytest.raises(InputError, match="an async iterator is none"):
        run(flow_of("single"), drawn(), dsn=dsn)
