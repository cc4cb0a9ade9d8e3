"""Values of numpy, pandas and pydantic as JSON and back, where these are installed."""

from __future__ import annotations

import datetime
import pathlib
from typing import Any

import msgspec
import pytest

from pgflow_mp import Flow, FlowDefinitionError
from pgflow_mp.testing import run_inline
from pgflow_mp.values import isotext
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import encode_output


def taking(annotation: Any) -> Any:
    def take(value: Any) -> Any:
        return value

    take.__annotations__ = {"value": annotation, "return": annotation}
    return take


def there_and_back(annotation: Any, value: Any) -> Any:
    return run_inline(Flow("demo").step("take", taking(annotation)), value, output="take")


@pytest.mark.parametrize(
    ("count", "per_second", "text"),
    [(0, 1, "PT0S"), (90061, 1, "P1DT3661S"), (86400, 1, "P1D"), (-1, 10**9, "-PT0.000000001S")],
)
def test_durations_are_written_as_iso_8601(count: int, per_second: int, text: str) -> None:
    assert isotext.duration(count, per_second) == text
    assert isotext.of_duration(text) == count * 10**9 // per_second
    assert isinstance(msgspec.convert(text, datetime.timedelta), datetime.timedelta)


def test_numpy_values_have_the_form_of_pythons() -> None:
    np = pytest.importorskip("numpy")
    ns = np.array(["2024-01-02T03:04:05.000000006"], dtype="datetime64[ns]")
    cases: list[tuple[Any, bytes]] = [
        (ns, b'["2024-01-02T03:04:05.000000006"]'),
        (ns[0], b'"2024-01-02T03:04:05.000000006"'),
        (np.datetime64("2024-01-02T03:04", "m"), b'"2024-01-02T03:04:00"'),
        (np.datetime64("2024-01-02"), b'"2024-01-02"'),
        (np.datetime64("2024"), b'"2024-01-01"'),
        (np.timedelta64(5, "ns"), b'"PT0.000000005S"'),
        (np.array([[1, -1]], dtype="timedelta64[D]"), b'[["P1D","-P1D"]]'),
        (np.timedelta64(3, "M"), b'"P3M"'),
        (np.array(5), b"5"),
        (np.array(5, dtype="datetime64[s]"), b'"1970-01-01T00:00:05"'),
        (
            [np.bool_(True), np.str_("a"), np.float16(0.5), np.float32(0.5), np.uint64(2**63)],
            b'[true,"a",0.5,0.5,9223372036854775808]',
        ),
        (np.longdouble(0.5), b"0.5"),
        (np.ma.array([1, 2], mask=[False, True]), b"[1,null]"),
        (np.array([(1, "a")], dtype=[("x", int), ("y", "U1")]), b'[{"x":1,"y":"a"}]'),
        (np.array([(ns[0],)], dtype=[("t", ns.dtype)])[0], b'{"t":"2024-01-02T03:04:05.000000006"}'),
        (np.array([{"a": 1}, None], dtype=object), b'[{"a":1},null]'),
        ({np.int64(5): 1, np.str_("a"): 2, np.float64(0.5): 3}, b'{"5":1,"a":2,"0.5":3}'),
        ({np.bool_(True): 1, np.datetime64("2024-01-02"): 2}, b'{"true":1,"2024-01-02":2}'),
        ([np.array([b"a"]), np.bytes_(b"\xff")], b'[["YQ=="],"/w=="]'),
    ]
    for value, json in cases:
        assert encode_output(value) == json, repr(value)


def test_numpy_values_without_a_form_are_refused_with_their_path() -> None:
    np = pytest.importorskip("numpy")
    cases: list[tuple[Any, str]] = [
        ([np.datetime64("NaT")], "NaT is not JSON (at $[0])"),
        ({"a": np.array(["NaT"], dtype="datetime64[s]")}, "NaT is not JSON (at $.a)"),
        (np.timedelta64("NaT", "s"), "NaT is not JSON"),
        ([np.array([1.0, np.nan])], "NaN and Infinity are not JSON (at $[0][1])"),
        (np.array([1j]), "Objects of type complex are not JSON (at $[0])"),
        ([np.clongdouble(1)], "Objects of type clongdouble are not JSON (at $[0])"),
        ([np.array([b"a"], dtype="V1")], "Raw data of numpy is not JSON (at $[0])"),
        ({np.int64(1): "a", "1": "b"}, "keys np.int64(1) and '1' of a dict are both"),
    ]
    for value, words in cases:
        with pytest.raises(OutputError) as caught:
            encode_output(value)
        assert words in str(caught.value)


def test_numpy_types_are_converted_to() -> None:
    np = pytest.importorskip("numpy")
    npt = pytest.importorskip("numpy.typing")
    cases: list[tuple[Any, Any]] = [
        (np.ndarray, np.eye(2)),
        (npt.NDArray[np.float64], np.array([1.0, 2.0])),
        (npt.NDArray[np.uint64], np.array([1, 2**63], dtype=np.uint64)),
        (npt.NDArray[np.bool_], np.array([[True]])),
        (npt.NDArray[np.str_], np.array(["a"])),
        (npt.NDArray[np.datetime64], np.array(["2024-01-01"], dtype="datetime64[ns]")),
        (npt.NDArray[np.timedelta64], np.array([5, -7], dtype="timedelta64[ns]")),
        (np.float32, np.float32(0.1)),
        (np.int8, np.int8(-5)),
        (np.bool_, np.bool_(True)),
        (np.str_, np.str_("a")),
        (np.datetime64, np.datetime64("2024-01-01T00:00:00.000000001")),
        (np.timedelta64, np.timedelta64(90061, "ns")),
        (np.floating, np.float64(1.5)),
        (npt.NDArray[np.bytes_], np.array([b"a", b"\xff"])),
        (np.bytes_, np.bytes_(b"a")),
    ]
    for annotation, value in cases:
        back = there_and_back(annotation, value)
        assert type(back) is type(value), annotation
        assert back.dtype == value.dtype
        assert np.array_equal(back, value)


def test_what_is_no_array_or_scalar_of_that_type_is_refused() -> None:
    np = pytest.importorskip("numpy")
    npt = pytest.importorskip("numpy.typing")
    cases: list[tuple[Any, Any]] = [
        (npt.NDArray[np.int64], [1.5]),
        (npt.NDArray[np.int64], [True]),
        (npt.NDArray[np.int8], [300]),
        (npt.NDArray[np.float64], [[1], [1, 2]]),
        (npt.NDArray[np.int64], [None]),
        (npt.NDArray[np.bytes_], ["?"]),
        (np.ndarray, [{"a": 1}]),
        (np.ndarray, "abc"),
        (np.int64, 1.5),
        (np.int8, 300),
        (np.bool_, 1),
        (np.datetime64, "yesterday"),
        (np.timedelta64, "P"),
    ]
    for annotation, value in cases:
        with pytest.raises(Exception, match='does not fit parameter "value"'):
            there_and_back(annotation, value)
    for annotation in (npt.NDArray[np.complex128], np.complex64, np.void, np.ma.MaskedArray):
        with pytest.raises(FlowDefinitionError, match="an annotation that JSON cannot be converted to"):
            Flow("demo").map("m", taking(annotation))


def test_pandas_values_have_the_form_of_pythons() -> None:
    pd = pytest.importorskip("pandas")
    stamp = pd.Timestamp("2024-01-01T00:00:00.000000001", tz="UTC")
    assert encode_output({stamp: stamp}) == b'{"%b":"%b"}' % ((str(stamp.isoformat()).encode(),) * 2)
    assert encode_output(pd.Series(pd.to_datetime(["2024-01-01"]))) == b'["2024-01-01T00:00:00"]'
    assert encode_output(pd.Timedelta(1, "h")) == b'"PT3600S"'
    assert there_and_back(pd.Timestamp, stamp) == stamp
    assert there_and_back(datetime.datetime, pd.Timestamp("2024-01-01")) == datetime.datetime(2024, 1, 1)
    assert there_and_back(pd.Timedelta, pd.Timedelta(5)) == pd.Timedelta(5)
    for value, words in (
        ([pd.NaT], "NaT is not JSON (at $[0])"),
        ({"a": pd.NA}, "NA is not JSON (at $.a)"),
        (pd.Series([1, None], dtype="Int64"), "NA is not JSON"),
    ):
        with pytest.raises(OutputError) as caught:
            encode_output(value)
        assert words in str(caught.value)
    for annotation in (pd.Period, list.__class_getitem__(pd.Index)):
        with pytest.raises(FlowDefinitionError, match="an annotation that JSON cannot be converted to"):
            Flow("demo").map("m", taking(annotation))


def test_pydantic_models_are_validated_and_dumped() -> None:
    pydantic = pytest.importorskip("pydantic")

    class Strict(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        model_config = pydantic.ConfigDict(strict=True)
        number: int = pydantic.Field(alias="n")
        path: pathlib.Path
        day: datetime.date | None = None

    model = Strict(n=1, path=pathlib.Path("a"), day=datetime.date(2024, 1, 2))
    assert encode_output([model]) == b'[{"n":1,"path":"a","day":"2024-01-02"}]'
    assert there_and_back(Strict, model) == model
    assert there_and_back(list[Strict], [model]) == [model]
    with pytest.raises(Exception, match=r'does not fit parameter "value": 1 validation error'):
        there_and_back(Strict, {"n": "1", "path": "a"})


def test_subclasses_of_dates_are_written_as_dates() -> None:
    class Stamp(datetime.datetime):
        pass

    class Day(datetime.date):
        pass

    assert encode_output([Stamp(2024, 1, 2, tzinfo=datetime.UTC), Day(2024, 1, 2)]) == (
        b'["2024-01-02T00:00:00Z","2024-01-02"]'
    )
