"""The page and the charts: complete, self-contained, safe."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from pgflow_mp.bench.charts import number, svg
from pgflow_mp.bench.findings import Bar, Chart, Series, SuiteResult, Table
from pgflow_mp.bench.page import render

ENVIRONMENT: dict[str, Any] = {
    "time": "2030-01-01T00:00:00+00:00",
    "cpu": "A <fast> CPU",
    "cores_allowed": 2,
    "postgresql": {"version": "18"},
    "python": "3.12.0",
}


def chart(**options: Any) -> Chart:
    points = [(100.0, 4_000.0), (10_000.0, 20_000.0)]
    return Chart("Throughput", "items", "items/s", [Series("map & map", points)], **options)


def circles(text: str) -> list[tuple[float, float]]:
    found = ET.fromstring(text).findall("circle")
    return [(float(circle.attrib["cx"]), float(circle.attrib["cy"])) for circle in found]


def test_more_is_higher_and_further_right() -> None:
    (x1, y1), (x2, y2) = circles(svg(chart()))
    assert x1 < x2
    assert y1 > y2


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_every_point_lies_within_the_picture(scale: str) -> None:
    for x, y in circles(svg(chart(x_scale=scale, y_scale=scale, reference=(30_000.0, "bar")))):
        assert 0 < x < 640
        assert 0 < y < 340


def test_a_chart_without_points_is_left_out() -> None:
    assert svg(Chart("", "", "", [])) == ""


def test_a_single_point_has_a_place() -> None:
    assert len(circles(svg(Chart("", "x", "y", [Series("s", [(1.0, 1.0)])])))) == 1


def test_the_page_shows_verdicts_and_needs_nothing_from_elsewhere() -> None:
    result = SuiteResult("s", "A suite")
    result.tables.append(Table("t", ("a", "b"), [("<x>", "1")]))
    result.charts.append(chart())
    result.bars += [Bar.at_least("speed", 2.0, 3.0), Bar.at_most("cost", 1.0, 1.3)]
    text = render(ENVIRONMENT, [result])
    assert '<span class="missed">missed</span> speed: 2 (at least 3)' in text
    assert '<span class="holds">holds</span> cost: 1 (at most 1.3)' in text
    assert "<td>&lt;x&gt;</td>" in text
    assert "A &lt;fast&gt; CPU" in text
    for word in ("http:", "https:", "<script", "@import", "url("):
        assert word not in text


@pytest.mark.parametrize(
    ("value", "text"), [(20_000.0, "20k"), (2.5e6, "2.5M"), (0.1, "0.1"), (950.0, "950")]
)
def test_numbers_on_axes_are_short(value: float, text: str) -> None:
    assert number(value) == text
