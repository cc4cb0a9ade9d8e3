"""Handlers of batches are given as many items as they ask for, however long a batch takes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow_mp import Flow, runner
from pgflow_mp.executors.messages import Item
from pgflow_mp.worker.batches import Batch, ItemTimes
from pgflow_mp.worker.chunks import LARGEST, whole_batches
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.planner import ClaimPlanner, Load

LANES = 2


def claim(count: int, *steps: str) -> Batch:
    items = [Item(i, 1, i, 0, i * len(steps) // count, b"1", None) for i in range(count)]
    return Batch("f", "w", ["r"], list(steps), [60.0] * len(steps), items, 60.0, 0.0)


def cut(dispatcher: Dispatcher, lanes: int = LANES) -> list[int]:
    """The sizes of the chunks that the lanes get in turn, each holding on to its own."""
    found: list[int] = []
    while flight := dispatcher.next_chunk(len(found) % lanes, lanes, 0.0):
        found.append(flight.chunk.size)
    return found


def times(seconds: float | None, batch: int = 64, step: str = "s") -> ItemTimes:
    made = ItemTimes({("f", "s"): batch})
    if seconds is not None:
        made.observe("f", step, seconds * 10, 10)
    return made


@pytest.mark.parametrize("seconds", [None, 1e-4, 0.01, 1.0, 100.0])
def test_a_chunk_holds_whole_batches_whatever_they_take(seconds: float | None) -> None:
    dispatcher = Dispatcher(times(seconds))
    dispatcher.add(claim(1000, "s"))
    assert {size % 64 for size in cut(dispatcher)[:-1]} == {0}


def test_quick_batches_come_several_at_once() -> None:
    assert whole_batches(1e-5, 100_000, 2, 0, 64, LARGEST) == 448
    assert whole_batches(1e-5, 100_000, 2, 0, 1000, LARGEST) == 1000  # more than of other items at once
    assert whole_batches(1.0, 100_000, 2, 2, 64, LARGEST) == 64


def test_lanes_that_have_nothing_share_the_last_items() -> None:
    dispatcher = Dispatcher(times(1.0))
    dispatcher.add(claim(100, "s"))
    assert cut(dispatcher, 4) == [25, 25, 25, 25]
    dispatcher = Dispatcher(times(1.0))
    dispatcher.add(claim(30, "s"))
    assert cut(dispatcher, 4) == [16, 14]  # no less than a quarter
    dispatcher = Dispatcher(times(1.0))
    dispatcher.add(claim(150, "s"))
    assert cut(dispatcher) == [64, 64, 22]


@given(
    st.none() | st.floats(1e-6, 100.0),
    st.integers(1, 10**6),
    st.integers(1, 64),
    st.integers(0, 64),
    st.integers(1, 5000),
)
def test_there_is_always_something_to_hand_out(
    seconds: float | None, waiting: int, lanes: int, idle: int, batch: int
) -> None:
    count = whole_batches(seconds, waiting, lanes, min(idle, lanes), batch, LARGEST)
    assert 1 <= count <= waiting
    assert count < batch or count % batch == 0


def test_a_batch_that_is_looked_into_stays_as_small_as_it_was_cut() -> None:
    dispatcher = Dispatcher(times(1e-4))
    suspects = claim(64, "s")
    suspects.limit = 8
    dispatcher.add(suspects)
    assert max(cut(dispatcher)) == 8


def test_among_other_steps_a_batch_is_not_cut_short_either() -> None:
    made = times(1.0)
    made.observe("f", "t", 1.0, 1)
    dispatcher = Dispatcher(made)
    dispatcher.add(claim(128, "s", "t"))
    assert cut(dispatcher)[:2] == [64, 1]


def test_only_quick_batches_wait_behind_each_other_in_a_lane() -> None:
    for seconds, depth in ((0.001, 2), (0.01, 1)):
        dispatcher = Dispatcher(times(seconds))
        dispatcher.add(claim(200, "s"))
        assert dispatcher.depth("f") == depth


def test_a_claim_is_for_whole_batches() -> None:
    planner = ClaimPlanner(["f"], lanes=2)
    load = Load(2, None, 0, None, 0.0, 0, batch=64)
    assert planner.quantities("f", load, 0.0) == (128, 128)
    assert planner.quantities("f", Load(2, 0.5, 0, 0.0, 0.9, 0, batch=64), 0.0) == (64, 64)
    assert planner.quantities("f", Load(2, 0.5, 0, 0.0, 0.9, 0), 0.0)[0] < 4
    assert ClaimPlanner(["f"], lanes=2, batch_size=5).quantities("f", load, 0.0)[0] == 5


def test_what_was_seen_last_says_how_many_are_taken_at_once() -> None:
    made = ItemTimes({("f", "s"): 64, ("f", "u"): 8, ("g", "s"): 99})
    assert (made.recent_batch("f"), made.recent_batch("h")) == (64, 0)
    made.observe("f", "u", 1.0, 1)
    assert made.recent_batch("f") == 8
    made.observe("f", "t", 1.0, 1)
    assert made.recent_batch("f") == 0


def sized(slug: str, storage: str) -> Flow:
    flow = Flow(slug, storage=storage, max_attempts=1)  # type: ignore[arg-type]

    @flow.map(batch=64)
    def sizes(numbers: list[int]) -> list[int]:
        time.sleep(0.1)
        return [len(numbers)] * len(numbers)

    return flow


in_tasks, in_ranges = sized("in_tasks", "tasks"), sized("in_ranges", "ranges")


@pytest.mark.parametrize(
    "flow", [pytest.param(in_tasks, id="tasks", marks=pytest.mark.slow), pytest.param(in_ranges, id="ranges")]
)
def test_a_slow_batch_is_no_reason_for_smaller_ones(dsn: str, flow: Flow) -> None:
    sizes = runner.run(flow, [*range(200)], dsn=dsn, workers=2, output="sizes")
    assert isinstance(sizes, list)
    batches = sum(1 / size for size in sizes)
    assert batches < 9  # 3.1 would be the least; by the time of an item they were 200
