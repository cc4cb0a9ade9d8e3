"""How much is claimed of flows with limits, and when. No clock, no thread, no database."""

from __future__ import annotations

from dataclasses import replace

from pgflow_mp.worker.planner import ClaimPlanner, Load

BUSY = Load(lanes=4, item_seconds=1.0, waiting=0, waiting_seconds=0.0, lane_seconds=1.6, held=4, idle=0)


def planner() -> ClaimPlanner:
    return ClaimPlanner(["q"], lanes=4)


def test_what_is_usable_is_what_lanes_can_begin_with() -> None:
    assert planner().usable("q", replace(BUSY, idle=3)) == 3
    assert planner().usable("q", BUSY) == 0
    assert planner().usable("q", replace(BUSY, idle=2, batch=16)) == 32
    unknown = replace(BUSY, item_seconds=None, idle=4, lane_seconds=0.0)
    assert planner().usable("q", unknown) == 4
    tiny = replace(BUSY, item_seconds=0.0001, lane_seconds=0.0, idle=1)
    assert planner().usable("q", tiny) == 2000  # a twentieth of a second for each lane


def test_nothing_is_asked_for_while_no_lane_could_begin_with_it() -> None:
    plan, asks = planner(), replace(BUSY, lane_seconds=0.0)
    assert plan.quantities("q", asks, 0.0) != (0, 0)
    plan.limited("q", None, 0.0)
    plan.announce("q")
    assert plan.quantities("q", asks, 1.0) == (0, 0)
    assert plan.quantities("q", replace(asks, idle=1), 1.0) != (0, 0)
    assert plan.quantities("q", asks, 6.0) != (0, 0)  # whether they still matter has to be found out


def test_the_next_claim_comes_when_the_rate_lets_more_through() -> None:
    plan = planner()
    plan.asked("q")
    plan.claimed("q", 10, 0, 0, 0.001, 0.0)
    plan.limited("q", 0.25, 0.0)
    assert plan.next_claim(0.05) == 0.2
    assert not plan.dry("q")  # there is more to come
    idle = replace(BUSY, lane_seconds=0.0, idle=4)
    assert plan.quantities("q", idle, 0.2) == (0, 0)
    assert plan.quantities("q", idle, 0.25) != (0, 0)
    plan.asked("q")
    assert plan.next_claim(0.3) is None


def test_what_only_others_stand_in_the_way_of_is_looked_for_as_when_there_is_nothing() -> None:
    plan = planner()
    plan.asked("q")
    plan.claimed("q", 10, 0, 0, 0.001, 0.0)
    plan.limited("q", None, 0.0)
    assert plan.dry("q")
    assert plan.next_claim(0.0) is None
