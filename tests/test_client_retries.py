"""``Client.retry`` and ``Run.retry``: what they take, what they answer, what a handle shows afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgflow_mp import Client, FlowNotFound, InputError, RunNotFound
from pgflow_mp.client.retried import spans_of
from pgflow_mp.client.run_handles import Run
from pgflow_mp.db import engine, wire

WORKER = "11111111-1111-1111-1111-111111111111"


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    with Client(dsn) as client:
        yield client


@pytest.fixture
def own(conn: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection for a worker of the flow m -> total, whose m tolerates failures."""
    conn.execute("select pgflow.create_flow('f', max_attempts => 1)")
    conn.execute("select pgflow.add_step('f', 'm', step_type => 'map')")
    conn.execute("select pgflow.add_step('f', 'total', array['m'])")
    conn.execute("select pgflow.set_step_policy('f', 'm', tolerated_failures => 9)")
    wire.adapt(conn)
    engine.register_worker(conn, WORKER, "f", "test", 10.0)
    return conn


def work(own: psycopg.Connection[Any], *failing: int) -> None:
    """Do what there is to do; these items of the map fail."""
    while tasks := engine.claim_tasks(own, "f", WORKER, 100):
        for task in tasks:
            key = own, task.run_id, task.step_slug, [task.task_index]
            if task.step_slug == "m" and task.task_index in failing:
                engine.fail_tasks(*key, [f"no {task.task_index}"], WORKER, [task.attempt], [True])
            else:
                engine.complete_tasks(*key, [b"7"], WORKER, [task.attempt])


@pytest.fixture
def run(client: Client, own: psycopg.Connection[Any]) -> Run:
    """A completed run of five items, of which 1 and 3 have failed."""
    run = client.start_flow("f", [1, 2, 3, 4, 5])
    work(own, 1, 3)
    return run.wait(10)


def test_items_are_chosen_and_the_handle_shows_the_run_as_it_goes_on(
    client: Client, own: psycopg.Connection[Any], run: Run
) -> None:
    assert run.steps["m"].output == [7, None, 7, None, 7]
    assert client.run(run.run_id).output == {"total": 7}
    plan = client.retry(run.run_id, indexes=[3, 4], dry_run=True)
    assert (plan.items, plan.recomputed, plan.steps[0].first_indexes) == (1, ("total",), [3])
    assert run.refresh().status == "completed"
    assert run.retry(indexes=[3, 4]) == plan
    assert (run.status, run.output, run.completed_at) == ("started", None, None)
    assert [run.steps[slug].status for slug in ("m", "total")] == ["started", "created"]
    work(own)
    assert run.wait(10).steps["m"].output == [7, None, 7, 7, 7]
    assert run.retry(errors="no 1", steps=["m"]).items == 1
    work(own, 1)
    assert [step.step for step in client.retry(run, indexes=range(5)).steps] == ["m", "total"]
    work(own)
    assert run.wait(10).steps["m"].output == [7] * 5
    assert not run.retry()


@pytest.mark.parametrize(
    "choice", [{"steps": []}, {"indexes": range(0)}, {"indexes": 0}, {"errors": ()}, {"errors": ["No 1"]}]
)
def test_where_nothing_is_chosen_nothing_is_done(run: Run, choice: dict[str, Any]) -> None:
    assert not run.retry(**choice)
    assert run.status == "completed"


def test_what_is_not_there_is_an_error(client: Client, run: Run) -> None:
    with pytest.raises(FlowNotFound, match='Step "n" does not exist'):
        run.retry(steps="n")
    with pytest.raises(RunNotFound):
        client.retry(str(uuid.uuid4()))
    with pytest.raises(InputError, match="-1 is not the index of an item"):
        run.retry(indexes=-1)
    with pytest.raises(InputError, match="NUL"):
        run.retry(errors="a\0b")
    assert run.refresh().status == "completed"


@pytest.mark.parametrize(
    ("indexes", "spans"),
    [
        (7, [(7, 8)]),
        (range(5, 10), [(5, 10)]),
        (range(0, 4, 2), [(0, 1), (2, 3)]),
        ([1, 5], [(1, 2), (5, 6)]),
        (range(0), []),
        ([], []),
    ],
)
def test_indexes_are_stretches(indexes: Any, spans: list[tuple[int, int]]) -> None:
    assert spans_of(indexes) == spans


@pytest.mark.parametrize("indexes", [-1, range(-1, 3), [1, 2**31], 2**31 - 1])
def test_an_index_that_no_item_can_have_is_refused(indexes: Any) -> None:
    with pytest.raises(InputError, match="is not the index of an item"):
        spans_of(indexes)
