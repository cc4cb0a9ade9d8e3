"""Who is dead, by the signs of life that were seen to stand still. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from pgflow_mp.db.recovery import WatchedWorker
from pgflow_mp.worker.vigil import RETURN, Vigil

START = datetime(2026, 1, 1, tzinfo=UTC)


def worker(name: str, beat: float = 0.0, dead_after: float = 10.0, *, stopped: bool = False) -> WatchedWorker:
    return WatchedWorker(name, START + timedelta(seconds=beat), dead_after, stopped)


def looks(vigil: Vigil, workers: list[WatchedWorker], *times: float, ours: tuple[str, ...] = ()) -> list[str]:
    """Look in time at each of these; who is over at the last one."""
    over: list[WatchedWorker] = []
    for now in times:
        vigil.next_look(now)
        over = vigil.look(workers, ours, now)
    return [worker.worker_id for worker in over]


def begun(*, again: bool = False) -> Vigil:
    vigil = Vigil()
    vigil.begin(100.0, again=again)
    return vigil


def test_a_sign_of_life_that_stands_still_for_long_enough_tells_a_death() -> None:
    vigil, old = begun(), [worker("a", -3600)]
    assert looks(vigil, old, 100, 103, 106, 109) == []
    assert looks(vigil, old, 112) == ["a"]


def test_signs_that_move_on_are_life_whatever_the_clock_says() -> None:
    vigil = begun()
    for now in range(100, 160, 3):
        assert looks(vigil, [worker("a", -3600 + now), worker("b", 3600 - now)], now) == []


def test_our_own_ids_are_never_dead() -> None:
    assert looks(begun(), [worker("a"), worker("b")], 100, 103, 106, 109, 112, ours=("a",)) == ["b"]


def test_after_an_outage_nobody_is_dead_before_it_had_time_to_come_back() -> None:
    vigil = begun()
    assert looks(vigil, [worker("a")], 100, 103, 106, 109) == []
    vigil.begin(170.0, again=True)
    assert looks(vigil, [worker("a"), worker("b", 0, 1)], 170, 172) == []
    assert looks(vigil, [worker("a", 173), worker("b", 0, 1)], 170 + RETURN) == ["b"]
    assert looks(vigil, [worker("a", 173)], 176, 179, 182) == []
    assert looks(vigil, [worker("a", 173)], 183) == ["a"]


def test_a_look_that_comes_late_was_ours_to_miss() -> None:
    vigil, workers = begun(), [worker("a"), worker("b", dead_after=60)]
    assert looks(vigil, workers, 100, 103, 106) == []
    vigil.next_look(109)
    assert vigil.look(workers, (), 120) == []  # stopped for a while, perhaps with everybody else
    assert looks(vigil, workers, 123, 126, 129) == []
    assert looks(vigil, workers, 130) == ["a"]
    assert looks(vigil, workers, 160) == ["a", "b"]  # for which that was not late enough to matter


def test_those_that_stopped_are_looked_at_by_the_database() -> None:
    assert looks(begun(), [worker("a", stopped=True)], 100) == ["a"]


def test_who_stands_still_tells_when_to_look_again() -> None:
    vigil = begun()
    assert looks(vigil, [worker("a"), worker("b", 0, 60)], 101) == []
    assert vigil.first_death == math.inf  # they have only just been seen
    assert looks(vigil, [worker("a"), worker("b", 0, 60)], 104) == []
    assert vigil.first_death == 111
    assert looks(vigil, [worker("a"), worker("b", 0, 60)], 111) == ["a"]
    assert vigil.first_death == 161
    assert looks(vigil, [worker("a", 1), worker("b", 1, 60)], 112) == []
    assert vigil.first_death == math.inf
