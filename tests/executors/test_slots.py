"""The shared memory of a lane: what the child publishes is what the parent reads, at any moment."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from pgflow_mp.executors.endings import TaskEndings
from pgflow_mp.executors.lanes.slots import (
    INITIAL_SIZE,
    KEPT_SIZE,
    MAX_ITEMS,
    Running,
    SlotFiles,
    SlotReader,
    SlotWriter,
)
from pgflow_mp.executors.messages import Kind, Outcome, encode


def pair() -> tuple[SlotFiles, SlotReader, SlotWriter]:
    files = SlotFiles.create()
    return files, SlotReader(files), SlotWriter(files)


def outcome(position: int, body: bytes = b"1") -> Outcome:
    return Outcome(position, Kind.COMPLETED, body, 0.5)


def take(reader: SlotReader, ordinal: int, count: int, length: int) -> tuple[list[Outcome], int, int]:
    taken = reader.take(ordinal, count, length)
    if taken is None:
        return [], count, length
    endings = TaskEndings(1)
    endings.read(taken.data, count, taken.count - count, MAX_ITEMS, 0.0)
    return endings.outcomes, taken.count, taken.length


def test_outcomes_are_taken_once_and_in_order() -> None:
    _, reader, writer = pair()
    writer.begin(1)
    writer.finish(encode(outcome(0)))
    first, count, length = take(reader, 1, 0, 0)
    writer.finish(encode(outcome(1)))
    writer.finish(encode(outcome(2)))
    rest, count, length = take(reader, 1, count, length)
    assert [o.position for o in first + rest] == [0, 1, 2]
    assert take(reader, 1, count, length) == ([], 3, length)


def test_two_chunks_do_not_share_a_buffer() -> None:
    _, reader, writer = pair()
    writer.begin(1)
    writer.finish(encode(outcome(0, b'"first"')))
    writer.end()
    writer.begin(2)
    writer.finish(encode(outcome(0, b'"second"')))
    assert [take(reader, n, 0, 0)[0][0].body for n in (1, 2)] == [b'"first"', b'"second"']


def test_nothing_is_read_for_a_chunk_that_has_not_begun() -> None:
    _, reader, writer = pair()
    writer.begin(1)
    writer.finish(encode(outcome(0)))
    assert take(reader, 3, 0, 0) == ([], 0, 0)


def test_an_outcome_larger_than_the_buffer_makes_it_grow_and_the_next_chunk_cuts_it_back() -> None:
    files, reader, writer = pair()
    body = b"x" * (3 * KEPT_SIZE)
    writer.begin(1)
    writer.finish(encode(outcome(0)))
    assert take(reader, 1, 0, 0)[0]
    writer.finish(encode(outcome(1, body)))
    assert [o.body for o in take(reader, 1, 0, 0)[0]] == [b"1", body]
    writer.begin(3)
    assert files.buffers[1].size() == INITIAL_SIZE
    writer.finish(encode(outcome(0, b"2")))
    assert take(reader, 3, 0, 0)[0][0].body == b"2"


def test_the_running_item_is_published_with_its_start() -> None:
    _, reader, writer = pair()
    assert reader.running() is None
    writer.begin(7)
    writer.start(41, 123_456)
    found = reader.running()
    assert found is not None
    assert (found.ordinal, found.position, found.started_ns) == (7, 41, 123_456)
    writer.finish(encode(outcome(41)))
    assert reader.running() is None


def test_an_item_of_a_range_that_has_completed_runs_no_more_though_the_next_has_not_begun() -> None:
    _, reader, writer = pair()
    writer.begin(7)
    for position, body in enumerate((b"1", b"[2,3]")):
        writer.start(position, 5)
        assert reader.running() == Running(7, position, 5)
        writer.complete(body)
        assert reader.running() is None
        assert reader.finished == position + 1
    taken = reader.take(7, 0, 0)
    assert taken is not None
    assert (taken.data, taken.count) == (b"1,[2,3],", 2)
    writer.widen(3)
    writer.start(2, 6)
    assert reader.running() == Running(7, 2, 6, width=3)
    writer.finish(b"4,5,6,", 3)
    writer.end()
    assert (reader.running(), reader.finished) == (None, 5)


def test_an_output_of_a_range_that_is_larger_than_the_buffer_makes_it_grow() -> None:
    _, reader, writer = pair()
    writer.begin(1)
    writer.complete(b"1")
    writer.complete(b"2" * INITIAL_SIZE * 3)
    writer.complete(b"3")
    taken = reader.take(1, 1, 2)
    assert taken is not None
    assert taken.data == b"2" * INITIAL_SIZE * 3 + b",3,"


def test_the_parent_s_flags_reach_the_child() -> None:
    _, reader, writer = pair()
    assert not writer.is_set()
    reader.shut_down()
    reader.skip(4)
    reader.skip(2)
    assert writer.is_set()
    assert writer.skipped == 4


def test_shared_memory_cannot_be_pickled_by_accident() -> None:
    import pickle

    with pytest.raises(TypeError, match="being started"):
        pickle.dumps(SlotFiles.create())


def test_closing_frees_every_file() -> None:
    before = os.listdir("/proc/self/fd")
    files, reader, writer = pair()
    del writer
    reader.close()
    assert os.listdir("/proc/self/fd") == before
    assert files.control.fd == -1


@pytest.mark.parametrize("seconds", [1.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_reader_never_sees_a_torn_or_missing_outcome(seconds: float) -> None:
    """A child writes as fast as it can, bodies of all sizes; the parent reads all the while."""
    _, reader, writer = pair()
    end = time.monotonic() + seconds
    at_last = end + 60  # where others use this machine, too
    pid = os.fork()
    if pid == 0:
        try:
            _write_until(writer, at_last)
        finally:
            os._exit(0)
    ordinal, count, length, seen, busy = 1, 0, 0, 0, 0
    try:
        while True:
            outcomes, count, length = take(reader, ordinal, count, length)
            for found in outcomes:
                assert found.body == bytes([found.position % 251]) * (found.position * 7919 % 9000)
            seen += len(outcomes)
            if (running := reader.running()) is not None:
                assert running.started_ns == running.ordinal * 1000 + running.position
                busy += 1
            if outcomes and outcomes[-1].position == 499:
                assert count == 500
                reader.skip(ordinal)  # read to its end: the child may go on
                ordinal, count, length = ordinal + 1, 0, 0
            if (now := time.monotonic()) > at_last or (now > end and seen >= 5000 and busy):
                break
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert seen >= 5000
    assert busy


def _write_until(writer: SlotWriter, end: float) -> None:
    ordinal = 0
    random.seed(1)
    while time.monotonic() < end:
        ordinal += 1
        writer.begin(ordinal)
        for position in range(500):
            writer.start(position, ordinal * 1000 + position)
            body = bytes([position % 251]) * (position * 7919 % 9000)
            writer.finish(encode(outcome(position, body)))
        writer.end()
        while writer.skipped < ordinal and time.monotonic() < end:
            pass
