"""Batches in lanes: what is announced, who is charged, and what comes back to be run in halves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from lane_harness import Harness, chunk_of, kinds, lanes, range_of, text

from pgflow_mp.executors.bundles import bounds_of
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.messages import Chunk, Item, Kind

BATCHED: dict[str, Any] = {"flow": "batched", "step": "act_all"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Harness]:
    with lanes(1) as harness:
        yield harness


@pytest.fixture(params=[chunk_of, range_of], ids=["tasks", "ranges"])
def one(request: pytest.FixtureRequest, shared: Harness) -> Harness:
    shared.all_ready()
    shared.deaths.clear()
    shared.reports.clear()
    shared.make = request.param
    return shared


def test_a_batch_that_takes_its_process_down_is_not_charged_but_named(one: Harness) -> None:
    orders: list[Any] = [["echo", n] for n in range(10)]
    orders[6] = ["os_exit", 3]
    outcomes = one.run(orders, **BATCHED)
    assert kinds(outcomes) == [Kind.COMPLETED] * 4 + [Kind.NOT_RUN] * 6
    (died,) = one.deaths
    assert (died.cause, died.verdict, died.suspects, died.suspect) == (Cause.CRASH, None, (4, 4), None)
    assert died.seq in one.done


def test_a_batch_of_one_is_charged(one: Harness) -> None:
    outcomes = one.run([["echo", 1], ["os_exit", 3]], batch=1, **BATCHED)
    assert kinds(outcomes) == [Kind.COMPLETED, Kind.FAILED]
    assert text(outcomes[1]).startswith('Crashed: step "act_all" task 1: its process ended with exit code 3')
    assert one.deaths[0].suspects is None


def test_the_halves_of_a_batch_that_raises_are_announced_as_such(one: Harness) -> None:
    outcomes = one.run([["raise", 1], ["echo", 1], ["os_exit", 3], ["echo", 2]], **BATCHED)
    assert kinds(outcomes) == [Kind.FAILED, Kind.COMPLETED, Kind.NOT_RUN, Kind.NOT_RUN]
    assert one.deaths[0].suspects == (2, 2)


def test_a_time_limit_is_that_of_the_whole_batch(one: Harness) -> None:
    outcomes = one.run([["sleep", 0.15]] * 4, timeout=0.3, **BATCHED)
    assert kinds(outcomes) == [Kind.NOT_RUN] * 4
    assert (one.deaths[0].cause, one.deaths[0].suspects) == (Cause.TIMEOUT, (0, 4))
    one.all_ready()
    assert kinds(one.run([["sleep", 0.15]] * 2, timeout=0.6, **BATCHED)) == [Kind.COMPLETED] * 2


def test_a_batch_that_runs_is_not_taken_away_with_what_waits_behind_it(one: Harness) -> None:
    seq = one.submit([["sleep", 0.1]] * 10, **BATCHED)
    one.until(lambda: next(one.pool.running(), None))
    for _ in range(5):
        one.pool.relieve(0.0)
        one.tick()
    one.until(lambda: 4 in one.outcomes[seq], 5.0)
    one.until(lambda: seq in one.done)
    assert kinds(one.of(seq)) == [Kind.COMPLETED] * 4 + [Kind.NOT_RUN] * 6


def test_a_stop_between_batches_hands_the_rest_back(one: Harness) -> None:
    seq = one.submit([["sleep", 0.05]] * 10, **BATCHED)
    one.until(lambda: next(one.pool.running(), None))
    one.pool.skip_rest()
    one.until(lambda: seq in one.done)
    assert kinds(one.of(seq)) == [Kind.COMPLETED] * 4 + [Kind.NOT_RUN] * 6
    assert kinds(one.run([["echo", 1]] * 5, **BATCHED)) == [Kind.COMPLETED] * 5


def test_items_of_a_chunk_are_taken_together_only_by_step_and_run() -> None:
    marks = [(0, 0), (0, 1), (0, 1), (1, 1), (1, 0), (0, 2), (0, 0), (0, 1)]
    items = [Item(n, 1, n, run, step, b"1", None) for n, (run, step) in enumerate(marks)]
    chunk = Chunk(1, "f", ["r", "s"], ["a", "b", "c"], items)
    assert list(bounds_of(chunk, [0, 4, 0])) == [(0, 1), (1, 3), (3, 4), (4, 7), (7, 8)]
    assert list(bounds_of(chunk, [0, 0, 0])) == [(0, 8)]
    mixed = [Item(n, 1, n, 0, int(n % 5 > 2), b'["echo",1]', None) for n in range(10)]
    with lanes(1) as harness:
        assert harness.pool.submit(0, Chunk(1, "batched", ["r"], ["act_all", "nope"], mixed), [None, None])
        harness.until(lambda: 1 in harness.done)
        assert kinds(harness.of(1)) == [0, 0, 0, 1, 1] * 2
