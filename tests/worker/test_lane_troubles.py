"""What is told of lanes that do not start: once what is the same everywhere."""

from __future__ import annotations

import pytest

from pgflow_mp.errors import OnStartFailed
from pgflow_mp.executors.events import LaneFailedToStart
from pgflow_mp.observe.observer import NullObserver
from pgflow_mp.worker import lane_troubles
from pgflow_mp.worker.lane_troubles import LaneTroubles


class Said(NullObserver):
    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def on_message(self, level: str, text: str) -> None:
        self.lines.append((level, text))


def test_the_same_trouble_is_one_line_until_a_minute_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    said, failed = Said(), list[BaseException]()
    troubles = LaneTroubles(said, failed.append)
    for lane in (0, 1, 0, 1):
        troubles.heard(LaneFailedToStart(lane, 0, "no model", "", 0.5))
    troubles.heard(LaneFailedToStart(0, 0, "another one", "", 0.5))
    errors = [text.partition(": ")[2] for level, text in said.lines if level == "error"]
    assert errors == ["no model", "another one"]
    monkeypatch.setattr(lane_troubles, "AGAIN", 0.0)
    troubles.heard(LaneFailedToStart(0, 0, "no model", "", 0.5))
    assert said.lines[-1][0] == "error"
    fatal = OnStartFailed("no model\nTraceback ...")
    troubles.heard(LaneFailedToStart(0, 0, "no model", "", 0.5, fatal))
    assert (said.lines[-1][0], failed) == ("debug", [fatal])  # the error tells it
