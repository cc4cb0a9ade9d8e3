"""The main loop over maps in ranges, by itself: leases in, chunks out, parts and exceptions recorded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_harness import OTHER, RUN, Bench, settled

from pgflow_mp.db.engine import Settled
from pgflow_mp.db.item_ranges import ElementPage, ItemLease, RangeCompletion, halves
from pgflow_mp.executors.events import Cause, LaneDied, Piece, RangeOutcomes
from pgflow_mp.executors.messages import Kind, Outcome, RangeChunk
from pgflow_mp.worker import inbox
from pgflow_mp.worker.batches import ItemTimes
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.locked import as_group
from pgflow_mp.worker.pages import MOST_BYTES, MOST_KNOWN, PageStore
from pgflow_mp.worker.planner import ClaimRequest
from pgflow_mp.worker.pulse import Pulse, PulseWatch
from pgflow_mp.worker.range_groups import FULL_ITEMS, PAGE_BYTES, RangeFailures, RangeGroup, RangePart
from pgflow_mp.worker.ranges import RangeBatch, as_batch, gaps
from pgflow_mp.worker.releases import RangeRelease
from pgflow_mp.worker.startup import StepPolicy


def page(
    first: int, items: int, *, run: str = RUN, width: int = 4, page_id: int | None = None
) -> ElementPage:
    page_id = first + 1 if page_id is None else page_id
    return ElementPage(run, "s", first, items, page_id, b"x" * width * items)


def lease(
    first: int, count: int, *, worker_id: str = "w", run: str = RUN, lease_no: int = 1, pages: int = 1000
) -> RangeBatch:
    """Items that lie in pages of so many."""
    there = [page(at, pages, run=run) for at in range(first // pages * pages, first + count, pages)]
    return as_batch("f", worker_id, ItemLease(run, "s", first, count, lease_no, 5), there)


class RangeBench(Bench):
    """A bench that claims leases."""

    def leased(self, *batches: RangeBatch) -> float:
        worker_id = self.loop.identities.of("f")
        pages = [page for batch in batches for page in batch.pages]
        asked = ClaimRequest("f", "f", worker_id, 10, 1000)
        return self.hear(inbox.Claimed("f", "f", worker_id, None, asked, 0.01, None, (), batches, pages))

    def lease(self, first: int, count: int, *, run: str = RUN) -> RangeBatch:
        batch = lease(first, count, worker_id=self.loop.identities.of("f"), run=run)
        self.leased(batch)
        return batch

    def ended(
        self,
        seq: int,
        *,
        pieces: Sequence[Piece] = (),
        failed: Sequence[Outcome] = (),
        not_run: Sequence[tuple[int, int]] = (),
        seconds: float = 0.001,
        done: bool = True,
    ) -> float:
        if done:
            self.executor.open.pop(seq, None)
        return self.hear(RangeOutcomes(0, 1, seq, list(pieces), list(failed), list(not_run), seconds, done))

    @property
    def chunks(self) -> list[RangeChunk]:
        return [cast(RangeChunk, chunk) for _, chunk, _ in self.executor.taken]

    def handed_out(self) -> list[tuple[int, int]]:
        return [(chunk.first_index, chunk.count) for chunk in self.chunks]


@pytest.fixture
def bench() -> RangeBench:
    return RangeBench()


def piece(position: int, count: int) -> Piece:
    return Piece(position, count, b",".join([b"2"] * count))


# -- chunks -------------------------------------------------------------------------------------------------


def test_a_lease_goes_out_in_chunks_that_hold_their_pages_as_they_are(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(500, 2500)
    assert sum(count for _, count in bench.handed_out()) <= 2500
    for chunk in bench.chunks:
        assert sum(segment.count for segment in chunk.segments) == chunk.count
        index = chunk.first_index
        for segment in chunk.segments:
            assert index == segment.page_id - 1 + segment.first
            index += segment.count
    first = bench.chunks[0]
    assert (first.flow, first.run, first.step, first.first_index) == ("f", RUN, "s", 500)
    assert bench.executor.taken[0][2] == [5.0]


def test_a_chunk_ends_with_a_page_rather_than_cutting_the_next_one() -> None:
    batch = lease(0, 3000)
    assert [s.count for s in batch.chunk(1, 0, 1500).segments] == [1000]
    assert [s.count for s in batch.chunk(1, 900, 1500).segments] == [100, 1000]
    assert [s.count for s in batch.chunk(1, 0, 3000).segments] == [1000, 1000, 1000]


def test_large_pages_make_small_chunks_but_cut_no_batch() -> None:
    there = [page(i * 10, 10, width=60_000) for i in range(10)]
    batch = as_batch("f", "w", ItemLease(RUN, "s", 0, 100, 1, 5), there)
    assert batch.chunk(1, 0, 100).count == 10
    assert batch.chunk(1, 0, 100, 25).count == 30
    assert lease(0, 3000).chunk(1, 900, 1500, 500).count == 1500
    assert batch.size == 6_000_000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=8), st.data())
def test_every_item_of_a_lease_is_handed_out_once_whatever_pages_it_lies_in(
    sizes: list[int], data: st.DataObject
) -> None:
    there, at = [], 0
    for size in sizes:
        there.append(page(at, size))
        at += size
    first = data.draw(st.integers(0, at - 1))
    count = data.draw(st.integers(1, at - first))
    batch = as_batch("f", "w", ItemLease(RUN, "s", first, count, 1, 5), there)
    assert not gaps(batch.pages, first, first + count)
    dispatcher = Dispatcher(ItemTimes())
    dispatcher.times.observe("f", "s", data.draw(st.sampled_from([1e-6, 1e-4, 1e-3])), 1)
    dispatcher.add(batch)
    seen: list[int] = []
    while (flight := dispatcher.next_chunk(0, 2, 0.0)) is not None:
        chunk = cast(RangeChunk, flight.chunk)
        seen += range(chunk.first_index, chunk.first_index + chunk.count)
        assert sum(segment.count for segment in chunk.segments) == chunk.count
        if data.draw(st.booleans()) and chunk.count > 1:  # the second half did not run
            half = flight.start + chunk.count // 2
            end = flight.start + chunk.count
            del seen[-(end - half) :]
            (back,) = flight.batch.parts([(half, end)])
            dispatcher.add(back, first=True)
        dispatcher.finish(flight.batch, flight.start, flight.start + chunk.count - 1)
    assert sorted(seen) == list(range(first, first + count))
    assert dispatcher.held == {}


# -- outcomes -----------------------------------------------------------------------------------------------


def test_outputs_are_recorded_as_parts_of_the_lease(bench: RangeBench) -> None:
    bench.quick()
    batch = bench.lease(100, 3)
    seqs = [(chunk.seq, chunk.count) for chunk in bench.chunks]
    for seq, count in seqs:
        bench.ended(seq, pieces=[piece(0, count)])
    parts = [part for group in bench.settler.groups for part in cast(RangeGroup, group).parts]
    assert sum(part.count for part in parts) == 3
    assert {(part.lease, part.lease_no) for part in parts} == {(batch.held.number, 1)}
    assert min(part.first for part in parts) == 100
    assert bench.loop.collector.steps == {("f", "s"): [3, 0]}
    assert not bench.loop.dispatcher.held
    assert not bench.loop.dispatcher.flights


def test_a_report_of_a_running_chunk_frees_what_has_ended_only(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(0, 400)
    chunk = bench.chunks[0]
    bench.ended(chunk.seq, pieces=[piece(0, 5)], done=False)
    assert bench.loop.dispatcher.held_in_ranges() == 395
    bench.ended(99, pieces=[piece(0, 5)])  # unknown
    bench.ended(chunk.seq, pieces=[piece(5, chunk.count - 5)])
    assert bench.loop.dispatcher.held_in_ranges() == 400 - chunk.count


def test_exceptions_become_failures_of_their_own(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(10, 60)
    chunk = bench.chunks[0]
    assert chunk.count >= 3
    bench.ended(
        chunk.seq,
        pieces=[piece(0, 1)],
        failed=[Outcome(1, Kind.FAILED, b"no", 0.1), Outcome(2, Kind.FAILED_FOR_GOOD, b"never", 0.1)],
        not_run=[(3, chunk.count - 3)] if chunk.count > 3 else [],
    )
    (failures,) = [group for group in bench.settler.groups if isinstance(group, RangeFailures)]
    assert (failures.indexes, failures.lease_nos, failures.permanent) == ([11, 12], [1, 1], [False, True])
    assert (bench.stats.retried, bench.stats.failed) == (1, 1)
    assert bench.loop.collector.retries
    assert [
        (failed.index, failed.attempt, failed.final) for (failed,) in bench.observer.of("on_failure")
    ] == [
        (11, 1, False),
        (12, 1, True),
    ]


def test_what_an_item_is_given_is_found_in_its_page_and_is_unknown_where_that_is_none() -> None:
    pages = [
        ElementPage(RUN, "s", 10, 3, 901, b'["a", {"b": 1.10}, 3]'),
        ElementPage(RUN, "s", 13, 2, 902, b"[4, 5]"),
        ElementPage(RUN, "s", 15, 1, 903, b"no page"),
    ]
    batch = as_batch("f", "w", ItemLease(RUN, "s", 11, 5, 1, 60), pages)
    assert [bytes(batch.input(position)) for position in range(5)] == [b'{"b": 1.10}', b"3", b"4", b"5", b""]
    assert bytes(batch.part(2, 4).input(1)) == b"5"
    assert bytes(batch.cut_off(3).input(0)) == b"5"


def test_what_did_not_run_goes_out_again_first(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(0, 400)
    chunk = bench.chunks[0]
    bench.ended(chunk.seq, pieces=[piece(0, 1)], not_run=[(1, chunk.count - 1)])
    assert bench.handed_out()[-2][0] == 1 or bench.handed_out()[-1][0] == 1
    assert bench.stats.handed_back == chunk.count - 1


def test_a_crash_is_charged_to_its_item_and_the_last_one_is_put_aside(bench: RangeBench) -> None:
    bench.lease(7, 1)
    seq = bench.chunks[0].seq
    verdict = Outcome(0, Kind.FAILED, b"Crashed: signal 11", 0.1)
    bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", seq, verdict, ""))
    bench.ended(seq)
    bench.hear(inbox.PoliciesSeen({("f", "s"): StepPolicy(max_attempts=3)}))
    (failures,) = bench.settler.groups
    assert isinstance(failures, RangeFailures)
    assert (failures.indexes, failures.permanent) == ([7], [False])
    bench.lease(8, 1)
    seq = bench.chunks[-1].seq
    bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", seq, verdict, ""))
    bench.ended(seq)
    bench.hear(inbox.PoliciesSeen({("f", "s"): StepPolicy(max_attempts=1)}))
    assert bench.loop.collector.parking.items == 1
    assert bench.loop.dispatcher.held_in_ranges() == 1
    bench.loop.collector.unpark(RUN)
    assert cast(RangeFailures, bench.settler.groups[-1]).permanent == [True]
    assert not bench.loop.dispatcher.held


def test_halves_of_a_batch_that_took_its_process_down_are_run(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(0, 8)
    chunk = bench.chunks[0]
    bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", chunk.seq, None, "", suspects=(0, chunk.count - 1)))
    before = len(bench.chunks)
    bench.ended(chunk.seq, not_run=[(0, chunk.count)])
    again = {c.first_index: c.batch for c in bench.chunks[before:]}
    assert again[0] == max(1, (chunk.count - 1) // 2)
    assert bench.stats.crashed == 0
    assert bench.settler.groups == []


# -- what is over -------------------------------------------------------------------------------------------


def test_a_run_that_is_over_is_dropped_handed_back_and_ended(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(0, 2000)
    bench.lease(0, 2000, run=OTHER)
    (first, _) = bench.chunks[0], bench.chunks[1]
    bench.hear(inbox.MapsOver(frozenset({(RUN, "s")})))
    back = [release for release in bench.settler.back if isinstance(release, RangeRelease)]
    assert {release.run for release in back} == {RUN}
    waiting = {batch.runs[0] for batch in bench.loop.dispatcher.held.values() if batch.waiting}
    assert waiting <= {OTHER}
    assert {seq for seq, _ in bench.executor.ended} == {c.seq for c in bench.chunks if c.run == RUN}
    before = len(bench.chunks)
    bench.ended(first.seq, not_run=[(0, first.count)])  # what was ended goes back, too
    assert cast(RangeRelease, bench.settler.back[-1]).firsts == [first.first_index]
    assert all(c.run == OTHER for c in bench.chunks[before:])


def test_what_is_parked_of_a_lease_that_is_dropped_is_handed_back(bench: RangeBench) -> None:
    bench.lease(7, 1)
    seq = bench.chunks[0].seq
    verdict = Outcome(0, Kind.FAILED, b"Crashed: signal 11", 0.1)
    bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", seq, verdict, ""))
    bench.ended(seq)
    bench.hear(inbox.PoliciesSeen({("f", "s"): StepPolicy(max_attempts=1)}))
    assert bench.loop.collector.parking.items == 1
    bench.hear(inbox.MapsOver(frozenset({(RUN, "s")})))
    assert bench.loop.collector.parking.empty
    assert not bench.loop.dispatcher.held
    assert [cast(RangeRelease, release).firsts for release in bench.settler.back] == [[7]]


def _set_aside(bench: RangeBench) -> None:
    """Have the lanes' parent die twice while the first item of all runs."""
    for _ in range(2):
        seq = bench.chunks[-1].seq
        bench.hear(LaneDied(0, 1, Cause.LOST, "signal 9", None, None, "", suspect=(seq, 0)))
        bench.ended(seq, not_run=[(0, 1)])


def test_a_suspect_that_waits_for_its_turn_is_not_run_when_its_map_is_over(bench: RangeBench) -> None:
    bench.lease(7, 1)
    _set_aside(bench)
    assert bench.loop.dispatcher.held_in_ranges() == 1
    bench.hear(inbox.MapsOver(frozenset({(RUN, "s")})))
    before = len(bench.chunks)
    bench.loop.tick(time.monotonic())
    bench.hear()
    assert len(bench.chunks) == before
    assert not bench.loop.dispatcher.held
    assert [cast(RangeRelease, release).firsts for release in bench.settler.back] == [[7]]


def test_a_task_that_waits_for_its_turn_as_a_suspect_is_not_run_when_its_run_is_over() -> None:
    bench = RangeBench()
    batch = bench.batch(1)
    bench.claimed(batch)
    for _ in range(2):
        seq = bench.executor.taken[-1][1].seq
        bench.hear(LaneDied(0, 1, Cause.LOST, "signal 9", None, None, "", suspect=(seq, 0)))
        bench.done(seq, Outcome(0, Kind.NOT_RUN, b"", 0.0))
    before = len(bench.executor.taken)
    bench.hear(settled(RUN, batch.worker_id, "failed", "failed"))
    bench.loop.tick(time.monotonic())
    bench.hear()
    assert len(bench.executor.taken) == before
    assert not bench.loop.dispatcher.held
    assert not bench.loop.collector.corner


def test_a_refused_part_tells_that_its_lease_is_gone(bench: RangeBench) -> None:
    bench.quick()
    batch = bench.lease(0, 2000)
    other = bench.lease(5000, 2000)
    result = Settled(0, [0], "started", "started")
    call = inbox.SettledCall(RUN, "s", batch.worker_id, False, result, 10, 0.01, [0])
    bench.hear(inbox.BatchSettled([call], False))
    assert batch.held.dropped
    assert not other.held.dropped


def test_leases_of_an_id_that_was_taken_for_dead_are_not_handed_back(bench: RangeBench) -> None:
    bench.quick()
    batch = bench.lease(0, 2000)
    bench.hear(inbox.TakenForDead((batch.worker_id,)))
    assert bench.loop.dispatcher.waiting() == 0
    assert {seq for seq, _ in bench.executor.ended} == {chunk.seq for chunk in bench.chunks}
    assert bench.settler.back == []


def test_the_end_of_a_step_drops_its_leases(bench: RangeBench) -> None:
    bench.quick()
    batch = bench.lease(0, 2000)
    bench.hear(settled(RUN, batch.worker_id, "failed", "failed"))
    assert bench.loop.dispatcher.waiting() == 0


def test_leases_that_come_during_a_stop_go_back(bench: RangeBench) -> None:
    bench.course.stopping = True
    bench.lease(3, 5)
    assert bench.settler.back == [RangeRelease("f", RUN, "s", bench.loop.identities.of("f"), [1], [3], [5])]


def test_what_proves_to_take_long_is_handed_back(bench: RangeBench) -> None:
    bench.quick()
    bench.lease(0, 1000)
    for _ in range(40):
        bench.loop.dispatcher.times.observe("f", "s", 30.0, 1)
    bench.loop.tick(time.monotonic())
    back = cast(RangeRelease, bench.settler.back[0])
    assert back.firsts[0] + back.counts[0] == 1000
    assert bench.loop.dispatcher.held_in_ranges() + back.counts[0] == 1000


# -- parts and calls ----------------------------------------------------------------------------------------


def group(*parts: RangePart) -> RangeGroup:
    return RangeGroup(RUN, "s", "w", list(parts))


def part(first: int, count: int, *, lease: int = 1, lease_no: int = 1, width: int = 1) -> RangePart:
    body = b",".join([b"7" * width] * count)
    return RangePart(lease, lease_no, first, count, [body], len(body))


def test_parts_that_follow_each_other_become_one_page() -> None:
    found = group(part(10, 5), part(0, 5), part(5, 5), part(15, 5, lease=2), part(30, 2)).calls()
    (call,) = cast("list[RangeCompletion]", found)
    assert (call.firsts, call.counts) == ([0, 15, 30], [15, 5, 2])
    assert call.outputs[0] == b"[" + b",".join([b"7"] * 15) + b"]"


def test_parts_of_unknown_leases_stay_apart_and_pages_stay_small() -> None:
    (call,) = cast("list[RangeCompletion]", group(part(0, 5, lease=0), part(5, 5, lease=0)).calls())
    assert call.counts == [5, 5]
    size = PAGE_BYTES // 2
    (call,) = cast("list[RangeCompletion]", group(*(part(i, 1, width=size) for i in range(3))).calls())
    assert call.counts == [1, 1, 1] or call.counts == [2, 1]


def test_a_call_has_so_many_items_at_most() -> None:
    calls = cast("list[RangeCompletion]", group(*(part(i * 9000, 9000) for i in range(5))).calls())
    assert sum(sum(call.counts) for call in calls) == 45_000
    assert all(sum(call.counts) <= FULL_ITEMS for call in calls)


def test_a_group_is_cut_by_bytes_and_weighs_less_than_its_items() -> None:
    whole = group(*(part(i, 1, width=100) for i in range(10)))
    rest = whole.cut(250)
    assert rest is not None
    assert (whole.count, rest.count) == (2, 8)
    assert group(part(0, 20_000)).weight == 1000
    failures = RangeFailures(RUN, "s", "w", [1, 1], [0, 1], [b"a" * 100, b"b" * 100], [False, True])
    tail = failures.cut(150)
    assert tail is not None
    assert (failures.indexes, tail.indexes, tail.permanent) == ([0], [1], [True])


def test_a_refused_call_is_halved_down_to_the_item() -> None:
    call = RangeCompletion(RUN, "s", "w", [1, 2], [0, 5], [2, 3], [b"[1,2]", b'["a",[],{"b": 1}]'])
    left, right = halves(call)
    assert (left.firsts, right.firsts) == ([0], [5])
    one, two = halves(right)
    assert (one.counts, one.outputs, two.firsts, two.outputs) == ([1], [b'["a"]'], [6], [b'[[],{"b": 1}]'])
    assert halves(one) == []
    for each in (call, left):
        assert as_group(each).calls() == [each]


# -- pages, and standing still ------------------------------------------------------------------------------


def test_pages_are_kept_while_there_is_room_and_while_they_are_needed() -> None:
    store, width = PageStore(), MOST_BYTES // 8 // 10
    pages = [page(i * 10, 10, width=width) for i in range(12)]
    store.used("f", pages)
    assert [found.page_id for found in store.known("f")] == [p.page_id for p in reversed(pages)]
    assert store.known("g") == ()
    store.used("f", pages[1:2])
    store.trim([pages[0]])
    known = store.known("f")
    assert pages[0] in known
    assert pages[1] in known
    assert len(known) == 8
    store.used("f", [page(i, 1, page_id=1000 + i) for i in range(200)])
    assert len(store.known("f")) == MOST_KNOWN


def test_a_thread_that_stands_still_is_noticed_and_one_that_waits_for_work_is_not() -> None:
    loop, settler = Pulse("loop"), Pulse("settler")
    watch = PulseWatch((loop, settler), 3.0)
    loop.beat()
    settler.beat(3.0)
    looks = [watch.look(100.0 + i) for i in range(3)]
    loop.beat()
    looks += [watch.look(103.0 + i) for i in range(3)]
    assert looks == [None] * 6
    assert watch.look(106.0) == "loop"
    loop.rest()
    assert [watch.look(107.0), watch.look(108.0), watch.look(109.0)] == [None, None, "settler"]
    settler.beat()
    assert watch.look(110.0) is None
    assert watch.look(1000.0) is None  # it was us who were asleep
