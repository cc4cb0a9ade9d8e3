"""Iterators, generators and async iterators feed runs from Python, item by item."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from worker_harness import FLOWS, compiled

from pgflow_mp.bench.served import FLOWS as BENCH
from pgflow_mp.client import Client, feeding_items
from pgflow_mp.errors import FlowNotFound, InputError, RunFailed
from pgflow_mp.flows.context import Runtime
from pgflow_mp.flows.flow import Flow
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.runner import run
from pgflow_mp.testing import run_inline
from pgflow_mp.values.inputs import encode_input


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
        with pytest.raises(FlowNotFound, match='There is no flow "nowhere"') as unknown:
            client.start("nowhere", [1])
        assert re.search(r": python -m pgflow_mp work FLOW --dsn '[^']*'$", unknown.value.hint)
        with pytest.raises(InputError, match="has no map over its input") as unfit:
            client.start("single", [1])
        assert unfit.value.hint == 'Give its input as one value: start_flow("single", input)'
        with pytest.raises(InputError, match="is not the id of a run"):
            client.start("chain", [1], run_id="x")
    assert stored(dsn) == (1, 1, 100_000)


def test_params_that_nobody_reads_are_refused(dsn: str) -> None:
    with pytest.raises(InputError, match="has none"):
        run(flow_of("single"), [1], params={"a": 1}, dsn=dsn)
    with pytest.raises(InputError, match="an async iterator is none"):
        run(flow_of("single"), drawn(), dsn=dsn)


def test_a_large_list_is_stored_once_and_is_the_run_s_input_all_the_same(dsn: str) -> None:
    (echo,) = [flow for flow in load_flows(BENCH) if flow.slug == "bench_echo"]
    wanted = str(uuid.uuid4())
    texts = [f"{number:0110000d}" for number in range(10)]
    assert run(echo, texts, dsn=dsn, workers=1, run_id=wanted) == {"items": texts}
    assert stored(dsn) == (1, 1, 10)
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select input, output from pgflow.runs").fetchone() == ({}, {"items": None})
        bodies = "select sum(pg_column_size(body)) from pgflow.pages"
        assert conn.execute(bodies).fetchone() == (pytest.approx(2_200_000, rel=0.01),)
    with Client(dsn) as client:
        found = client.get_run(wanted)
        assert found is not None
        assert (found.input, found.output) == (texts, {"items": texts})
    runtime = Runtime(dsn=dsn)
    assert runtime.flow_input(wanted) == texts
    runtime.close()
    assert run(echo, texts, dsn=dsn, workers=1, run_id=wanted) == {"items": texts}
    assert stored(dsn) == (1, 1, 10)


def test_a_list_is_stored_as_one_value_where_that_is_read_or_small_or_shared() -> None:
    def maps(**options: Any) -> Flow:
        flow = Flow("f")
        flow.map("m", lambda x: x, **options)
        return flow

    def total(everything: list[int]) -> int:
        return len(everything)

    def pages(flow: Flow, items: Any) -> list[tuple[int, bytes]] | None:
        found = feeding_items.input_pages(flow, items, encode_input(items))
        return None if found is None else list(found)

    large = list(range(300_000))
    found = pages(maps(), large)
    assert found is not None
    assert [n for _, body in found for n in json.loads(body)] == large
    assert all(count == len(json.loads(body)) and len(body) < 130_000 for count, body in found)
    uneven = ["x" * 400_000, *["y"] * 40_000, *["z" * 3000] * 400]
    found = pages(maps(), uneven)
    assert found is not None
    assert [n for _, body in found for n in json.loads(body)] == uneven
    assert all(len(body) < 130_000 or count == 1 for count, body in found)

    assert pages(maps(), large[:1000]) is None
    assert pages(maps(), {"large": large}) is None
    assert pages(maps(storage="tasks"), large) is None
    reads = maps()
    reads.step("s", total)
    assert pages(reads, large) is None
    no_map = Flow("g")
    no_map.step("s", total)
    assert pages(no_map, large) is None


@pytest.mark.parametrize("make", [list, iter], ids=["list", "iterator"])
def test_an_element_that_fits_no_annotation_is_the_failure_of_its_item_however_it_is_given(
    dsn: str, make: Callable[[list[object]], Any]
) -> None:
    """Nothing is compared while items are drawn: a misfit among many may be tolerated, and has its number."""
    flow = flow_of("stepwise")
    words = 'step "double_each" task 1%s: InputMismatch: Input of step "double_each" does not fit'
    with pytest.raises(RunFailed) as caught:
        run(flow, make([1, "a", 3]), dsn=dsn, executor="inline")
    assert words % ' ("a")' in str(caught.value)
    with pytest.raises(RunFailed) as caught:
        run_inline(flow, make([1, "a", 3]))
    assert words % "" in str(caught.value)
