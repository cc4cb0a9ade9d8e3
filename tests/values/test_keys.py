"""Keys that are one in JSON: nothing of them is lost without a word."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from pgflow_mp import Flow, FlowDefinitionError
from pgflow_mp.errors import InputError
from pgflow_mp.testing import run_inline
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.inputs import encode_input, read_input
from pgflow_mp.values.outputs import encode_output


class Number(enum.Enum):
    ONE = 1
    TEXT = "1"


class Whole(enum.IntEnum):
    ONE = 1


class Holder(msgspec.Struct):
    counts: dict[Any, int]


@dataclasses.dataclass
class Record:
    counts: dict[Any, int]


class Ordered(dict[Any, int]):
    pass


class Headers(Mapping[str, str]):
    """A mapping that has a name twice, as HTTP and mail headers do."""

    def __getitem__(self, name: str) -> str:
        return name

    def __iter__(self) -> Iterator[str]:
        return iter(("to", "to"))

    def __len__(self) -> int:
        return 2


ZERO = uuid.UUID(int=0)
DAY = date(2024, 1, 2)
LOST: list[tuple[Any, str]] = [
    ({7: "a", "7": "b"}, "The keys 7 and '7' of a dict are both \"7\" in JSON"),
    ({1.0: 1, "1.0": 2}, "The keys 1.0 and '1.0' of a dict are both \"1.0\" in JSON"),
    ({Number.ONE: 1, Number.TEXT: 2}, "of a dict are both"),
    ({Whole.ONE: 1, "1": 2}, "of a dict are both"),
    ({ZERO: 1, str(ZERO): 2}, "of a dict are both"),
    ({DAY: 1, "2024-01-02": 2}, "of a dict are both"),
    ({Decimal("1.50"): 1, "1.50": 2}, "of a dict are both"),
    ({float("nan"): 1, "nan": 2}, "of a dict are both"),
    ({True: 1, "true": 2}, "The keys True and 'true' of a dict are both \"true\" in JSON"),
    ({Path("a"): 1, "a": 2}, "of a dict are both"),
    ([{"a": 1}, {"b": ({"x": 1}, {1: 1, "1": 2})}], "in JSON (at $[1].b[1])"),
    ({"a": Holder({1: 1, "1": 2})}, "in JSON (at $.a.counts)"),
    ([Record({1: 1, "1": 2})], "in JSON (at $[0].counts)"),
    (Ordered({1: 1, "1": 2}), "of a dict are both"),
    (MappingProxyType({1: 1, "1": 2}), "of a dict are both"),
    ({"a": [Headers()]}, "holds a key more than once"),
    (msgspec.Raw(b'{"a":1,"b":[{"c":1,"c":2}]}'), "an object with the key 'c' more than once"),
]


@pytest.mark.parametrize(("value", "words"), LOST, ids=[words for _, words in LOST])
def test_keys_that_are_one_in_json_are_refused_with_their_path(value: Any, words: str) -> None:
    with pytest.raises(OutputError) as caught:
        encode_output(value)
    assert words in str(caught.value)
    with pytest.raises(InputError, match="The input cannot be stored as JSON"):
        encode_input(value)


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ({7: "a", "8": "b"}, b'{"7":"a","8":"b"}'),
        ({1: 1, 1.5: 2}, b'{"1":1,"1.5":2}'),
        ({True: 1, False: 2, "1": 3}, b'{"true":1,"false":2,"1":3}'),
        ([{1: 1}, {"1": 1}], b'[{"1":1},{"1":1}]'),
        ({ZERO: 1, DAY: 2}, b'{"00000000-0000-0000-0000-000000000000":1,"2024-01-02":2}'),
    ],
)
def test_keys_of_several_types_that_differ_are_kept(value: Any, json: bytes) -> None:
    assert encode_output(value) == json


def test_an_item_with_such_keys_fails_for_good_once() -> None:
    calls: list[int] = []
    flow = Flow("keys", max_attempts=3)

    @flow.map
    def bins(n: int) -> dict[Any, str]:
        calls.append(n)
        return {n: "a", str(n): "b"}

    with pytest.raises(Exception, match=r"index 0, cannot be stored: The keys 7 and '7' of a dict"):
        run_inline(flow, [7])
    assert calls == [7]


@pytest.mark.parametrize("name", ["when", "unless"])
@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ({1: "a", "1": "b"}, "keys 1 and '1' are both \"1\""),
        ({"a": [{True: 1, "true": 2}]}, "keys True and 'true' are both \"true\""),
        ({"a": {None: 1, "null": 2}}, "keys None and 'null' are both \"null\""),
        ({1.0: 1, "1.0": 2}, "keys 1.0 and '1.0' are both \"1.0\""),
    ],
)
def test_a_pattern_with_such_keys_is_refused(name: str, pattern: Any, words: str) -> None:
    options: Any = {name: pattern}
    with pytest.raises(FlowDefinitionError) as caught:
        Flow("demo").step("a", len, **options)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1, "a": 2}', "line 1, column 1"),
        ('[1, {"x": [{"b": 1, "a": 1, "b": 2}]}]', "line 1, column 12"),
        ('{"x": {"a": "\\"a\\":", "a": 2}}', "line 1, column 7"),
        ('{"a": 1, "\\u0061": 2}', "line 1, column 1"),
    ],
)
def test_a_key_that_is_written_twice_is_refused_with_the_place(text: str, place: str) -> None:
    with pytest.raises(InputError) as caught:
        read_input(text)
    assert place in str(caught.value)
    assert "is there more than once in this object" in str(caught.value)


def test_the_line_of_a_key_that_is_written_twice_is_told(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text('{"a": 1}\n' * 30_000 + '{"a": {"b": 1, "b": 2}}\n' + '{"a": 1}\n' * 1000)
    with pytest.raises(InputError, match=r'line 30001, column 7: the key "b" is there more than once'):
        read_input(str(file))
    document = {"all": [{"a": 1}] * 30_000}
    file.write_text(msgspec.json.encode(document).decode()[:-2] + ',\n{"b": 1, "b": 2}]}')
    with pytest.raises(InputError, match=r'line 2, column 1: the key "b" is there more than once'):
        read_input(str(file), jsonl=False)
    file.write_bytes(msgspec.json.encode(document))
    assert read_input(str(file), jsonl=False).kind == "an object"
