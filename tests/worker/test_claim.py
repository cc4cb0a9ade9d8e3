"""How much is claimed, and when; and the thread that claims."""

from __future__ import annotations

import json
import queue
from typing import Any

import msgspec
import psycopg
from hypothesis import given
from hypothesis import strategies as st
from range_harness import store_in_ranges
from worker_harness import FLOWS, adapted, compiled, eventually, start

from pgflow_mp.db import engine
from pgflow_mp.db.engine import ClaimedTask
from pgflow_mp.executors.execution import describe
from pgflow_mp.executors.messages import Item
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.worker import inbox, startup
from pgflow_mp.worker.claim import Claimer, make_batch
from pgflow_mp.worker.planner import (
    MANY_MAPS,
    MOST,
    MOST_HELD,
    ClaimedItems,
    ClaimPlanner,
    ClaimRequest,
    Load,
)


def planner(**options: Any) -> ClaimPlanner:
    return ClaimPlanner(["f"], **{"lanes": 2, **options})


def load(**values: Any) -> Load:
    nothing = {"lanes": 2, "item_seconds": 0.001, "waiting": 0, "waiting_seconds": 0.0, "lane_seconds": 0.0}
    return Load(**{**nothing, "held": 0, **values})


def test_a_batch_of_several_runs_and_steps_has_each_once_and_its_items_point_there() -> None:
    def task(run: str, step: str, index: int, timeout: int, flow_input: bytes | None = None) -> ClaimedTask:
        return ClaimedTask(run, step, index, 100 + index, 1, b"%d" % index, flow_input, timeout)

    found = [task("r", "b", 0, 5), task("s", "b", 1, 5), task("r", "a", 2, 60, b"{}"), task("s", "a", 33, 60)]
    found[1] = found[1]._replace(paged={"big": 7}, attempt=3)
    batch = make_batch("f", "w", found, None, 2.0)
    assert (batch.runs, batch.steps, batch.timeouts) == (["r", "s"], ["b", "a"], [5.0, 60.0])
    assert (batch.lease, batch.renewed, batch.size) == (62.0, 2.0, 1 + 1 + 1 + 2 + 2)
    assert batch.items == [
        Item(0, 1, 100, 0, 0, b"0", None),
        Item(1, 3, 101, 1, 0, b"1", None, {"big": 7}),
        Item(2, 1, 102, 0, 1, b"2", b"{}"),
        Item(33, 1, 133, 1, 1, b"33", None),
    ]
    assert make_batch("f", "w", found[:1], 30, 2.0).lease == 30.0


def tasks_of(plan: ClaimPlanner, load: Load, now: float) -> int:
    """How many the next claim is for."""
    return plan.quantities("f", load, now)[0]


def test_the_first_claim_is_small_and_waits_for_a_measurement() -> None:
    plan = planner()
    assert tasks_of(plan, load(item_seconds=None), 0.0) == 4
    assert tasks_of(plan, load(item_seconds=None, waiting=4), 0.0) == 0


def test_claims_grow_fourfold_while_the_work_is_tiny() -> None:
    plan, asked = planner(), []
    for _ in range(8):
        quantity = tasks_of(plan, load(item_seconds=20e-6), 0.0)
        asked.append(quantity)
        plan.claimed("f", quantity, quantity, 10 * quantity, 0.01, 0.0)
    assert asked == [4, 16, 64, 256, 1024, MOST, MOST, MOST]


def test_long_items_are_claimed_as_lanes_need_them() -> None:
    plan = planner(lanes=16)
    plan.claimed("f", 64, 64, 640, 0.01, 0.0)
    busy = load(lanes=16, item_seconds=10.0, lane_seconds=16 * plan.horizon("f"))
    assert tasks_of(plan, busy, 0.0) == 0
    one_free = load(lanes=16, item_seconds=10.0, lane_seconds=15 * plan.horizon("f"))
    assert tasks_of(plan, one_free, 0.0) == 1


def test_a_fixed_batch_size_is_kept_to() -> None:
    plan = planner(batch_size=7)
    assert tasks_of(plan, load(item_seconds=None), 0.0) == 7
    assert tasks_of(plan, load(), 0.0) == 7


def test_large_inputs_make_small_claims() -> None:
    plan = planner()
    for _ in range(20):
        plan.claimed("f", 500, 500, 500 << 20, 0.01, 0.0)
    assert tasks_of(plan, load(item_seconds=20e-6), 0.0) <= 16


def test_empty_claims_are_spaced_out_until_work_is_announced() -> None:
    plan, now, pauses = planner(shortest_pause=0.1, longest_pause=2.0), 0.0, []
    for _ in range(7):
        assert tasks_of(plan, load(), now)
        plan.claimed("f", 10, 0, 0, 0.001, now)
        assert tasks_of(plan, load(), now) == 0
        pauses.append(round(plan.pause("f"), 3))
        now += plan.pause("f")
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert plan.dry("f")
    plan.claimed("f", 10, 0, 0, 0.001, now)
    plan.announce("f")
    assert tasks_of(plan, load(), now)
    plan.announce("unknown")


@given(
    item_seconds=st.floats(1e-6, 1000),
    waiting=st.integers(0, 20_000),
    lane_seconds=st.floats(0, 100),
    held=st.integers(0, MOST_HELD),
    ramped=st.booleans(),
)
def test_what_is_held_never_exceeds_what_is_worth_holding_by_more_than_an_item(
    item_seconds: float, waiting: int, lane_seconds: float, held: int, ramped: bool
) -> None:
    plan = planner()
    if ramped:
        plan.claimed("f", MOST, MOST, MOST, 0.01, 0.0)
    seconds = waiting * item_seconds
    quantity = tasks_of(
        plan,
        load(
            item_seconds=item_seconds,
            waiting=waiting,
            waiting_seconds=seconds,
            lane_seconds=lane_seconds,
            held=max(held, waiting),
        ),
        0.0,
    )
    assert 0 <= quantity <= MOST
    if quantity > 1:
        assert seconds + lane_seconds + quantity * item_seconds <= 2 * plan.horizon("f") * 1.0001
        assert max(held, waiting) + quantity <= MOST_HELD


def test_hints_that_prove_empty_are_heeded_ever_less_and_one_that_is_true_makes_good() -> None:
    plan, now, heeded = planner(), 0.0, []
    plan.claimed("f", 10, 0, 0, 0.001, now)
    while now < 3.0:  # a flood
        plan.hint("f", now)
        if tasks_of(plan, load(), now):
            plan.asked("f")
            plan.claimed("f", 10, 0, 0, 0.001, now)
            heeded.append(now)
        now += 0.001
    assert heeded[0] == 0.0
    assert heeded[1] < 0.02
    assert 25 < len(heeded) < 40
    plan.hint("f", now)
    assert plan.dry("f"), "words are no reason to stay"
    now += 0.1
    assert tasks_of(plan, load(), now)
    plan.asked("f")
    plan.claimed("f", 10, 1, 10, 0.001, now)
    plan.asked("f")
    plan.claimed("f", 10, 0, 0, 0.001, now)
    assert tasks_of(plan, load(), now) == 0
    plan.hint("f", now)
    assert not plan.dry("f")
    assert tasks_of(plan, load(), now)
    plan.hint("unknown", now)


def test_a_claim_that_got_of_as_many_maps_as_it_may_is_followed_by_the_next_at_once() -> None:
    for maps, pause in ((1, True), (64, False)):
        plan = planner()
        plan.claimed("f", 2000, 0, 0, 0.001, 100.0, ClaimedItems(20_000, 32, 100, maps))
        assert (plan.pause("f") > 0) is pause
        assert plan.dry("f") is pause


def test_of_many_small_maps_a_claim_gets_more_than_so_many(dsn: str) -> None:
    compiled(dsn, "chain")
    store_in_ranges(dsn, "chain")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pgflow.start_flow('chain', '[1]') from generate_series(1, 70)")
    with _Running(dsn) as running:
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 100, 1000))
        assert 70 > len(running.next(inbox.Claimed).ranges) >= MANY_MAPS


def test_work_of_a_step_that_came_later_is_handed_back_once_and_not_claimed_again(dsn: str) -> None:
    compiled(dsn, "chain")
    with psycopg.connect(dsn, autocommit=True) as conn, _Running(dsn) as running:
        conn.execute("select pgflow.add_step('chain', 'late', step_type => 'map')")
        conn.execute("select pgflow.add_step('chain', 'later', step_type => 'map')")
        conn.execute("select pgflow.set_step_policy('chain', 'later', storage => 'ranges')")
        conn.execute("select pgflow.start_flow('chain', '[1, 2]')")
        for expected in (["double"], None):
            running.claimer.request(ClaimRequest("chain", "chain", WORKER, 100, 1000))
            claimed = running.next(inbox.Claimed)
            assert (claimed.batch and claimed.batch.steps) == expected
            assert not claimed.ranges
        said = [post.text for post in running.passed if isinstance(post, inbox.Said)]
        assert [text.partition(",")[0] for text in said] == [
            'flow chain has a step "late"',
            'flow chain has a step "later"',
        ]
        waiting = "select distinct status, attempts from pgflow.items where step_slug like 'late%'"
        assert conn.execute(waiting).fetchall() == [("queued", 0)]
        assert conn.execute("select count(*) from pgmq.q_chain where vt <= clock_timestamp()").fetchone() == (
            2,
        )


def test_what_is_ours_are_the_steps_of_the_code_and_older_ones_that_it_has_not(dsn: str) -> None:
    (found,) = [flow for flow in load_flows(str(FLOWS)) if flow.slug == "chain"]
    info = describe(found)
    steps = {"double", "as_text", "joined"}
    with adapted(dsn) as conn:
        assert startup.known_steps(conn, [info]) == {"chain": steps}
        compiled(dsn, "chain")
        conn.execute("select pgflow.add_step('chain', 'vanished')")
        row = conn.execute("select pgflow._get_flow_shape('chain')::text").fetchone()
        assert row is not None
        shape = json.loads(row[0])
        shape["steps"].append({"slug": "late", "stepType": "single", "dependencies": []})
        grown = json.dumps(shape)
        conn.execute("select pgflow.take_over_flow('chain', %s::jsonb)", (grown,))
        assert startup.known_steps(conn, [info]) == {"chain": steps | {"vanished"}}


class _Running:
    """A claimer and what it posts."""

    def __init__(self, dsn: str) -> None:
        self.posted: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.passed: list[Any] = []
        steps = {"chain": ["double", "as_text", "joined"]}
        self.claimer = Claimer(
            dsn, self.posted.put, worker_name="test", dead_after=10.0, lease=None, steps=steps
        )
        self.claimer.start()

    def next(self, kind: type) -> Any:
        """The next post of this kind."""
        while True:
            if isinstance(post := self.posted.get(timeout=10), kind):
                return post
            self.passed.append(post)

    def __enter__(self) -> _Running:
        return self

    def __exit__(self, *_error: object) -> None:
        self.claimer.stop()
        self.claimer.join(10)
        self.claimer.close()


WORKER = "11111111-1111-4111-8111-111111111111"


def test_the_claimer_registers_claims_and_hears_of_new_work(dsn: str) -> None:
    run_id = start(dsn, "chain", [10, 11, 12])
    with _Running(dsn) as running:
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 2))
        claimed = running.next(inbox.Claimed)
        assert [item.input for item in claimed.batch.items] == [b"10", b"11"]
        assert (claimed.batch.runs, claimed.batch.steps, claimed.batch.timeouts) == (
            [run_id],
            ["double"],
            [60.0],
        )
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 2))
        assert len(running.next(inbox.Claimed).batch.items) == 1
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 2))
        assert running.next(inbox.Claimed).batch is None
        start(dsn, "chain", [1])
        assert running.next(inbox.WorkHinted).flow == "chain"


def test_a_claim_on_a_cut_connection_is_reported_as_lost_and_the_next_one_works(dsn: str) -> None:
    compiled(dsn, "chain")
    with _Running(dsn) as running, psycopg.connect(dsn, autocommit=True) as conn:
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 2))
        assert running.next(inbox.Claimed).batch is None
        conn.execute("begin; lock table pgflow.workers; lock table pgmq.q_chain")
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 2))
        eventually(lambda: _waiting(dsn))
        conn.execute("select pg_terminate_backend(pid) from pg_locks where not granted")
        lost = running.next(inbox.ClaimLost)
        assert (lost.queue, lost.worker_id) == ("chain", WORKER)
        conn.execute("rollback")
        with adapted(dsn) as other:
            engine.start_flow(other, "chain", b"[1]")
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 2))
        assert len(running.next(inbox.Claimed).batch.items) == 1


def test_a_queue_that_is_missing_is_reported_by_its_own_name_and_missed_once(dsn: str) -> None:
    (flow,) = [found for found in load_flows(str(FLOWS)) if found.slug == "chain"]
    with adapted(dsn) as conn:
        engine.ensure_flow_compiled(conn, "chain", msgspec.json.encode(flow.shape()), "step")
        engine.start_flow(conn, "chain", b"[1]")
        listed = "select queue_name from pgmq.list_queues() where queue_name ~ 'double'"
        found = conn.execute(listed).fetchone()
        assert found is not None
        conn.execute(f"drop table pgmq.q_{found[0]}".encode())
    with _Running(dsn) as running:
        running.claimer.request(ClaimRequest("chain", found[0], WORKER, 1))
        assert running.next(inbox.ClaimFailed).queue == found[0]
        running.claimer.request(ClaimRequest("chain", found[0], WORKER, 1))
        assert running.next(inbox.ThreadFailed).who == "claim"


def test_a_worker_row_that_was_deleted_is_written_again(dsn: str) -> None:
    start(dsn, "chain", [1, 2])
    with _Running(dsn) as running, psycopg.connect(dsn, autocommit=True) as conn:
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 1))
        assert running.next(inbox.Claimed).batch is not None
        conn.execute("delete from pgflow.workers")
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 1))
        running.next(inbox.ClaimFailed)
        running.claimer.request(ClaimRequest("chain", "chain", WORKER, 1))
        running.next(inbox.Claimed)
        assert conn.execute("select count(*) from pgflow.workers").fetchone() == (1,)


def _waiting(dsn: str) -> bool:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select count(*) from pg_locks where not granted").fetchone()
        return row is not None and row[0] > 0
