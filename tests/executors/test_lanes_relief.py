"""What waits behind a long item in its lane is taken from there. Real processes throughout."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable

import pytest
from lane_harness import Harness, chunk_of, kinds, lanes, range_of, text

from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.messages import AnyChunk, Kind
from pgflow_mp.executors.verdicts import KillReason

Make = Callable[..., AnyChunk]


@pytest.fixture(params=[chunk_of, range_of], ids=["tasks", "ranges"])
def make(request: pytest.FixtureRequest) -> Make:
    chosen: Make = request.param
    return chosen


def relieve(harness: Harness, after: float, *, times: int = 2) -> None:
    for _ in range(times):
        harness.pool.relieve(after)
        time.sleep(0.03)
        harness.tick()


def wait_for(harness: Harness, seq: int, position: int) -> None:
    harness.until(lambda: any((run.seq, run.target[1]) == (seq, position) for run in harness.pool.running()))


def test_what_waits_behind_a_long_item_is_handed_back_while_that_still_runs(make: Make) -> None:
    with lanes(1, make=make) as harness:
        first = harness.submit([["echo", 1], ["sleep", 1.0], ["echo", 2], ["echo", 3]])
        second = harness.submit([["echo", 4], ["echo", 5]])
        wait_for(harness, first, 1)
        time.sleep(0.1)
        relieve(harness, 0.1)
        harness.until(lambda: 0 in harness.outcomes[first])
        assert {position: outcome.kind for position, outcome in harness.outcomes[first].items()} == {
            0: Kind.COMPLETED,
            2: Kind.NOT_RUN,
            3: Kind.NOT_RUN,
        }
        assert kinds(harness.of(second)) == [Kind.NOT_RUN, Kind.NOT_RUN]
        assert not harness.done
        harness.until(lambda: harness.done == {first, second})
        assert harness.outcomes[first][1].kind == Kind.COMPLETED
        assert text(harness.run([["echo", 6]])[0]) == "6"


def test_one_call_takes_nothing_away_and_a_short_item_keeps_its_chunk(make: Make) -> None:
    with lanes(1, make=make) as harness:
        seq = harness.submit([["sleep", 0.3], ["echo", 1]])
        wait_for(harness, seq, 0)
        relieve(harness, 5.0, times=3)
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [Kind.COMPLETED, Kind.COMPLETED]
        seq = harness.submit([["sleep", 0.3], ["echo", 1]])
        wait_for(harness, seq, 0)
        relieve(harness, 0.0, times=1)
        assert not harness.outcomes[seq]
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [Kind.COMPLETED, Kind.NOT_RUN]


def test_the_death_of_a_long_item_charges_nobody_whom_it_held_up(make: Make) -> None:
    with lanes(1, make=make) as harness:
        seq = harness.submit([["sleep", 30], ["echo", 1]])
        wait_for(harness, seq, 0)
        relieve(harness, 0.0)
        assert kinds([harness.outcomes[seq][1]]) == [Kind.NOT_RUN]
        harness.pool.kill(0, KillReason(Cause.STOPPED), grace=0.0)
        harness.until(lambda: harness.deaths and seq in harness.done)
        assert sorted(harness.outcomes[seq]) == [0, 1]


def test_items_are_reported_once_however_often_lanes_are_relieved(make: Make) -> None:
    chosen = random.Random(5)
    with lanes(2, make=make) as harness:
        seqs = []
        for _ in range(60):
            orders = [["sleep", chosen.choice([0, 0, 0.001, 0.02, 0.05])] for _ in range(5)]
            seqs.append(harness.submit(orders, lane=chosen.randrange(2)))
            harness.pool.relieve(chosen.choice([0.0, 0.01]))
            harness.tick()
        harness.until(lambda: harness.done == set(seqs), 30.0)
        seen = Counter(outcome.kind for seq in seqs for outcome in harness.of(seq))
        assert set(seen) == {Kind.COMPLETED, Kind.NOT_RUN}
        assert seen.total() == 300
