"""Chunk sizing and the bookkeeping of what waits and what flies; pure, by examples and by properties."""

from __future__ import annotations

import random
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st

from pgflow_mp.executors.messages import Chunk, Item
from pgflow_mp.worker.batches import OVERHEAD, Batch, ItemTimes
from pgflow_mp.worker.chunks import DEEPEST, LARGEST, LARGEST_BYTES, SMALLEST, TARGET, chunk_size
from pgflow_mp.worker.dispatch import Dispatcher

SECONDS = st.floats(1e-6, 100.0)


def batch(
    count: int,
    *,
    steps: tuple[str, ...] = ("s",),
    runs: tuple[str, ...] = ("r",),
    flow: str = "f",
    body: bytes = b"1",
    first: int = 0,
) -> Batch:
    items = [Item(first + i, 1, first + i, i % len(runs), i % len(steps), body, None) for i in range(count)]
    return Batch(flow, "w", list(runs), list(steps), [60.0] * len(steps), items, 60.0, 0.0, count * len(body))


def known(seconds: float, *steps: str) -> ItemTimes:
    times = ItemTimes()
    for step in steps or ("s",):
        times.observe("f", step, seconds, 1)
    return times


def test_an_unknown_step_is_tried_with_single_items() -> None:
    assert chunk_size(None, 10_000, 2) == 1


def test_tiny_items_go_by_the_hundreds_and_long_ones_alone() -> None:
    assert chunk_size(20e-6, 100_000, 2) == LARGEST
    assert chunk_size(0.001, 100_000, 2) == 200
    assert chunk_size(0.01, 100_000, 2) == 20
    assert chunk_size(1.0, 100_000, 2) == 1


def test_the_last_items_are_spread_over_the_lanes() -> None:
    assert chunk_size(0.001, 40, 4) == 5
    assert chunk_size(0.001, 4, 4) == 2  # not less than 2 ms of work
    assert chunk_size(10e-6, 400, 4) == 200


@given(SECONDS, st.integers(1, 10**6), st.integers(1, 64))
def test_a_chunk_holds_at_least_one_item_and_at_most_its_share_of_time(
    seconds: float, waiting: int, lanes: int
) -> None:
    count = chunk_size(seconds, waiting, lanes)
    assert 1 <= count <= min(waiting, LARGEST)
    assert count == 1 or count * seconds <= TARGET * 1.0001


@given(st.floats(1e-6, 0.0009), st.integers(2, 64), st.integers(1, 5000))
def test_no_lane_gets_more_than_half_its_share_unless_the_rest_is_tiny(
    seconds: float, lanes: int, waiting: int
) -> None:
    count = chunk_size(seconds, waiting, lanes)
    assert count <= max(waiting / (2 * lanes) + 1, SMALLEST / seconds)


def test_times_follow_a_change_within_a_few_dozen_items() -> None:
    times = ItemTimes()
    times.observe("f", "s", 0.001 * 50, 50)
    for _ in range(60):
        times.observe("f", "s", 0.1, 1)
    mean = times.of("f", "s")
    assert mean is not None
    assert 0.09 < mean < 0.1 + 2 * OVERHEAD
    assert times.of("f", "other") is None


def test_a_rare_long_item_does_not_shrink_chunks_for_long() -> None:
    times = known(0.001)
    times.observe("f", "s", 1.0, 1)
    assert chunk_size(times.of("f", "s"), 10_000, 2) == 1 or (times.of("f", "s") or 0) < 0.06
    times.observe("f", "s", 0.001 * 60, 60)
    assert chunk_size(times.of("f", "s"), 10_000, 2) >= 8


def test_a_chunk_may_mix_runs_and_steps_and_carries_only_those_it_needs() -> None:
    dispatcher = Dispatcher(known(0.05, "a", "b"))
    dispatcher.add(batch(100, steps=("a", "b"), runs=tuple(f"r{i}" for i in range(100))))
    flight = dispatcher.next_chunk(0, 1, 0.0)
    assert flight is not None
    chunk = cast(Chunk, flight.chunk)
    assert len(chunk.items) == 3
    assert [(chunk.runs[i.run], chunk.steps[i.step]) for i in chunk.items] == [
        ("r0", "a"),
        ("r1", "b"),
        ("r2", "a"),
    ]
    assert len(chunk.runs) == 3


def test_large_inputs_make_small_chunks() -> None:
    dispatcher = Dispatcher(known(1e-5))
    dispatcher.add(batch(100, body=b"x" * 300_000))
    flight = dispatcher.next_chunk(0, 1, 0.0)
    assert flight is not None
    assert flight.chunk.size == LARGEST_BYTES // 300_000


def test_flows_take_turns() -> None:
    dispatcher = Dispatcher(ItemTimes())
    dispatcher.add(batch(3, flow="f"))
    dispatcher.add(batch(3, flow="g"))
    flights = [dispatcher.next_chunk(0, 1, 0.0) for _ in range(4)]
    assert [flight.chunk.flow for flight in flights if flight] == ["f", "g", "f", "g"]


def test_a_second_chunk_waits_only_behind_short_items() -> None:
    for seconds, depth in ((0.001, 2), (0.05, 2), (1.0, 1)):
        dispatcher = Dispatcher(known(seconds))
        dispatcher.add(batch(10))
        assert dispatcher.depth("f") == depth


def test_it_is_noticed_when_nothing_more_of_a_run_is_held() -> None:
    dispatcher = Dispatcher(known(1.0))
    first, second, other = batch(2, runs=("a",)), batch(2, runs=("a",)), batch(2, runs=("a", "b"))
    for each in (first, second, other):
        dispatcher.add(each)
    dispatcher.finish(first, 0, 1)
    assert not dispatcher.run_emptied  # there is more of a
    dispatcher.finish(other, 0, 1)
    assert dispatcher.run_emptied  # of b
    dispatcher.run_emptied = False
    dispatcher.discard(lambda each, item: each is second)
    assert dispatcher.run_emptied
    assert not dispatcher.held


def test_work_beyond_what_is_worth_holding_is_shed_from_the_end() -> None:
    dispatcher = Dispatcher(known(1.0))
    dispatcher.add(batch(100))
    (rest,) = dispatcher.shed("f", keep=10.0)
    assert [rest.item(i).index for i in range(len(rest))] == list(range(9, 100))
    assert dispatcher.waiting() == dispatcher.held_items() == 9


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9))
def test_every_item_is_handed_out_exactly_once_whatever_comes_back_or_is_dropped(seed: int) -> None:
    rng = random.Random(seed)
    times = known(rng.choice([1e-5, 1e-3, 0.02, 1.0]), "a", "b")
    dispatcher = Dispatcher(times)
    total = dropped = 0
    finished: list[int] = []
    expected: set[int] = set()
    for _ in range(rng.randint(5, 60)):
        action = rng.random()
        if action < 0.3:
            count = rng.randint(1, 50)
            dispatcher.add(batch(count, steps=rng.choice([("a",), ("a", "b")]), first=total))
            expected |= set(range(total, total + count))
            total += count
        elif action < 0.6:
            if (flight := dispatcher.next_chunk(0, rng.randint(1, 4), 0.0)) and rng.random() < 0.2:
                dispatcher.take_back(flight)
        elif action < 0.85 and dispatcher.flights:
            flight = dispatcher.flights.pop(rng.choice(list(dispatcher.flights)))
            items = cast(Chunk, flight.chunk).items
            done = rng.randint(0, len(items))
            finished += [item.index for item in items[:done]]
            dispatcher.finish(flight.batch, flight.start, flight.start + len(items) - 1)
            if items[done:]:
                first = flight.start + done
                (part,) = flight.batch.parts([(first, flight.start + len(items))])
                dispatcher.add(part, first=True)
        else:
            unlucky = rng.randint(0, max(1, total))
            before = dispatcher.waiting()
            rest = unlucky % 7
            gone = dispatcher.discard(lambda _batch, item, rest=rest: item.index % 7 == rest)  # type: ignore[misc]
            assert before - dispatcher.waiting() == gone
            dropped += gone
    while (flight := dispatcher.next_chunk(0, 2, 0.0)) is not None:
        pass
    for flight in dispatcher.flights.values():
        finished += [item.index for item in cast(Chunk, flight.chunk).items]
        dispatcher.finish(flight.batch, flight.start, flight.start + flight.chunk.size - 1)
    assert len(finished) == len(set(finished)) == total - dropped
    assert set(finished) <= expected
    assert dispatcher.held == {}
    assert dispatcher.waiting() == 0


def test_a_lane_is_late_when_its_chunk_takes_much_longer_than_expected() -> None:
    dispatcher = Dispatcher(known(0.01))
    dispatcher.add(batch(100))
    flight = dispatcher.next_chunk(3, 2, 100.0)
    assert flight is not None
    assert not dispatcher.is_late(3, 100.0 + flight.seconds)
    assert dispatcher.is_late(3, 100.0 + 2 * flight.seconds + DEEPEST + 0.01)
    assert not dispatcher.is_late(2, 200.0)


def test_a_chunk_of_few_items_of_many_runs_says_of_them_what_the_batch_says() -> None:
    runs = [f"run {i}" for i in range(30)]
    items = [Item(i, 2, 100 + i, i, 0, b"1", b"[]", {"parent": 7}) for i in range(30)]
    whole = Batch("f", "w", runs, ["s"], [60.0], items, 60.0, 0.0, limit=3)
    kept = [
        Item(4, 2, 104, 0, 0, b"1", b"[]", {"parent": 7}),
        Item(5, 2, 105, 1, 0, b"1", b"[]", {"parent": 7}),
    ]
    assert whole.chunk(1, 4, 2) == Chunk(1, "f", runs[4:6], ["s"], kept, 3)
