"""Drawings of runs are well-formed, harmless whatever names are in them, bounded in size, and true."""

from __future__ import annotations

import random
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pgflow_mp.db.reads.lists import Setting
from pgflow_mp.observe.drawings.dag import conditions_of, dag
from pgflow_mp.observe.drawings.histogram import histogram
from pgflow_mp.observe.drawings.layout import BOX_HEIGHT, BOX_WIDTH, arrange
from pgflow_mp.observe.drawings.palette import KNOWN_STATES, STYLE
from pgflow_mp.observe.drawings.svg import seconds, ticks
from pgflow_mp.observe.drawings.timeline import MOST_ROWS, timeline
from pgflow_mp.observe.drawings.trend import Curve, trend
from pgflow_mp.observe.run_reports import ItemCounts, StepReport
from pgflow_mp.observe.work_reports import SpanReport
from pgflow_mp.time_buckets import bucket_of

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def step_of(slug: str, parents: Sequence[str] = (), state: Any = "pending", **counts: int) -> StepReport:
    """A step, a map where ``counts`` are given; skip reasons and errors are its slug."""
    return StepReport(
        step_slug=slug,
        step_type="map" if counts else "single",
        depends_on=[*parents],
        status="started",
        state=state,
        storage=None,
        initial_tasks=counts.get("items"),
        remaining_tasks=None,
        failed_tasks=0,
        cancelled_tasks=0,
        skipped_tasks=0,
        counts=ItemCounts(**counts),
        next_retry=None,
        workers=1,
        error_message=slug,
        skip_reason=slug if state == "skipped" else None,
        started_at=NOW if counts else None,
        finished_at=None,
        seconds=None,
    )


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def span_of(
    worker: str,
    lane: int,
    step: str,
    begin: float,
    end: float,
    items: int = 1,
    failed: int = 0,
    busy: float = 1,
) -> SpanReport:
    """What a lane did between two times after NOW, in ``busy`` of which its handlers ran."""
    return SpanReport(
        worker=worker,
        lane=lane,
        step_slug=step,
        first_index=0,
        items=items,
        failed=failed,
        outcome="failed" if failed else "completed",
        seconds=(end - begin) * busy,
        started_at=after(begin),
        ended_at=after(end),
    )


def counts_of(times: dict[float, int]) -> list[int]:
    """How many items took how long, by bucket."""
    counts = [0] * 88
    for time, items in times.items():
        counts[bucket_of(time)] += items
    return counts


HOSTILE = "</text></svg><script>alert(1)</script>\" onload='x' & \x00\x1b[31m\ud800 \u202e"


def parsed(drawn: str) -> ET.Element:
    """The drawing as XML without namespaces; raises where it is not well-formed."""
    return ET.fromstring(drawn.replace(' xmlns="http://www.w3.org/2000/svg"', ""))


def texts(drawn: str, name: str) -> list[str]:
    return [each.text or "" for each in parsed(drawn).iter(name)]


def hostile_drawings() -> Iterator[str]:
    step = step_of(HOSTILE, (), "skipped", items=3)
    yield dag([step], HOSTILE, conditions={HOSTILE: HOSTILE}, link=lambda slug: f"/{slug}")
    spans = [span_of(HOSTILE, 0, HOSTILE, 0, 1, failed=1), span_of("w", 1, "s", 0, 1)]
    yield timeline(spans, NOW, after(1), HOSTILE)
    yield histogram(counts_of({1.5: 3}), name=HOSTILE, what=HOSTILE)
    yield trend([Curve(HOSTILE, [(0, 1), (1, 2)])], name=HOSTILE, limit=(3, HOSTILE))


@pytest.mark.parametrize("number", range(4))
def test_names_in_drawings_are_text_and_nothing_else(number: int) -> None:
    drawn = list(hostile_drawings())[number]
    root = parsed(drawn)
    kinds = {each.tag for each in root.iter()}
    assert kinds <= {"div", "svg", "title", "desc", "g", "rect", "path", "text", "a"}
    attributes = {key for each in root.iter() for key in each.attrib}
    assert not [key for key in attributes if key.startswith("on") or key in ("style", "src")]
    assert re.search("[\x00-\x08\x1b\ud800\u202e]", drawn) is None
    svg = next(root.iter("svg"))
    assert svg.get("role") == "img"
    assert svg.get("width") is None
    assert "<script>" in (svg.get("aria-label") or "")


def test_what_there_is_nothing_of_is_said() -> None:
    assert "no steps" in dag([])
    assert "no item has ended" in histogram(counts_of({}))
    early = timeline([span_of("w", 0, "s", 0, 1)], after(5), after(9))
    for drawn in (timeline([], NOW, after(1)), early, trend([], name="x")):
        assert "nothing was recorded" in texts(drawn, "text")


def flow_of(steps: int, seed: int) -> dict[str, list[str]]:
    chosen = random.Random(seed)
    return {
        f"s{number}": [
            f"s{each}" for each in chosen.sample(range(max(0, number - 14), number), min(number, 2))
        ]
        for number in range(steps)
    }


@pytest.mark.parametrize(
    "parents",
    [
        {"only": []},
        {"root": [], **{f"w{n}": ["root"] for n in range(23)}, "join": [f"w{n}" for n in range(23)]},
        flow_of(60, 1),
        flow_of(60, 2),
        {f"c{n}": [f"c{n - 1}"] if n else [] for n in range(30)},
    ],
    ids=["one", "wide", "sixty", "another sixty", "chain"],
)
def test_boxes_lie_apart_below_their_parents_and_no_edge_passes_through_one(
    parents: dict[str, list[str]],
) -> None:
    laid = arrange(parents)
    boxes = list(laid.boxes.items())
    for number, (_, one) in enumerate(boxes):
        assert BOX_WIDTH / 2 <= one.middle <= laid.width - BOX_WIDTH / 2
        assert one.top + BOX_HEIGHT <= laid.height
        for _, other in boxes[number + 1 :]:
            assert one.top != other.top or abs(one.middle - other.middle) >= BOX_WIDTH
    assert set(laid.edges) == {(parent, child) for child, above in parents.items() for parent in above}
    for (parent, child), points in laid.edges.items():
        assert laid.boxes[parent].top < laid.boxes[child].top
        for x, top, _ in points[1:-1]:
            through = [step for step, box in boxes if box.top == top and abs(box.middle - x) < BOX_WIDTH / 2]
            assert not through, f"{parent} -> {child} passes through {through}"
    assert laid.width <= 1600, "boxes can be read without a scroll bar of their own"


def test_steps_in_a_circle_or_of_unknown_parents_are_drawn_all_the_same() -> None:
    drawn = dag([step_of("a", ["b"]), step_of("b", ["a"]), step_of("c", ["gone"])])
    assert {"a", "b", "c"} <= set(texts(drawn, "text"))


def test_a_step_tells_its_state_counts_and_condition() -> None:
    long = "parse_every_document_that_was_fetched"
    steps = [
        step_of("fetch", (), "completed"),
        step_of(
            long,
            ["fetch"],
            "running",
            items=1_000,
            completed=900,
            failed=12,
            tolerated=3,
            running=8,
            waiting=80,
        ),
        step_of("rare", ["fetch"], "skipped"),
        step_of("last", [long], "completed_with_failures", items=20, completed=18, failed=2, tolerated=2),
    ]
    conditions = conditions_of(
        [
            Setting(None, "timeout", "3 s"),
            Setting("rare", "when", '{"lang": "de"}'),
            Setting("rare", "unless", '{"x": 1}'),
            Setting("rare", "when_unmet", "skip-cascade"),
            Setting("last", "when_unmet", "skip"),
        ]
    )
    drawn = dag(steps, conditions=conditions, link=lambda slug: f"/steps/{slug}")
    told = (
        "1,000 items; 900 completed; 12 failed (3 tolerated); 8 running; 80 waiting for a retry; after fetch"
    )
    assert f"{long}: running; {told}" in texts(drawn, "title")
    met = 'its input has {"lang": "de"} and has not {"x": 1}'
    rule = f"runs if {met}, else is skipped with all that depends on it"
    assert conditions == {"rare": rule}
    assert rule in texts(drawn, "title")
    assert "rare: skipped; after fetch; " + rule + "; skip reason: rare" in texts(drawn, "title")
    said = "4 steps: 1 completed, 1 running, 1 skipped, 1 completed with failures"
    assert texts(drawn, "desc") == [said]
    shown = texts(drawn, "text")
    assert "parse_eve…s_fetched" in shown
    assert {"12 failed · 1k", "2 failed · 20"} <= set(shown)
    assert [each.get("href") for each in parsed(drawn).iter("a")] == [
        f"/steps/{each.step_slug}" for each in steps
    ]


def test_bars_never_leave_their_box() -> None:
    much = step_of("a", (), "running", items=10, completed=9, failed=9, running=9, waiting=9)
    little = step_of("b", (), "running", items=10**9, completed=1, failed=1, running=1, waiting=1)
    for each in parsed(dag([much, little])).iter("g"):
        box = next(one for one in each.iter("rect") if one.get("class") == "box")
        right = float(box.get("x", "")) + float(box.get("width", ""))
        assert all(
            float(one.get("x", "")) + float(one.get("width", "")) <= right + 0.2 for one in each.iter("rect")
        )


def spans(workers: int, lanes: int, each: int) -> Iterator[SpanReport]:
    chosen = random.Random(1)
    for worker in range(workers):
        for lane in range(lanes):
            for place in range(each):
                begin = 100 * place / each
                step = f"step{chosen.randrange(12)}"
                yield span_of(f"host-{worker}:1", lane, step, begin, begin + 90 / each, 2, place % 50 == 0)


def test_a_hundred_thousand_spans_are_a_drawing_of_bounded_size() -> None:
    drawn = timeline(spans(100, 10, 100), NOW, after(100))
    assert len(drawn) < 300_000
    rows = [each.text for each in parsed(drawn).iter("text") if "end" in (each.get("class") or "")]
    assert len([each for each in rows if each and "host" in each]) == MOST_ROWS - 1
    assert rows.index("host-9:1") < rows.index("host-10:1")
    assert "53 other workers" in rows
    assert texts(drawn, "desc") == ["1,000 lanes over 1.67 min, 200,000 items of 12 steps"]


def test_a_lane_s_row_tells_how_busy_it_was() -> None:
    two = [
        span_of("w", 0, "a", 0, 5),
        span_of("w", 0, "b", 5, 10, 4, failed=2),
        span_of("w", 1, "a", 0, 2.5),
    ]
    told = texts(timeline(two, NOW, after(10)), "title")
    assert "lane 0: 5 items, busy 100%, 2 failures" in told
    assert "lane 1: 1 item, busy 25%" in told
    half = timeline([span_of("w", 0, "a", 0, 10, busy=0.5)], NOW, after(10))
    assert "lane 0: 1 item, busy 50%" in texts(half, "title")
    assert "full2" in half


def test_workers_whose_names_differ_in_their_midst_have_rows_of_their_own() -> None:
    two = [span_of(f"a-host-with-a-long-{name}-name.example.org", 0, "a", 0, 1) for name in ("good", "bad")]
    told = texts(timeline(two, NOW, after(1)), "title")
    assert len([each for each in told if "lane 0: 1 item" in each]) == 2


def test_a_histogram_shows_the_single_item_in_the_tail() -> None:
    drawn = histogram(counts_of({0.0015: 1_000_000, 12.5: 1}), slowest=12.5)
    bars = list(parsed(drawn).iter("rect"))
    assert [each.get("class") for each in bars] == ["bar", "bar tail"]
    assert float(bars[1].get("height", "")) >= 1.5
    assert "10 s to 13.3 s: 1 item" in texts(drawn, "title")
    assert "slowest 12.5 s; 1 item beyond p99" in texts(drawn, "text")


@pytest.mark.parametrize("time", [0.0, 1e-7, 0.003, 2.0, 4000.0, 3e6])
def test_any_times_fit_the_histogram(time: float) -> None:
    for slowest in (None, time):
        drawn = parsed(histogram(counts_of({time: 7}), slowest=slowest))
        marks = [each.text or "" for each in drawn.iter("text")]
        assert any(each.startswith("p50") for each in marks)
        assert all(0 <= float(each.get("x", "-1")) <= 640 for each in drawn.iter("text"))


@pytest.mark.parametrize("few", [0.0011, 0.005, 0.035, 0.5, 3.0, 9.5])
@pytest.mark.parametrize("many", [0.001, 0.0068, 0.4, 9.0])
@pytest.mark.parametrize("rest", [1e-5, 0.001, 0.08, 10.0])
def test_the_names_of_marks_are_seen_whole_and_apart(many: float, few: float, rest: float) -> None:
    drawn = parsed(histogram(counts_of({many: 900, few: 95, rest: 5})))
    names = [each for each in drawn.iter("text") if (each.text or "").startswith(("p50", "p99"))]
    extents = []
    for each in names:
        wide, anchor = 7.2 * len(each.text or ""), (each.get("class") or "").split()[-1]
        left = float(each.get("x", "")) - {"start": 0.0, "mid": wide / 2, "end": wide}[anchor]
        extents.append((left, left + wide, each.get("y")))
    for each in drawn.iter("text"):
        if "mid" in (each.get("class") or "") and "faint" in (each.get("class") or ""):
            assert float(each.get("x", "")) <= 640 - 3.2 * len(each.text or ""), each.text
    assert all(left >= 0 and right <= 640 for left, right, _ in extents), extents
    first, second = sorted(extents)
    assert first[2] != second[2] or first[1] <= second[0], extents


def test_a_curve_has_gaps_where_nothing_is_known_and_a_bounded_number_of_points() -> None:
    drawn = trend([Curve("a", [(0, 1), (1, 2), (2, None), (3, 4)])], name="x")
    assert len([each for each in parsed(drawn).iter("path") if each.get("class") == "curve hue0"]) == 2
    assert len(trend([Curve("a", [(n, n) for n in range(100_000)])], name="x")) < 20_000
    assert texts(drawn, "desc") == ["over 3 s: a: mean 2.33, highest 4"]


def test_times_and_axes_are_round() -> None:
    assert [seconds(each) for each in (0, 25e-6, 0.0015, 0.9999, 59, 60, 5400, 2 * 86400)] == [
        *("0", "25 µs", "1.5 ms", "1 s", "59 s", "1 min", "1.5 h", "2 d")
    ]
    assert ticks(7) == [0, 2, 4, 6, 8]
    assert ticks(0) == [0, 1]


def test_the_style_has_every_colour_in_both_modes_and_loads_nothing() -> None:
    used = set(re.findall(r"var\((--pgd-\w+)\)", STYLE))
    blocks = re.findall(r":root[^{]*\{([^}]*)\}", STYLE)
    assert len(blocks) == 4
    assert all(used <= set(re.findall(r"(--pgd-\w+):", block)) for block in blocks)
    assert not re.search(r"url\(|@import|</", STYLE)
    assert all(f"is-{state}" in dag([step_of("a", (), state)]) for state in KNOWN_STATES)
    assert "is-other" in dag([step_of("a", (), "weird state")])
