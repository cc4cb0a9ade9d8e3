"""What msgspec would write as something else without a word: refused, with the path to it."""

from __future__ import annotations

import collections
import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pgflow_mp import Flow, FlowDefinitionError
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import encode_output


class Attribute:
    def __init__(self, name: str) -> None:
        self.name = name


class Attrs:
    """What attrs makes of a class, as far as msgspec looks at it."""

    __attrs_attrs__ = (Attribute("_secret"), Attribute("open"))

    def __init__(self) -> None:
        self._secret, self.open = 1, 2


BERLIN = ZoneInfo("Europe/Berlin")
OLD = datetime.datetime(1890, 1, 1, tzinfo=BERLIN)  # its offset is +00:53:28
ODD = datetime.timezone(datetime.timedelta(hours=5, seconds=15))


@pytest.mark.parametrize(
    "place", [lambda value: value, lambda value: [{"a": value}]], ids=["alone", "inside"]
)
@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Attrs(), "The attribute _secret of Attrs would not be written"),
        (OLD, "A time zone's offset of seconds would be cut to minutes"),
        (datetime.time(1, tzinfo=ODD), "A time zone's offset of seconds would be cut to minutes"),
        (
            datetime.time(1, tzinfo=BERLIN),
            "A time of day in a zone whose offset depends on the day would lose the zone",
        ),
    ],
    ids=["attrs", "datetime", "time", "zone"],
)
def test_what_would_be_lost_is_refused(place: Any, value: Any, words: str) -> None:
    with pytest.raises(OutputError) as caught:
        encode_output(place(value))
    assert str(caught.value) == words + ("" if place(1) == 1 else " (at $[0].a)")
    assert caught.value.hint


def test_times_of_whole_minutes_and_without_a_zone_pass() -> None:
    times = [
        *(datetime.datetime(2024, 7, 1), datetime.datetime(2024, 7, 1, tzinfo=BERLIN), datetime.time(1)),
        datetime.time(1, tzinfo=datetime.timezone(datetime.timedelta(hours=-5, minutes=-30))),
        OLD.astimezone(datetime.UTC),
    ]
    texts = ["2024-07-01T00:00:00", "2024-07-01T00:00:00+02:00", "01:00:00", "01:00:00-05:30"]
    assert encode_output(times).decode().split('"')[1::2] == [*texts, "1889-12-31T23:06:32Z"]


def test_a_class_that_is_not_written_whole_is_refused_as_a_result_by_its_annotation() -> None:
    def make(_: int) -> list[Attrs]:
        return [Attrs()]

    with pytest.raises(FlowDefinitionError, match=r"Attrs \(at \[...\]._secret\)"):
        Flow("demo").map("make", make)


def test_a_text_of_a_class_of_its_own_is_a_text() -> None:
    value = {"a": [collections.UserString("b")], collections.UserString("c"): 1}
    assert encode_output(value) == b'{"a":["b"],"c":1}'
