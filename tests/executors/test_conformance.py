"""What the worker relies on, whatever runs its items: the same tests for every executor.

Where an executor lacks an ability, the test checks that it says so and what happens instead.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from executor_owner import ALIKE, AT_ONCE, CHUNKS, KINDS, MAKERS, Owner, kinds, marks
from lane_harness import FLOWS, chunk_of

from pgflow_mp.errors import ConfigError, PgflowError
from pgflow_mp.executors.choosing import factory
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.messages import Kind, Setup
from pgflow_mp.executors.protocol import Limits


@pytest.fixture(
    params=[
        pytest.param((kind, storage), id=f"{kind}-{storage}", marks=marks(kind))
        for storage in CHUNKS
        for kind in MAKERS
        if storage == "tasks" or kind not in ALIKE
    ],
)
def owner(request: pytest.FixtureRequest) -> Iterator[Owner]:
    owner = Owner(request.param[0], storage=request.param[1])
    owner.executor.start()
    yield owner
    owner.executor.abort()


def test_items_of_a_chunk_end_each_by_itself_and_in_any_size(owner: Owner) -> None:
    outcomes = owner.run(["echo", 7], ["no such action", 0], ["big", 3_000_000], ["sys_exit", 3])
    assert kinds(outcomes) == [Kind.COMPLETED, Kind.FAILED, Kind.COMPLETED, Kind.FAILED]
    assert outcomes[0].body == b"7"
    assert b"KeyError" in outcomes[1].body
    assert len(outcomes[2].body) == 3_000_002
    assert b"SystemExit" in outcomes[3].body
    (unknown,) = owner.run(["echo", 1], step="nope")
    assert (unknown.kind, unknown.body) == (
        Kind.FAILED,
        b'Step "nope" does not exist in flow "misbehave"',
    )


def test_handlers_of_batches_answer_item_by_item(owner: Owner) -> None:
    batched = {"flow": "batched", "step": "act_all"}
    orders = [["echo", n] for n in range(10)]
    orders[2], orders[5], orders[9] = ["fail", "no"], ["raise", "me"], ["echo", "set"]
    outcomes = owner.run(*orders, **batched)
    assert kinds(outcomes) == [0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    assert outcomes[2].body == b"no"
    assert outcomes[5].body.startswith(b"LookupError: me\n")
    assert [outcome.body for outcome in outcomes if not outcome.kind] == [
        *map(b"%d".__mod__, (0, 1, 3, 4, 6, 7, 8)),
        b'"set"',
    ]
    seen = [outcome.body for outcome in owner.run(*range(6), flow="batched", step="sizes")]
    assert seen == [b'[4,0,"[0,1,2,3]"]'] * 4 + [b'[2,4,"[4,5]"]'] * 2
    seen = [outcome.body for outcome in owner.run(*range(3), flow="batched", step="sizes", batch=2)]
    assert seen == [b'[2,0,"[0,1]"]'] * 2 + [b'[1,2,"[2]"]']


def test_many_chunks_go_through_and_no_lane_takes_more_than_two(owner: Owner) -> None:
    seqs = [owner.submit(*(["echo", n] for n in range(20))) for _ in range(30)]
    owner.until(lambda: owner.done >= set(seqs))
    assert all(kinds(owner.of(seq)) == [Kind.COMPLETED] * 20 for seq in seqs)
    owner.until(lambda: len(owner.executor.rooms()) == owner.executor.capacity)
    if owner.kind in AT_ONCE:
        return
    lane = owner.executor.rooms()[0][0]
    taken = [owner.executor.submit(lane, owner.chunk(1000 + n, [["sleep", 0.2]]), [None]) for n in range(3)]
    assert taken == [True, True, False]
    owner.until(lambda: not owner.executor.in_flight)


def test_a_stop_waits_for_what_runs_and_hands_back_what_has_not_begun(owner: Owner) -> None:
    orders = [["sleep", 0.4], *(["echo", n] for n in range(3))]
    seqs = [owner.submit(*orders) for _ in range(3)]
    if owner.kind not in AT_ONCE:
        time.sleep(0.2)
    owner.executor.quiesce()
    assert owner.executor.rooms() == []
    assert not owner.executor.submit(0, owner.chunk(99, orders), [None])
    assert owner.executor.stop(10.0) is True
    assert owner.executor.in_flight == 0
    owner.collect()
    assert owner.done >= set(seqs)
    every = [outcome for seq in seqs for outcome in owner.of(seq)]
    assert {int(outcome.kind) for outcome in every} <= {Kind.COMPLETED, Kind.NOT_RUN}
    assert len(every) == 12
    assert Kind.COMPLETED in kinds(owner.of(seqs[0]))
    assert owner.executor.stop(0.0) is True
    assert owner.events.empty()


def test_an_abort_reports_everything_at_once(owner: Owner) -> None:
    if owner.kind in AT_ONCE:
        pytest.skip("nothing is in flight when submit() has returned")
    seqs = [owner.submit(["sleep", 1.5], ["sleep", 1.5]) for _ in range(3)]
    time.sleep(0.1)
    began = time.monotonic()
    owner.executor.abort()
    assert time.monotonic() - began < 1.0
    owner.collect()
    assert owner.done >= set(seqs)
    assert all(kinds(owner.of(seq)) == [Kind.NOT_RUN, Kind.NOT_RUN] for seq in seqs)


def test_what_waits_behind_a_long_item_goes_to_others(owner: Owner) -> None:
    if owner.kind == "lanes":
        pytest.skip("relieve() is theirs")
    outcomes = owner.run(["echo", 0], ["sleep", 1.05], ["echo", 2], ["echo", 3])
    assert kinds(outcomes) == [Kind.COMPLETED, Kind.COMPLETED, Kind.NOT_RUN, Kind.NOT_RUN]
    assert "what waits behind a long item waits for it" in owner.executor.abilities.missing()


def test_time_limits_are_kept_or_said_to_be_none(owner: Owner) -> None:
    (outcome,) = owner.run(["sleep", 0.6], timeout=0.2)
    if owner.executor.abilities.kill:
        assert outcome.kind == Kind.FAILED
        assert outcome.body.startswith(b"TimeoutError: ")
    else:
        assert outcome.kind == Kind.COMPLETED
        assert "timeout is not enforced" in "; ".join(owner.executor.abilities.missing())


def test_what_nobody_wants_is_ended_or_runs_to_its_end(owner: Owner) -> None:
    seq = owner.submit(["sleep", 10.0 if owner.executor.abilities.kill else 0.8])
    if owner.kind not in AT_ONCE:
        time.sleep(0.3)
    owner.executor.cancel(lambda chunk, position: (chunk, position) == (seq, 0))
    owner.until(lambda: seq in owner.done)
    wanted = Kind.NOT_RUN if owner.executor.abilities.kill else Kind.COMPLETED
    assert kinds(owner.of(seq)) == [wanted]


def test_an_item_that_ends_its_process_is_named_and_its_neighbours_complete(owner: Owner) -> None:
    if owner.kind == "mpi":
        assert "ends all of them, and this program, too" in "; ".join(owner.executor.abilities.missing())
        return
    if owner.run(["pid", 0])[0].body == str(os.getpid()).encode():
        pytest.skip("it would end this process")
    others = [owner.submit(["sleep", 0.2], ["echo", 1]) for _ in range(2)]
    seq = owner.submit(["echo", 0], ["os_exit", 3], ["echo", 2], ["echo", 3])
    if owner.kind == "processes":  # the pool is its owner's, and broken: all of it is handed back
        owner.until(lambda: owner.lost and seq in owner.done)
        assert Kind.FAILED not in kinds(owner.of(seq))
        assert owner.executor.rooms() == []
        assert "is broken: BrokenProcessPool" in owner.lost[0].error
        return
    owner.until(lambda: owner.done >= {seq, *others})
    assert kinds(owner.of(seq))[1] == Kind.FAILED
    assert owner.of(seq)[1].body.startswith(b'Crashed: step "act" task 1: ')
    assert [death.cause for death in owner.deaths if death.verdict is not None] == [Cause.CRASH]
    rest = [outcome for n in (seq, *others) for outcome in owner.of(n)]
    assert [int(o.kind) for o in rest].count(Kind.FAILED) == 1
    assert kinds(owner.run(["echo", 5])) == [Kind.COMPLETED]


@pytest.mark.slow
@pytest.mark.parametrize("storage", CHUNKS)
def test_the_culprit_of_a_batch_is_found_by_halves_where_no_lane_names_it(storage: str) -> None:
    owner = Owner("remade processes", storage=storage)
    owner.executor.start()
    try:
        orders = [["echo", 0], ["echo", 1], ["os_exit", 3], ["echo", 3], ["echo", 4]]
        outcomes = owner.run(*orders, flow="batched", step="act_all")
        assert kinds(outcomes) == [0, 0, 1, 0, 0]
        assert outcomes[2].body.startswith(b'Crashed: step "act_all" task 2: ')
    finally:
        owner.executor.abort()


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_that_is_not_there_ends_the_start(kind: str) -> None:
    owner = Owner(kind, target="no_such_module_anywhere")
    with pytest.raises(PgflowError, match="There is no module"):
        owner.executor.start()
    assert not owner.executor.submit(0, chunk_of(1, [["echo", 1]]), [None])


def test_handlers_see_the_stop_where_they_can() -> None:
    owner = Owner("threads")
    owner.executor.start()
    seq = owner.submit(30.0, step="wait_for_shutdown")
    time.sleep(0.1)
    assert owner.executor.stop(5.0) is True
    owner.collect()
    assert owner.of(seq)[0].body == b"true"
    owner.executor.abort()


def test_what_is_no_executor_is_refused_with_words() -> None:
    with pytest.raises(ConfigError, match=r"executor is a int, not a concurrent\.futures\.Executor"):
        factory(3)
    with pytest.raises(ConfigError, match=r"executor made a int, not a concurrent\.futures\.Executor"):
        factory(lambda: 3)(Setup(target=FLOWS), Limits(1), print)


def test_a_pool_that_is_shut_down_is_said_to_run_nothing() -> None:
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    executor = factory(pool)(Setup(target=FLOWS), Limits(1), print)
    with pytest.raises(PgflowError, match="Executor ThreadPoolExecutor cannot run anything: RuntimeError"):
        executor.start()
