"""Ranges in executors: what is said of them, byte by byte, and what lanes do with them."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from lane_harness import Harness, eventually, kinds, lanes, range_of, text

from pgflow_mp.executors.decoded_pages import Pages, PagesSent
from pgflow_mp.executors.endings import RangeEndings, frame
from pgflow_mp.executors.events import Cause, Piece, RangeOutcomes
from pgflow_mp.executors.lanes.holding import HeldChunk
from pgflow_mp.executors.lanes.postmortem import Death, settle
from pgflow_mp.executors.lanes.slots import Running, SlotFiles, SlotReader, SlotWriter
from pgflow_mp.executors.messages import Chunk, Kind, Outcome, RangeChunk, Segment, decode_chunk, encode
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import encode_output


def failed(position: int, kind: int = Kind.FAILED) -> Outcome:
    return Outcome(position, kind, b"no \xc3\xbc, and a comma", 0.25)


def read(data: bytes, first: int, count: int, end: int = 1000) -> RangeOutcomes:
    endings = RangeEndings(7)
    endings.read(data, first, count, end, 0.5)
    event = endings.event(1, 2, done=False)
    assert isinstance(event, RangeOutcomes)
    return event


def test_completed_items_are_one_piece() -> None:
    event = read(b'"a, b",{"c": [1,2]},3,', 40, 3)
    assert event.pieces == [Piece(40, 3, b'"a, b",{"c": [1,2]},3')]
    assert (event.exceptions, event.not_run, event.seconds, event.completed) == ([], [], 0.5, 3)


def test_failures_lie_between_pieces_wherever_they_are() -> None:
    data = frame(failed(10)) + b"1,2," + frame(failed(13)) + frame(failed(14, Kind.FAILED_FOR_GOOD)) + b"5,"
    event = read(data, 10, 6)
    assert event.pieces == [Piece(11, 2, b"1,2"), Piece(15, 1, b"5")]
    assert event.exceptions == [failed(10), failed(13), failed(14, Kind.FAILED_FOR_GOOD)]
    assert event.completed == 3


def test_one_word_stands_for_all_that_did_not_run() -> None:
    rest = frame(Outcome(12, Kind.NOT_RUN, b"", 0.0))
    assert read(b"1,2," + rest, 10, 50).not_run == [(12, 48)]
    assert read(rest, 12, 48, 20).not_run == [(12, 8)]
    assert not any([*read(rest, 12, 48, 12).not_run, RangeEndings(1)])


def test_what_was_taken_from_a_lane_is_not_reported_again_by_it() -> None:
    event = read(b"1,2," + frame(failed(12)) + b"[3,3],4," + frame(failed(15)), 10, 6, 14)
    assert event.pieces == [Piece(10, 2, b"1,2"), Piece(13, 1, b"[3,3]")]
    assert event.exceptions == [failed(12)]


def test_a_part_of_a_range_is_cut_across_its_pages() -> None:
    whole = RangeChunk(3, "f", "r", "s", 500, 7, [Segment(b"x", 1, 10, 4), Segment(b"y", 2, 0, 3)], 16)
    assert whole.part(0, 7) == whole
    assert whole.part(2, 6) == RangeChunk(
        3, "f", "r", "s", 502, 4, [Segment(b"x", 1, 12, 2), Segment(b"y", 2, 0, 2)], 16
    )
    assert whole.part(5, 6).segments == [Segment(b"y", 2, 1, 1)]
    assert whole.locate(6) == ("r", "s", 0, 506)
    with pytest.raises(IndexError):
        whole.locate(7)


def test_both_kinds_of_chunks_are_told_apart_on_the_way() -> None:
    ranged = range_of(1, [1, 2, 3])
    assert decode_chunk(encode(ranged)) == ranged
    assert isinstance(decode_chunk(encode(Chunk(1, "f", ["r"], ["s"], []))), Chunk)


def test_a_page_is_decoded_once_while_it_is_used() -> None:
    def chunk(page: bytes, page_id: int) -> RangeChunk:
        return RangeChunk(1, "f", "r", "s", 0, 2, [Segment(page, page_id, 1, 2)])

    def elements(page: bytes, page_id: int) -> list[bytes]:
        return [bytes(element) for element in pages.elements(chunk(page, page_id))]

    pages = Pages()
    assert elements(b'[0, {"a": 1},  "b" ]', 5) == [b'{"a": 1}', b'"b"']
    assert elements(b"nothing looks at this", 5) == [b'{"a": 1}', b'"b"']
    for other in (6, 7):
        assert elements(b"[1,2,3]", other) == [b"2", b"3"]
    with pytest.raises(msgspec.DecodeError):
        elements(b"it has been let go", 5)
    with pytest.raises(ValueError, match="a chunk of 2 items came with 1 elements"):
        elements(b"[1,2]", 8)


def test_a_page_that_a_process_still_has_is_not_sent_to_it_again() -> None:
    drawn, sent, pages = random.Random(3), PagesSent(), Pages()
    texts = {n: b"[" + b",".join(b"%d" % (n * 1000 + i) for i in range(9)) + b"]" for n in range(6)}
    texts[5] = b"[" + b",".join(b'"%d"' % i + b" " * (1 << 18) for i in range(9)) + b"]"
    saved = 0
    for _ in range(300):
        ids = [drawn.choice([0, 1, 2, 3, 4, 5]) for _ in range(drawn.randint(1, 4))]
        whole = RangeChunk(1, "f", "r", "s", 0, 2 * len(ids), [Segment(texts[n], n, 3, 2) for n in ids])
        chunk, sent = sent.without_known(whole)
        assert isinstance(chunk, RangeChunk)
        saved += sum(not segment.page for segment in chunk.segments)
        assert not any(segment.page_id == 5 and not segment.page for segment in chunk.segments)
        assert pages.elements(chunk) == Pages().elements(whole)
    assert saved > 100


class Struct(msgspec.Struct):
    raw: msgspec.Raw


@pytest.mark.parametrize("text", [b"\0", b"1\0", b'"a\0b"', b'["a", \0]', b'"a\x01b"', b"[1,\0"])
@pytest.mark.parametrize("around", [lambda raw: raw, lambda raw: [raw], lambda raw: {"a": [raw]}, Struct])
def test_no_output_holds_a_byte_that_ends_a_piece(text: bytes, around: Any) -> None:
    try:
        body = encode_output(around(msgspec.Raw(text)))
    except OutputError:
        return
    assert b"\0" not in body
    assert json.loads(body) is not None


def death_in(running: Running | None, held: HeldChunk, slot: SlotReader) -> list[Any]:
    return list(settle(Death(0, 1, -9, False, False, None, running, ""), [(held, held.take(slot))]))


def test_a_death_charges_the_running_item_and_hands_the_rest_back_in_stretches() -> None:
    files = SlotFiles.create()
    reader, writer = SlotReader(files), SlotWriter(files)
    held = HeldChunk(1, range_of(11, [0] * 9, first_index=100), [None])
    writer.begin(1)
    writer.spend(2_000_000_000)
    writer.finish(b"5,")
    writer.finish(frame(failed(1)))
    writer.start(2, 0)
    died, outcomes = death_in(reader.running(), held, reader)
    assert (died.seq, died.verdict.position, died.cause) == (11, 2, Cause.CRASH)
    assert b'step "act" task 102' in died.verdict.body
    assert outcomes == RangeOutcomes(0, 1, 11, [Piece(0, 1, b"5")], [failed(1)], [(3, 6)], 2.0, True)
    reader.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Harness]:
    with lanes(1, make=range_of) as harness:
        yield harness


@pytest.fixture
def one(shared: Harness) -> Harness:
    shared.all_ready()
    shared.deaths.clear()
    shared.reports.clear()
    return shared


def test_a_range_of_completed_items_comes_back_as_one_piece(one: Harness) -> None:
    outcomes = one.run([["echo", n] for n in range(1000)])
    assert [text(outcome) for outcome in outcomes] == [str(n) for n in range(1000)]
    (report,) = one.reports
    assert len(report.pieces) == 1
    assert 0.0 < report.seconds < 5.0


def test_finished_items_are_reported_while_the_range_goes_on(one: Harness) -> None:
    seq = one.submit([["echo", 1], ["sys_exit", 1], ["sleep", 0.05], ["sleep", 1.0]])
    one.until(lambda: one.reports)
    first = one.reports[0]
    assert (first.seq, first.done, [piece.position for piece in first.pieces]) == (seq, False, [0, 2])
    assert [outcome.position for outcome in first.exceptions] == [1]
    assert 0.05 <= first.seconds < 0.5
    one.until(lambda: seq in one.done)
    last = one.reports[-1]
    assert last == dataclasses.replace(
        first, pieces=[Piece(3, 1, b"null")], exceptions=[], seconds=last.seconds, done=True, tally=last.tally
    )


def test_errors_name_the_index_of_the_task_and_not_the_place_in_the_range(one: Harness) -> None:
    orders = [["echo", 1], ["os_exit", 3], ["echo", 2]]
    outcomes = one.run(orders, first_index=1000)
    assert kinds(outcomes) == [Kind.COMPLETED, Kind.FAILED, Kind.NOT_RUN]
    assert text(outcomes[1]).startswith('Crashed: step "act" task 1001: its process ended with exit code 3')
    one.all_ready()
    late = one.run([["sleep", 30]], first_index=77, timeout=0.2)
    assert text(late[0]).startswith('TimeoutError: step "act" task 77 exceeded its timeout of 0.2 s')


def test_the_context_of_an_item_is_that_of_its_task(one: Harness) -> None:
    outcomes = one.run(["a", "b", "c"], first_index=5, step="describe")
    assert [json.loads(outcome.body) for outcome in outcomes] == [
        [word, "run", "describe", 5 + n, 1, 0, json.dumps(word)] for n, word in enumerate("abc")
    ]


def test_a_chunk_that_does_not_hold_its_items_fails_and_the_lane_goes_on(one: Harness) -> None:
    chunk = RangeChunk(999, "misbehave", "run", "act", 0, 2, [Segment(b"[1]", 1, 0, 2)])
    assert one.pool.submit(0, chunk)
    one.until(lambda: 999 in one.done)
    assert kinds(one.of(999)) == [Kind.FAILED, Kind.NOT_RUN]
    assert "a chunk of 2 items came with 1 elements" in text(one.of(999)[0])
    assert kinds(one.run([["echo", 1]])) == [Kind.COMPLETED]
    assert eventually(lambda: not one.deaths)
