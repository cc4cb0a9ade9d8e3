"""What a worker shows of itself: live, as lines, as JSON."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from functools import partial

import pytest
from rich.console import Console

from pgflow_mp import logs
from pgflow_mp.executors.events import Cause
from pgflow_mp.executors.verdicts import crash_error, timeout_error
from pgflow_mp.observe import text
from pgflow_mp.observe.live import LiveObserver
from pgflow_mp.observe.observer import FailedAttempt, ProgressSnapshot, StepSnapshot
from pgflow_mp.observe.plain import PlainObserver, failure_line


def step(slug: str, status: str, done: int, total: int | None, **more: float) -> StepSnapshot:
    eta = more.get("eta")
    return StepSnapshot(
        "flow", slug, status, done, total, int(more.get("failed", 0)), more.get("rate", 0.0), eta
    )


def snapshot(*steps: StepSnapshot, elapsed: float = 1.0, connection: str = "connected") -> ProgressSnapshot:
    return ProgressSnapshot(tuple(steps), 2, 4, 0.83, 12, 3, connection, elapsed)


class Lines:
    """What was written to standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def __call__(self) -> list[str]:
        self._text += self._capsys.readouterr().err
        return self._text.splitlines()


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    yield Lines(capsys)
    logger = logging.getLogger("pgflow_mp")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture
def live() -> Iterator[LiveObserver]:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24, color_system=None)
    observer = LiveObserver("flow  run 1234", console=console)
    yield observer
    observer.close()


def drawn(observer: LiveObserver) -> list[str]:
    """The picture as it would be drawn now, on a console that is not being redrawn meanwhile."""
    paper = Console(file=io.StringIO(), width=80, color_system=None)
    with paper.capture() as capture:
        paper.print(observer._render())
    return [line.rstrip() for line in capture.get().splitlines()]


def test_short_work_is_quiet_and_long_work_has_a_line_every_few_seconds(lines: Lines) -> None:
    logs.set_up("info")
    observer = PlainObserver()
    for tenths in range(200):
        moving = step("count", "started", tenths * 10, 4000, rate=100.0, eta=20.0, failed=2)
        observer.on_progress(snapshot(moving, elapsed=tenths / 10))
        if tenths == 49:
            assert lines() == []
    said = lines()
    assert len(said) == 3
    assert said[0].endswith("info  count 500/4,000 (12%) 100/s, 20.0 s left, 2 failed; 2/4 busy, used 83%")


def test_an_idle_worker_says_nothing(lines: Lines) -> None:
    logs.set_up("info")
    observer = PlainObserver()
    for second in range(100):
        observer.on_progress(ProgressSnapshot((), 0, 4, 0.0, 0, 0, "connected", float(second)))
    assert len(lines()) == 1


def test_only_the_first_failures_are_told_at_level_info(lines: Lines) -> None:
    logs.set_up("info")
    observer = PlainObserver()
    for index in range(100):
        observer.on_failure(FailedAttempt("run", "parse", index, 1, "ValueError: no\n\nTraceback ...", True))
    said = lines()
    assert len(said) == 21
    assert said[0].endswith("error parse[0] failed: ValueError: no")
    assert said[-1].endswith("further failures are logged at level verbose")


def test_lines_about_other_runs_name_them(lines: Lines, live: LiveObserver) -> None:
    logs.set_up("info")
    observer = PlainObserver(own_run="12345678-own")
    for run in ("12345678-own", "87654321-other"):
        observer.on_failure(FailedAttempt(run, "parse", 7, 1, "ValueError: no", True))
    own, other = lines()
    assert own.endswith("error parse[7] failed: ValueError: no")
    assert other.endswith("error run 87654321 parse[7] failed: ValueError: no")


def test_a_json_line_is_an_object_with_its_fields_and_no_password(lines: Lines) -> None:
    logs.set_up("verbose", "json")
    failure = FailedAttempt("r1", "parse", 7, 2, "ValueError: bad\nline", False, lambda: b'"a.gz"')
    PlainObserver().on_failure(failure)
    logging.getLogger("pgflow_mp.db").warning("lost postgresql://me:very-secret@host/db")
    first, second = map(json.loads, lines())
    assert first["message"] == 'parse[7] "a.gz" attempt 2 failed, retrying: ValueError: bad'
    assert (first["level"], first["run"], first["index"], first["final"]) == ("warn", "r1", 7, False)
    assert first["input"] == '"a.gz"'
    assert second["message"] == "lost postgresql://me:***@host/db"
    assert second["logger"] == "pgflow_mp.db"


def test_the_picture_has_a_line_per_step_and_one_for_the_worker(live: LiveObserver) -> None:
    live.on_state("running")
    live.on_progress(
        snapshot(
            step("list", "completed", 1, 1, rate=1.0),
            step("parse", "started", 500, 2000, rate=123.4, eta=75.0, failed=3),
            step("maybe", "skipped", 0, None),
            step("report", "created", 0, 1),
        )
    )
    title, first, second, third, fourth, status = drawn(live)
    assert title == "flow  run 1234"
    assert first.startswith("✓ list")
    assert first.endswith("1/1")
    assert second.startswith("▸ parse")
    assert second.endswith("500/2,000 25% 123/s 1:15 left 3 failed")
    assert "skipped" in third
    assert fourth.startswith("· report")
    assert "2/4 workers busy · used 83% · 12 queued · 3 to record" in status
    assert max(map(len, drawn(live))) <= 80


def test_a_failure_has_one_line_or_two_and_none_is_longer_than_the_screen(live: LiveObserver) -> None:
    live.close()
    live.console.file = paper = io.StringIO()
    for given in ("a.gz", "日本" * 99, "x" * 10_000):
        raw = json.dumps({"path": given}, ensure_ascii=False).encode()
        error = "ValueError: it is no archive of ours, and not one of theirs either, or so it seems to us"
        live.on_failure(FailedAttempt("r", "parse", 7, 1, error, False, partial(bytes, raw)))
    live.on_failure(FailedAttempt("r", "parse", 8, 2, "ValueError: no", True, lambda: b'"a.gz"'))
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[\d;?]*\w", "", paper.getvalue()).splitlines()]
    assert lines[::2][:3] == [
        'parse[7] {"path": "a.gz"}',
        'parse[7] {"path": "' + "日本" * 12 + "...",
        'parse[7] {"path": "' + "x" * 24 + '..."}',
    ]
    what = "  attempt 1 failed, retrying: ValueError: it is no archive of ours, and not on"
    assert [line[:78] for line in lines[1:6:2]] == [what] * 3
    assert lines[6:] == ['parse[8] "a.gz" failed: ValueError: no']


def test_trouble_with_the_database_stands_in_the_last_line(live: LiveObserver) -> None:
    reason = "Cannot connect to me@host:5432/db: nothing accepts connections there (connection failed: ...)"
    live.on_progress(snapshot(connection=f"waiting for the database: {reason}"))
    assert drawn(live)[-1].endswith(" waiting for the database: nothing accepts connections there")


def test_many_steps_fit_the_screen_and_those_that_move_are_seen(live: LiveObserver) -> None:
    steps = [step(f"waits_{number}", "created", 0, None) for number in range(50)]
    steps[40] = step("moves", "started", 3, 10, rate=1.0)
    live.on_progress(snapshot(*steps))
    picture = drawn(live)
    assert len(picture) < 24
    assert any("moves" in line for line in picture)
    assert any("... 30 more steps" in line for line in picture)


def test_long_names_keep_both_ends(live: LiveObserver) -> None:
    live.on_progress(snapshot(step("a_very_long_name_that_ends_in_12", "started", 1, 10, rate=1.0)))
    assert "▸ a_very_long_…_ends_in_12 " in drawn(live)[1]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        ("ValueError: bad\n\nTraceback (most recent call last):\n  ...", "ValueError: bad"),
        ("Traceback (most recent call last):\n  File x\nValueError: bad", "ValueError: bad"),
        ("pgflow_mp.errors.PermanentError: no", "PermanentError: no"),
        ("a\x1b[31m\x07b", "a [31m b"),
        ("", "no error text"),
        ("x" * 500, "x" * 197 + "..."),
    ],
)
def test_an_error_is_told_in_one_line(error: str, line: str) -> None:
    assert text.essence(error) == line


def test_a_line_that_begins_with_its_item_does_not_name_it_again() -> None:
    """There are 80 columns, and what happened is at the end."""
    errors = {
        timeout_error(
            "words", 7, 3
        ): "TimeoutError: exceeded its timeout of 3 s and its process was terminated",
        crash_error(
            "words", 7, Cause.CRASH, "signal 6 (SIGABRT)"
        ): "Crashed: its process died from signal 6 (SIGABRT)",
        timeout_error("words", 8, 3): timeout_error("words", 8, 3),
    }
    for error, line in errors.items():
        failure = FailedAttempt("run", "words", 7, 1, error, True)
        assert failure_line(failure, "") == f"words[7] failed: {line}"
        assert failure_line(failure, "{}") == f"words[7] {{}} failed: {line}"


def test_numbers_are_told_in_few_words() -> None:
    rates = [text.rate(value) for value in (12345.6, 12.34, 0.5, 0.001)]
    assert rates == ["12,346/s", "12.3/s", "30.0/min", "3.6/h"]
    durations = [text.duration(value) for value in (0.44, 59.94, 245.0, 7384.0)]
    assert durations == ["0.4 s", "59.9 s", "4:05", "2:03:04"]
    sizes = [text.size(value) for value in (1, 999, 1234, 5_600_000)]
    assert sizes == ["1 byte", "999 bytes", "1.2 kB", "5.6 MB"]
    assert text.percent(9999, 10000) == "99%"
    assert (text.plural(1, "item"), text.plural(1000, "item")) == ("1 item", "1,000 items")
