"""The main loop and the collector by themselves: events in, instructions out.

Who changes a decision of the worker finds it here.
"""

from __future__ import annotations

import time
from typing import cast

import pytest
from loop_harness import OTHER, RUN, Bench, settled

from pgflow_mp.errors import PgflowError
from pgflow_mp.executors.events import Cause, ExecutorLost, LaneDied, Outcomes
from pgflow_mp.executors.messages import Kind, Outcome
from pgflow_mp.worker import inbox
from pgflow_mp.worker.batches import Batch
from pgflow_mp.worker.loop import GLANCE, TICK
from pgflow_mp.worker.releases import TaskRelease
from pgflow_mp.worker.startup import StepPolicy
from pgflow_mp.worker.stats import Ending


@pytest.fixture
def bench() -> Bench:
    return Bench()


def ok(position: int, body: bytes = b"2") -> Outcome:
    return Outcome(position, Kind.COMPLETED, body, 0.001)


# -- claims -------------------------------------------------------------------------------------------------


def test_flows_are_claimed_for_in_turn_and_one_claim_is_under_way() -> None:
    bench = Bench(("f", "g"))
    bench.hear()
    bench.hear()
    assert [request.flow for request in bench.requests] == ["f"]
    bench.claimed(None, "f")
    assert [request.flow for request in bench.requests] == ["f", "g"]
    assert bench.requests[0].worker_id != bench.requests[1].worker_id


def test_after_an_empty_claim_there_is_a_pause_that_an_announcement_ends(bench: Bench) -> None:
    bench.hear()
    bench.claimed(None)
    bench.hear()
    assert len(bench.requests) == 1
    bench.hear(inbox.WorkAnnounced("f"))
    assert len(bench.requests) == 2


@pytest.mark.parametrize("who", ["executor.paused", "settler.saturated"])
def test_nothing_is_claimed_while_there_is_no_room_for_it(bench: Bench, who: str) -> None:
    part, name = who.split(".")
    setattr(getattr(bench, part), name, True)
    bench.hear()
    assert bench.requests == []
    if part == "executor":
        bench.loop.tick(time.monotonic())
        assert bench.observer.of("on_message") == [("warn", "short of memory: claiming pauses")]
    setattr(getattr(bench, part), name, False)
    bench.hear()
    assert len(bench.requests) == 1


def test_what_an_id_was_asked_for_in_vain_is_asked_for_under_another_one(bench: Bench) -> None:
    bench.hear()
    first = bench.requests[0]
    bench.hear(inbox.ClaimLost("f", first.worker_id))
    time.sleep(0.15)
    bench.hear()
    assert bench.requests[1].worker_id != first.worker_id
    bench.loop.tick(time.monotonic())
    assert bench.upkeep.of("retire") == [(first.worker_id,)]  # frees what that claim may have got


def test_what_proves_to_take_long_goes_back(bench: Bench) -> None:
    bench.quick()
    bench.claimed(bench.batch(1000))
    seq = bench.executor.taken[0][1].seq
    outcome = Outcome(0, Kind.COMPLETED, b"2", 30.0)
    for _ in range(40):
        bench.loop.dispatcher.times.observe("f", "s", 30.0, 1)
    bench.done(seq, outcome, done=False)
    bench.loop.tick(time.monotonic())
    (flow, worker_id, back) = cast(TaskRelease, bench.settler.back[0])
    assert (flow, worker_id) == ("f", bench.loop.identities.of("f"))
    assert len(back) > 300
    assert bench.stats.handed_back == len(back)


# -- dispatch -----------------------------------------------------------------------------------------------


def test_a_step_of_unknown_time_is_tried_with_one_item_a_lane(bench: Bench) -> None:
    bench.claimed(bench.batch(10))
    assert [(lane, len(chunk.items)) for lane, chunk, _ in bench.executor.taken] == [(0, 1), (1, 1)]
    assert bench.executor.taken[0][2] == [5.0]


def test_short_items_go_out_by_the_hundred_and_a_second_chunk_waits_behind_the_first(bench: Bench) -> None:
    bench.quick()
    bench.claimed(bench.batch(800))
    sizes = [(lane, len(chunk.items)) for lane, chunk, _ in bench.executor.taken]
    assert [lane for lane, _ in sizes] == [0, 1, 0, 1]
    assert all(size > 50 for _, size in sizes)


def test_results_that_pile_up_keep_the_lanes_waiting(bench: Bench) -> None:
    bench.settler.heavy = True
    bench.claimed(bench.batch(10))
    assert bench.executor.taken == []
    bench.settler.heavy = False
    bench.hear()
    assert len(bench.executor.taken) == 2


def test_a_chunk_that_no_lane_takes_stays(bench: Bench) -> None:
    bench.executor.full = True
    bench.claimed(bench.batch(3))
    bench.executor.full = False
    bench.hear()
    assert [chunk.items[0].index for _, chunk, _ in bench.executor.taken] == [0, 1]


def test_a_starving_lane_has_results_recorded_at_once_and_long_items_relieved(bench: Bench) -> None:
    assert bench.hear() == TICK
    assert bench.settler.flushed == 1
    bench.executor.more = True
    assert bench.hear() == GLANCE


# -- outcomes -----------------------------------------------------------------------------------------------


def test_finished_items_are_recorded_under_the_id_and_attempt_that_claimed_them(bench: Bench) -> None:
    bench.quick()
    batch = bench.batch(3, attempt=2)
    bench.claimed(batch)
    seqs = [chunk.seq for _, chunk, _ in bench.executor.taken]
    sizes = [len(chunk.items) for _, chunk, _ in bench.executor.taken]
    for seq, size in zip(seqs, sizes, strict=True):
        bench.done(seq, *(ok(position) for position in range(size)))
    assert sorted(index for group in bench.settler.groups for index in group.indexes) == [0, 1, 2]
    assert {attempt for group in bench.settler.groups for attempt in group.attempts} == {2}
    assert {(group.run, group.step, group.worker_id) for group in bench.settler.groups} == {
        (RUN, "s", batch.worker_id)
    }
    assert not bench.loop.dispatcher.held
    assert not bench.loop.dispatcher.flights


def test_an_outcome_of_an_unknown_chunk_is_ignored(bench: Bench) -> None:
    bench.done(99, ok(0))
    bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", 99, Outcome(0, Kind.FAILED, b"x", 0.1), ""))
    assert bench.settler.groups == []


def test_failures_are_recorded_as_such_and_a_retry_is_awaited(bench: Bench) -> None:
    bench.claimed(bench.batch(2))
    (_, first, _), (_, second, _) = bench.executor.taken
    bench.done(first.seq, Outcome(0, Kind.FAILED, b"ValueError: no", 0.1))
    bench.done(second.seq, Outcome(0, Kind.FAILED_FOR_GOOD, b"never", 0.1))
    assert [(group.failures, group.permanent) for group in bench.settler.groups] == [
        (True, [False]),
        (True, [True]),
    ]
    assert (bench.stats.retried, bench.stats.failed) == (1, 1)
    assert bench.loop.collector.retries
    failures = bench.observer.of("on_failure")
    assert [(failed.run, failed.step, failed.final) for (failed,) in failures] == [
        (RUN, "s", False),
        (RUN, "s", True),
    ]
    assert [bytes(failed.raw_input()) for (failed,) in failures] == [
        first.items[0].input,
        second.items[0].input,
    ]


def test_what_did_not_run_goes_out_again_before_everything_else(bench: Bench) -> None:
    bench.claimed(bench.batch(6))
    (_, first, _), _ = bench.executor.taken
    bench.done(first.seq, Outcome(0, Kind.NOT_RUN, b"", 0.0))
    assert bench.executor.taken[2][1].items[0].index == 0
    assert bench.settler.groups == []


def test_a_crash_is_charged_and_the_second_is_put_aside_until_its_run_has_nothing_else(
    bench: Bench,
) -> None:
    def crash(batch: Batch) -> None:
        bench.claimed(batch)
        seq = bench.executor.taken[-1][1].seq
        bench.executor.open.pop(seq)
        verdict = Outcome(0, Kind.FAILED, b"Crashed: signal 11", 0.1)
        bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", seq, verdict, ""), Outcomes(0, 1, seq, [], True))

    as_before = inbox.PoliciesSeen({("f", "s"): StepPolicy(max_attempts=3)})
    crash(bench.batch(1))
    assert not bench.settler.groups  # the database is asked first how many attempts there are
    bench.hear(as_before)
    assert [(group.failures, group.permanent) for group in bench.settler.groups] == [(True, [False])]
    crash(bench.batch(1, attempt=2))
    bench.hear(as_before)
    assert len(bench.upkeep.of("ask_policies")) == 2
    assert len(bench.settler.groups) == 1  # aside
    assert bench.loop.collector.parking.items == 1
    bench.loop.tick(time.monotonic())
    ((question,),) = bench.upkeep.of("ask")
    assert question.runs == {RUN}
    bench.hear(inbox.ParkedSeen(question.number, {RUN}, {RUN: 0}))
    assert bench.settler.groups[1].permanent == [True]
    assert bench.settler.groups[1].bodies[0].startswith(b"quarantined after 2 crashes: Crashed: signal 11")
    assert bench.stats.crashed == 2
    assert not bench.loop.dispatcher.held


def test_a_crash_is_the_last_one_by_the_attempts_that_its_step_has_then(bench: Bench) -> None:
    bench.claimed(bench.batch(1))
    seq = bench.executor.taken[-1][1].seq
    verdict = Outcome(0, Kind.FAILED, b"Crashed: signal 11", 0.1)
    bench.hear(LaneDied(0, 1, Cause.CRASH, "signal 11", seq, verdict, ""), Outcomes(0, 1, seq, [], True))
    bench.hear(inbox.PoliciesSeen({("f", "s"): StepPolicy(max_attempts=1)}))  # 3 when the worker started
    assert bench.loop.collector.parking.items == 1


def test_a_lane_that_was_stopped_or_lost_charges_nobody(bench: Bench) -> None:
    bench.claimed(bench.batch(1))
    seq = bench.executor.taken[0][1].seq
    bench.hear(LaneDied(0, 1, Cause.STOPPED, "signal 9", seq, None, ""))
    bench.done(seq, Outcome(0, Kind.NOT_RUN, b"", 0.0))
    assert bench.settler.groups == []
    assert len(bench.executor.taken) == 2


# -- what the database says ---------------------------------------------------------------------------------


def test_what_waits_of_a_run_that_is_over_is_dropped_and_the_rest_stays(bench: Bench) -> None:
    ours, other = bench.batch(5), bench.batch(5, run=OTHER)
    bench.claimed(ours)
    bench.claimed(other)
    bench.hear(settled(RUN, ours.worker_id, "failed", "failed"))
    waiting = {batch.runs[0] for batch in bench.loop.dispatcher.held.values() if batch.waiting}
    assert waiting == {OTHER}
    assert bench.course.ending is None


def test_the_end_of_the_run_that_is_served_is_the_end(bench: Bench) -> None:
    served = Bench(run_id=RUN)
    served.hear(settled(RUN, served.loop.identities.of("f"), "completed", "completed"))
    assert (served.course.ending, served.course.run_status) == (Ending.RUN_ENDED, "completed")
    seen = Bench(run_id=RUN)
    seen.hear(inbox.RunSeen(RUN, "failed", []))
    assert (seen.course.ending, seen.course.run_status) == (Ending.RUN_ENDED, "failed")


def test_lost_leases_end_what_runs_and_what_waits_and_bring_nothing_back(bench: Bench) -> None:
    batch = bench.batch(4)
    bench.claimed(batch)
    (_, first, _), (_, second, _) = bench.executor.taken
    lost = frozenset({batch.items[0].msg_id, batch.items[3].msg_id})
    bench.hear(inbox.LeasesLost(batch.worker_id, lost))
    assert bench.executor.ended == [(first.seq, 0)]
    bench.done(first.seq, Outcome(0, Kind.NOT_RUN, b"", 0.0))
    sent = [item.index for _, chunk, _ in bench.executor.taken for item in chunk.items]
    assert sent == [0, 1, 2]
    assert second.seq in bench.executor.open


def test_a_lost_lease_of_another_id_is_none_of_ours(bench: Bench) -> None:
    batch = bench.batch(4)
    bench.claimed(batch)
    bench.hear(inbox.LeasesLost("somebody else", frozenset(item.msg_id for item in batch.items)))
    assert bench.executor.ended == []
    assert bench.loop.dispatcher.waiting() == 2


def test_a_worker_that_was_taken_for_dead_goes_on_under_a_new_id(bench: Bench) -> None:
    batch = bench.batch(6)
    bench.claimed(batch)
    bench.hear(inbox.TakenForDead((batch.worker_id, "somebody else")))
    assert bench.loop.dispatcher.waiting() == 0
    assert bench.loop.identities.of("f") != batch.worker_id
    seq = bench.executor.taken[0][1].seq
    bench.done(seq, Outcome(0, Kind.NOT_RUN, b"", 0.0))
    assert len(bench.executor.taken) == 2  # others have it
    assert [level for level, _ in bench.observer.of("on_message")] == ["warn"]


# -- the end ------------------------------------------------------------------------------------------------


def test_what_is_claimed_during_a_stop_goes_back(bench: Bench) -> None:
    bench.hear()
    bench.course.stopping = True
    batch = bench.batch(3)
    bench.claimed(batch)
    assert bench.settler.back == [("f", batch.worker_id, [item.msg_id for item in batch.items])]
    assert bench.executor.taken == []


def test_reasons_to_end_and_that_the_first_one_counts(bench: Bench) -> None:
    bench.hear(inbox.Deprecated(), inbox.StopRequested())
    assert bench.course.ending is Ending.DEPRECATED
    lost = Bench()
    lost.hear(
        ExecutorLost("the engine is gone", "start it"), inbox.ThreadFailed("claim", ValueError("second"))
    )
    assert lost.course.ending is Ending.FORCED
    assert isinstance(lost.course.error, PgflowError)
    assert str(lost.course.error) == "the engine is gone"
    failed = Bench()
    failed.hear(inbox.ThreadFailed("claim", ValueError("a bug")))
    assert str(failed.course.error) == "a bug"
