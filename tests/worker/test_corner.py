"""Suspects of the death of the lanes' parent, one at a time; and the pause before lanes are started again."""

from __future__ import annotations

from pgflow_mp.executors.lanes.nursery import Losses
from pgflow_mp.executors.messages import Item, Kind, Outcome
from pgflow_mp.worker.batches import Batch, Flight, ItemTimes
from pgflow_mp.worker.chunks import as_spans
from pgflow_mp.worker.corner import Corner
from pgflow_mp.worker.dispatch import Dispatcher
from pgflow_mp.worker.parking import Parked


class Bench:
    """A corner, and four items of which the lanes have two."""

    def __init__(self) -> None:
        self.dispatcher, self.parked = Dispatcher(ItemTimes()), list[Parked]()
        self.corner = Corner(self.dispatcher, self.parked.append)
        items = [Item(i, 1, i, 0, 0, b"1", None) for i in range(4)]
        self.batch = Batch("f", "w", ["r"], ["s"], [60.0], items, 60.0, 0.0)
        self.dispatcher.add(self.batch)

    def send(self) -> Flight:
        flight = self.dispatcher.next_chunk(0, 2, 0.0)
        assert flight is not None
        return flight

    def lose(self, *flights: Flight) -> list[int]:
        """The lanes' parent dies: all come back; the indexes of those that are free to be run."""
        for flight in flights:
            self.corner.lost(flight.chunk.seq, 0)
        back: list[int] = []
        for flight in flights:
            end = flight.start + flight.chunk.size
            back += range(flight.start, end)
            self.dispatcher.finish(flight.batch, flight.start, end - 1)
        batch = flights[0].batch
        free = self.corner.sift(batch, as_spans(back))
        found = [batch.item(i).index for span in free for i in range(*span)]
        if free:
            (part,) = batch.parts(free)
            self.dispatcher.add(part, first=True)
        return found


def test_suspects_run_one_at_a_time_from_the_second_loss_on_and_the_third_is_to_blame() -> None:
    bench = Bench()
    corner = bench.corner
    assert not corner
    assert bench.lose(bench.send(), bench.send()) == [0, 1]
    assert bench.lose(bench.send(), bench.send()) == []
    corner.let_through()
    first = bench.send()
    assert [first.chunk.locate(i)[3] for i in range(first.chunk.size)] == [0]
    corner.let_through()  # not while that one runs
    assert bench.send().chunk.locate(0)[3] == 2
    corner.ended(first, [Outcome(0, Kind.COMPLETED, b"1", 0.0)])
    bench.dispatcher.finish(first.batch, 0, 0)
    corner.let_through()
    assert bench.lose(bench.send()) == []
    assert [(parked.item.index, parked.outcome.kind) for parked in bench.parked] == [
        (1, Kind.FAILED_FOR_GOOD)
    ]
    assert bench.parked[0].outcome.body.startswith(b"quarantined after 3 deaths of the lanes' parent")
    assert not corner


def test_those_that_wait_for_their_turn_are_handed_back_at_the_end() -> None:
    bench = Bench()
    for _ in range(2):
        bench.lose(bench.send(), bench.send())
    assert [batch.item(0).index for batch in bench.corner.take_all()] == [0, 1]
    bench.corner.let_through()
    assert bench.send().chunk.locate(0)[3] == 2


def test_lanes_that_lose_their_parent_again_and_again_wait_longer_and_longer() -> None:
    losses, now, pauses = Losses(), 100.0, []
    for _ in range(8):
        pauses.append(losses.pause(now))
        assert losses.pause(now + 0.01) == pauses[-1]  # another lane of the same loss
        now += 1.0
    assert pauses == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert losses.pause(now + 100.0) == 0.0
