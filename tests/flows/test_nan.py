"""``nan=`` of flows and steps: NaN and Infinity in results are errors, or null."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from pgflow_mp import Flow, FlowDefinitionError, InputError, RunFailed
from pgflow_mp.testing import execute_inline, run_inline
from pgflow_mp.values.outputs import encode_output

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
NAN = math.nan


class Point(msgspec.Struct):
    x: float


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (NAN, b"null"),
        ([1.5, -math.inf, {"a": NAN}], b'[1.5,null,{"a":null}]'),
        (Point(NAN), b'{"x":null}'),
        ((Point(1.0), NAN), b'[{"x":1.0},null]'),
        (np.array([[NAN, 1], [np.inf, 2]]), b"[[null,1.0],[null,2.0]]"),
        ([np.float32(NAN), np.datetime64("NaT"), np.timedelta64("NaT", "M")], b"[null,null,null]"),
        (np.array(["2024-01-01", "NaT"], dtype="datetime64[s]"), b'["2024-01-01T00:00:00",null]'),
        (np.array([["NaT", 5]], dtype="timedelta64[s]"), b'[[null,"PT5S"]]'),
        ([pd.NaT, pd.NA, pd.Series([1, None], dtype="Int64")], b"[null,null,[1,null]]"),
        (pd.DataFrame({"a": [1.0, NAN], "b": [pd.NaT, pd.NaT]}), b'[{"a":1.0,"b":null},{"a":null,"b":null}]'),
        (Decimal("NaN"), b'"NaN"'),
    ],
    ids=repr,
)
def test_what_is_not_a_number_is_null_where_it_may_be(value: Any, json: bytes) -> None:
    assert encode_output(value, nulls=True) == json


def test_everything_else_is_refused_as_ever_with_its_place() -> None:
    gone = np.array(["NaT"], dtype="datetime64[s]")
    for value, words in (
        ([gone, NAN, 1j], "Objects of type complex are not JSON (at $[2])"),
        ([gone, {"a": "\0"}], "NUL character (at $[1].a)"),
        ([gone, {(1, 2): NAN}], "A key of a dict is no string or number (at $[1])"),
        ([NAN, {7: "a", "7": NAN}], "The keys 7 and '7' of a dict are both"),
    ):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            encode_output(value, nulls=True)
        assert words in str(caught.value)


def test_a_step_says_it_for_itself_and_a_flow_for_its_steps() -> None:
    def give(value: Any) -> Any:
        return [NAN, value]

    flow = Flow("demo").map("quiet", give, nan="null").array("listed", give, nan="null")
    assert run_inline(flow, [1]) == {"quiet": [[None, 1]], "listed": [None, [1]]}
    assert 'nan="null"' in execute_inline(flow.map("loud", give), [1]).steps["loud"].errors[0]
    flow = Flow("demo", nan="null").map("quiet", give)
    assert run_inline(flow, [1, NAN]) == {"quiet": [[None, 1], [None, None]]}
    with pytest.raises(RunFailed, match="NaN and Infinity are not JSON"):
        run_inline(Flow("demo", nan="null").map("loud", give, nan="error"), [1])
    with pytest.raises(InputError, match="NaN and Infinity are not JSON"):
        run_inline(Flow("demo").map("loud", give, nan="null"), [NAN])


def test_results_of_a_batch_are_each_by_themselves() -> None:
    def times(batch: list[int]) -> Any:
        return np.array(["NaT", "2024-01-01"], dtype="datetime64[s]")

    flow = Flow("demo").map("m", times, batch=2, tolerate=1)
    assert run_inline(flow, [1, 2]) == {"m": [None, "2024-01-01T00:00:00"]}
    assert list(execute_inline(flow, [1, 2]).steps["m"].errors) == [0]
    flow = Flow("demo").map("m", times, batch=2, nan="null")
    assert execute_inline(flow, [1, 2]).steps["m"].errors == {}


def test_floats_of_numpy_and_pandas_come_back_as_they_were() -> None:
    def give(value: float) -> np.ndarray:  # type: ignore[name-defined]
        return np.array([value, NAN])

    def take(give: list[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> bool:  # type: ignore[name-defined]
        return bool(np.array_equal(give[0], [1.5, NAN], equal_nan=True))

    flow = Flow("demo", nan="null").map("give", give).step("take", take, depends_on=["give"])
    assert run_inline(flow, [1.5]) == {"take": True}


def test_a_reader_that_cannot_take_null_is_refused_where_it_is_defined() -> None:
    def give(value: float) -> float:
        return value

    def pairs(value: float) -> dict[str, list[float]]:
        return {}

    def take(give: list[float]) -> None: ...

    def take_some(give: list[float | None]) -> None: ...

    def take_pairs(pairs: dict[str, list[float]]) -> None: ...

    with pytest.raises(FlowDefinitionError, match=r"list\[float\], yet NaN is null in") as caught:
        Flow("demo", nan="null").map("give", give).step("take", take, depends_on=["give"])
    assert caught.value.hint == 'Annotate list[float | None], or let "give" have nan="error".'
    with pytest.raises(FlowDefinitionError, match='"value" is annotated float, yet NaN is null'):
        Flow("demo").map("give", give, nan="null").map("again", give, over="give")
    with pytest.raises(FlowDefinitionError, match=r"dict\[str, list\[float\]\]"):
        Flow("demo", nan="null").step("pairs", pairs).step("take", take_pairs, depends_on=["pairs"])
    Flow("demo", nan="null").map("give", give).step("take", take_some, depends_on=["give"])
    Flow("demo", nan="null").map("give", give, nan="error").step("take", take, depends_on=["give"])
    Flow("demo", nan="null").map("give", lambda value: value).step("take", take, depends_on=["give"])


def test_what_is_none_of_the_two_is_refused() -> None:
    for nan in ("nul", True, 0):
        with pytest.raises(FlowDefinitionError, match="nan of Flow \"demo\" must be 'error' or 'null'"):
            Flow("demo", nan=nan)  # type: ignore[arg-type]
        with pytest.raises(FlowDefinitionError, match='nan of step "a" of flow "demo" must be'):
            Flow("demo").step("a", len, nan=nan)  # type: ignore[call-overload]
