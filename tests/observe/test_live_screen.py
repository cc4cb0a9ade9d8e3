"""The live picture fits terminals of every size, and says what there is to wait for."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from pgflow_mp.observe.failure_tally import FailureTally
from pgflow_mp.observe.live_screen import KEYS, Scene, Trends, draw
from pgflow_mp.observe.observer import FailedAttempt, LaneSnapshot, ProgressSnapshot, StepSnapshot
from pgflow_mp.observe.sparks import History, spark


def step(slug: str = "parse", status: str = "started", done: int = 500, **more: Any) -> StepSnapshot:
    start = StepSnapshot("encode", slug, status, done, 2000, 0, 123.4, 75.0)
    return dataclasses.replace(start, **more)


LANES = (
    LaneSnapshot(0, 4711, "encode", "r", "parse", 17, 2, 12.5, 0.97, 123_456_789),
    LaneSnapshot(1, 4712),
)
FULL = step(spread=12.0, running=64, waiting=7, next_in=33.0, p50=0.0012, p99=0.34, failed=3)
SNAPSHOT = ProgressSnapshot(
    (
        step("list", "completed", 1, total=1, rate=0.0, eta=None),
        FULL,
        step("a_very_long_name_of_a_step_that_goes_on_and_on", "created", 0, total=None, rate=0.0, eta=None),
        step("maybe", "skipped", 0, total=None, rate=0.0, eta=None),
    ),
    2,
    2,
    0.83,
    12,
    3,
    "connected",
    9.0,
    LANES,
    1.9,
    312_000_000,
    3,
)


def scene(snapshot: ProgressSnapshot = SNAPSHOT, **more: Any) -> Scene:
    trends, tally = Trends(), FailureTally()
    for second in range(90):
        trends.add(float(second), snapshot)
    for index in range(40):
        text = f"ValueError: bad record {index} in 'file{index}.gz'" if index % 2 else f"KeyError: {index}"
        tally.add(FailedAttempt("r", "parse", index, 1, text, index % 4 == 1, lambda: b'"a.gz"'))
    start = Scene("encode  run 1234", snapshot, 75.0, "*", trends=trends, groups=tuple(tally.groups()))
    return dataclasses.replace(start, has_keys=True, **more)


def drawn(scene: Scene, width: int = 80, height: int = 24) -> list[str]:
    return [line.plain.rstrip() for line in draw(scene, width, height)]


@pytest.mark.parametrize("panel", ["", *KEYS])
@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal_nor_are_there_too_many(width: int, panel: str) -> None:
    steps = tuple(step(f"step_{n}_with_a_name", waiting=n) for n in range(40))
    for snapshot in (SNAPSHOT, dataclasses.replace(SNAPSHOT, steps=steps)):
        for height in (16, 24, 50):
            lines = draw(scene(snapshot, panel=panel), width, height)
            assert max(line.cell_len for line in lines) < width
            assert len(lines) < height


def test_at_eighty_columns_details_stand_below_their_step() -> None:
    lines = drawn(scene())
    assert lines[0] == "encode  run 1234"
    assert lines[2].startswith("▸ parse")
    assert lines[2].endswith("500/2,000 25% 123/s 1:15 left ±0:12 3 failed")
    assert lines[3] == "    7 wait, next in 33 s · 64 running · items take 1.2 ms, 99% within 340 ms"
    assert lines[-3] == "! 20x ValueError: bad record * in '*' · 20x KeyError: *"
    assert lines[-2].startswith("  busy ▇")
    assert "cpu ████████" in lines[-2]
    assert lines[-2].endswith("312.0 MB")
    assert lines[-1].startswith("* 1:15 · 2/2 workers busy · 12 queued · 3 to record · 3 other runs here")


def test_wide_terminals_have_all_of_a_step_in_its_line_and_narrow_ones_what_matters() -> None:
    wide = drawn(scene(), 200)
    assert wide[2].endswith("99% within 340 ms · longest now [17] 12.5 s")
    assert wide[-1].endswith("f failures · w workers · p pause · q quit · ? help")
    narrow = drawn(scene(), 60)
    (row,) = [line for line in narrow if line.startswith("▸ parse")]
    assert "500/2,000" in row
    assert "1:15 left" in row
    assert any(line.startswith("    7 wait, next in 33 s") for line in narrow)
    assert "▸ parse" in drawn(scene(), 30)[2]


def test_a_step_of_which_all_waits_says_so_instead_of_a_time_that_is_left() -> None:
    waiting = step(done=1995, waiting=5, next_in=34.6, running=0)
    assert waiting.only_waits
    lines = drawn(scene(dataclasses.replace(SNAPSHOT, steps=(waiting,), lanes_busy=0)))
    assert lines[1].endswith(" 5 wait, next in 35 s")
    assert " left" not in lines[1]
    assert not step(done=1990, waiting=5).only_waits


def test_panels_show_groups_of_failures_and_what_each_process_does() -> None:
    failures = drawn(scene(panel="f"))
    assert '  parse  10 failed, 10 retried: ValueError: bad record * in...  e.g. [1] "a.gz"' in failures
    assert not any(line.startswith("! ") for line in failures)
    workers = drawn(scene(panel="w"))
    (busy,) = [line for line in workers if "pid 4711" in line]
    assert busy.startswith("   0 pid 4711    parse[17] attempt 2 12.5 s")
    assert busy.endswith("cpu 97% 123.5 MB")
    assert any("pid 4712" in line and line.endswith("idle") for line in workers)
    shown = drawn(scene(panel="?"))
    assert all(any(line.startswith(f"  {key}  ") for line in shown) for key in KEYS)


def test_a_pause_and_a_lost_connection_are_said() -> None:
    paused = drawn(scene(dataclasses.replace(SNAPSHOT, paused=True)))
    assert "paused: p goes on" in paused[-1]
    away = "waiting for the database: Cannot connect to me@host:5432/db: no answer (connection ...)"
    assert drawn(scene(dataclasses.replace(SNAPSHOT, connection=away)))[-1] == (
        "* waiting for the database: no answer"
    )
    backoff = dataclasses.replace(SNAPSHOT, steps=(step(total=None, eta=None),), waiting=4, next_in=8.0)
    assert "4 wait, next in 8 s" in drawn(scene(backoff))[-1]


def test_a_terminal_without_unicode_gets_ascii() -> None:
    plain = dataclasses.replace(scene(), is_plain=True)
    text = "\n".join(drawn(plain)).replace("·", "").replace("±", "")
    assert text.isascii(), text


def test_sparks_are_averages_of_the_last_minute() -> None:
    history = History()
    assert history.values(10) == []
    for second in range(120):
        history.add(second, 1.0 if second >= 90 else 0.0)
        history.add(second + 0.5, 1.0 if second >= 90 else 0.0)
    assert history.values(6) == [0, 0, 0, 1, 1, 1]
    assert spark([0.0, 0.5, 1.0, 9.0], 1.0) == "▁▅██"
    assert spark([0.0, 1.0], 0.0) == "▁▁"
