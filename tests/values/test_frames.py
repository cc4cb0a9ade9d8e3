"""Frames and columns of pandas, polars and Arrow: rows as objects, and back by the annotation."""

from __future__ import annotations

import datetime as dt
import decimal
import subprocess
import sys
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from pgflow_mp import Flow, FlowDefinitionError
from pgflow_mp.flows.items import row_type
from pgflow_mp.testing import run_inline
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import encode_output
from pgflow_mp.values.reading import decoder

pd = pytest.importorskip("pandas")
pl = pytest.importorskip("polars")
pa = pytest.importorskip("pyarrow")


class Row(TypedDict):
    number: int | None
    share: float
    text: str
    fine: bool
    at: dt.datetime
    day: dt.date
    hour: dt.time
    took: dt.timedelta
    raw: bytes
    price: decimal.Decimal


AT = dt.datetime(2024, 7, 1, 12, 0, 0, 5, tzinfo=dt.UTC)
ROWS: list[Row] = [
    Row(
        number=None,
        share=0.1,
        text='a "quoted"\nline',
        fine=True,
        at=AT,
        day=dt.date(1, 1, 1),
        hour=dt.time(23, 59, 59, 999999),
        took=dt.timedelta(days=-1, microseconds=1),
        raw=b"\0\xff",
        price=decimal.Decimal("1.50"),
    ),
    Row(
        number=2**53 + 1,
        share=1e300,
        text="😀",
        fine=False,
        at=AT.replace(year=1970),
        day=dt.date(9999, 12, 31),
        hour=dt.time(),
        took=dt.timedelta(hours=25),
        raw=b"",
        price=decimal.Decimal("-3.25"),
    ),
]


def frame_of(kind: Any) -> Any:
    if kind is pd.DataFrame:
        made = pd.DataFrame(ROWS)
        made["number"] = pd.array([None, 2**53 + 1], dtype="Int64")
        return made
    return pl.DataFrame(ROWS) if kind is pl.DataFrame else kind.from_pylist(ROWS)


def rows_of(frame: Any) -> list[dict[str, Any]]:
    if isinstance(frame, pd.DataFrame):
        found = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return [
            {key: getattr(each, "to_pydatetime", lambda e=each: e)() for key, each in row.items()}
            for row in found
        ]
    return frame.to_dicts() if isinstance(frame, pl.DataFrame) else frame.to_pylist()  # type: ignore[no-any-return]


FRAMES = [pd.DataFrame, pl.DataFrame, pa.Table, pa.RecordBatch]


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_frame_comes_back_with_the_columns_that_the_annotation_says(kind: Any) -> None:
    def give(value: int) -> kind:
        return frame_of(kind)

    def take(frame: Annotated[kind, Row]) -> None:
        seen.append(frame)

    seen: list[Any] = []
    flow = Flow("demo", nan="null").step("frame", give).step("take", take, depends_on=["frame"])
    run_inline(flow, 1)
    (back,) = seen
    assert type(back) is kind
    wanted = [
        {**row, "took": pd.Timedelta(row["took"]).to_pytimedelta()} if kind is pd.DataFrame else row
        for row in ROWS
    ]
    found = rows_of(back)
    assert [{**row, "took": row["took"] + dt.timedelta()} for row in found] == wanted


@pytest.mark.parametrize("kind", FRAMES, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_columns_are_those_of_json_where_nothing_is_said(kind: Any) -> None:
    columns: dict[str, list[Any]] = {
        "a": [1, 2],
        "b": [2**63, None],
        "c": ["x", "y"],
        "d": [True, False],
        "e": [1.5, -0.0],
        "f": [[1, 2], []],
    }
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    back = decoder(kind)(encode_output(rows))
    assert rows_of(back) == rows
    assert encode_output(back, nulls=True) == encode_output(rows)
    assert rows_of(decoder(kind)(b'[{"a":1},{"b":"x"}]')) == [{"a": 1, "b": None}, {"a": None, "b": "x"}]
    assert rows_of(decoder(kind)(b"[]")) == []
    empty = decoder(Annotated[kind, {"day": dt.date}])(b"[]")
    assert list(
        empty.schema.names if hasattr(empty, "schema") and kind is not pl.DataFrame else empty.columns
    ) == ["day"]


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (lambda: pd.Series([1, 300], dtype="int16"), "int16"),
        (lambda: pd.Series([0.1, None], dtype="float32"), "float32"),
        (lambda: pd.Series([1, None], dtype="Int8"), "Int8"),
        (lambda: pd.Series(["a", "b", "a"], dtype="category"), "category"),
        (lambda: pd.Series(pd.to_datetime([1, 2], unit="ns", utc=True)), "datetime64[ns, UTC]"),
        (
            lambda: pd.Series(pd.to_datetime([1, 2], unit="ns", utc=True).tz_convert("Europe/Berlin")),
            "datetime64[ns, Europe/Berlin]",
        ),
        (lambda: pd.Series([None, 1], dtype="timedelta64[ns]"), "timedelta64[ns]"),
        (lambda: pl.Series([1, None], dtype=pl.Int8), pl.Int8),
        (
            lambda: pl.Series([1, None], dtype=pl.Datetime("ns", "Europe/Berlin")),
            pl.Datetime("ns", "Europe/Berlin"),
        ),
        (lambda: pl.Series([-1, None], dtype=pl.Duration("ns")), pl.Duration("ns")),
        (lambda: pl.Series([1001, None], dtype=pl.Time), pl.Time),
        (lambda: pl.Series(["a", None], dtype=pl.Categorical), pl.Categorical),
        (lambda: pa.array([1, None], pa.timestamp("ns", "UTC")), pa.timestamp("ns", "UTC")),
        (lambda: pa.array([1, None], pa.time64("ns")), pa.time64("ns")),
        (lambda: pa.array([1, None], pa.time32("s")), pa.time32("s")),
        (lambda: pa.array([-1], pa.duration("ns")), pa.duration("ns")),
        (lambda: pa.array([b"\0", None], pa.large_binary()), pa.large_binary()),
        (lambda: pa.array([decimal.Decimal("1.20")], pa.decimal128(9, 2)), pa.decimal128(9, 2)),
        (lambda: pa.array([dt.date(2024, 1, 2)], pa.date64()), pa.date64()),
    ],
)
def test_a_column_comes_back_equal_to_the_nanosecond(make: Any, dtype: Any) -> None:
    column = make()
    kind = next(kind for kind in (pd.Series, pl.Series, pa.Array) if isinstance(column, kind))
    back = decoder(Annotated[kind, dtype])(encode_output(column, nulls=True))
    if kind is pd.Series:
        pd.testing.assert_series_equal(back, column)
    else:
        assert back.equals(column)
        assert getattr(back, "dtype", None) == getattr(column, "dtype", None)


def test_labels_of_rows_become_columns_unless_they_are_numbers() -> None:
    frame = pd.DataFrame({"key": ["a", "b", "a"], "n": [1, 2, 3]})
    assert encode_output(frame[frame.n > 1]) == b'[{"key":"b","n":2},{"key":"a","n":3}]'
    assert encode_output(frame.groupby("key").sum()) == b'[{"key":"a","n":4},{"key":"b","n":2}]'
    assert encode_output(frame.groupby(["key", "n"]).size().to_frame("k"))[:24] == b'[{"key":"a","n":1,"k":1}'
    assert encode_output(frame.set_axis(["x", "y", "z"])[:1]) == b'[{"index":"x","key":"a","n":1}]'
    assert encode_output(frame.iloc[:, :0]) == b"[{},{},{}]"


def test_what_has_no_form_is_refused_with_its_place() -> None:
    nan = float("nan")
    cases: list[tuple[Any, str]] = [
        (
            pd.DataFrame([[1, 2]], columns=["a", "a"]),
            "the column 'a' more than once, of which JSON keeps one (at $[0])",
        ),
        (pa.table([pa.array([1])] * 2, names=["a", "a"]), "the column 'a' more than once"),
        (pd.DataFrame({"n": [1], "k": [2]}).rename_axis("n"), "the column 'n' more than once"),
        (pl.LazyFrame({"a": [1]}), "A LazyFrame is not JSON (at $[0])"),
        (pd.DataFrame({"a": [1.0, nan]}), "NaN and Infinity are not JSON (at $[0][1].a)"),
        (pl.DataFrame({"a": [1.0, nan]}), "NaN and Infinity are not JSON (at $[0][1].a)"),
        (pa.table({"a": [1.0, nan]}), "NaN and Infinity are not JSON (at $[0][1].a)"),
        (pd.DataFrame({"a": [1j]}), "Objects of type complex are not JSON (at $[0][0].a)"),
        (pd.DataFrame({"a": pd.period_range("2024", periods=1)}), "Objects of type Period are not JSON"),
        (pd.DataFrame({("a", "b"): [1]}), "A key of a dict is no string or number (at $[0][0])"),
    ]
    for value, words in cases:
        with pytest.raises(OutputError) as caught:
            encode_output([value])
        assert words in str(caught.value)
    assert encode_output(pd.DataFrame({"a": ["x", None]})) == b'[{"a":"x"},{"a":null}]'


def test_what_does_not_fit_a_column_is_refused_with_row_and_column() -> None:
    cases: list[tuple[Any, bytes, str]] = [
        (pd.DataFrame, b'{"a":1}', "Expected `array`, got `object`"),
        (pl.DataFrame, b'[{"a":1},3]', "Expected `object`, got `int` in row 1"),
        (
            Annotated[pd.DataFrame, {"a": "int8"}],
            b'[{"a":"x"}]',
            "Expected `int`, got `str` (in row 0, column 'a')",
        ),
        (
            Annotated[pd.DataFrame, {"a": "int8"}],
            b'[{"a":null}]',
            "Expected `int`, got `null` (in row 0, column 'a')",
        ),
        (Annotated[pd.DataFrame, {"a": "int8"}], b'[{"a":300}]', ""),
        (Annotated[pd.DataFrame, {"a": bool}], b'[{"a":1}]', "Expected `bool`, got `int`"),
        (Annotated[pl.DataFrame, {"a": dt.date}], b'[{"a":"x"}]', "(in row 0, column 'a')"),
        (Annotated[pl.DataFrame, {"a": pl.Int8}], b'[{"a":300}]', "column 'a'"),
        (Annotated[pa.Table, pa.schema({"a": pa.int8()})], b'[{"a":300}]', "(in column 'a')"),
        (
            Annotated[pa.Table, {"a": pa.timestamp("s")}],
            b'[{"a":"2024-01-01T00:00:00.5"}]',
            "is finer than s",
        ),
        (
            Annotated[pa.Table, {"a": pa.timestamp("s")}],
            b'[{"a":"2024-01-01T00:00:00Z"}]',
            "without a zone, got",
        ),
        (Annotated[pa.Table, {"a": bytes}], b'[{"a":"?"}]', "(in row 0, column 'a')"),
        (pl.Series, b'[1,"a"]', ""),
        (list.__class_getitem__(pa.Array), b'[[1,"a"]]', "$[0]"),
    ]
    for annotation, json, words in cases:
        with pytest.raises(msgspec.ValidationError) as caught:
            decoder(annotation)(json)
        assert words in str(caught.value)


def test_types_of_columns_that_nothing_has_are_refused_where_the_step_is_defined() -> None:
    class Holder(TypedDict):
        frame: Annotated[pd.DataFrame, {"a": int}]  # type: ignore[name-defined]

    cases: list[tuple[Any, str]] = [
        (Annotated[pd.DataFrame, {"a": "flaot32"}], "flaot32"),
        (Annotated[pl.DataFrame, {"a": "Int8"}], "'Int8' is not a type of a column of polars"),
        (Annotated[pa.Table, {"a": "int8"}], "'int8' is not a type of a column of Arrow"),
        (Annotated[pd.DataFrame, 5], "5 says nothing of the columns of a DataFrame"),
        (pl.LazyFrame, "LazyFrame"),
        (pd.Index, "Index"),
        (Holder, "(at frame)"),
    ]
    for annotation, words in cases:

        def take(value: Any) -> None: ...

        take.__annotations__ = {"value": annotation}
        with pytest.raises(
            FlowDefinitionError, match="an annotation that JSON cannot be converted to"
        ) as caught:
            Flow("demo").step("take", take)
        assert words in str(caught.value)
    Flow("demo").step("take", lambda value: value)


def test_rows_of_a_frame_are_mapped_over_and_batches_are_frames() -> None:
    def rows(value: int) -> pd.DataFrame:  # type: ignore[name-defined]
        return pd.DataFrame({"n": range(5)})

    def double(batch: pl.DataFrame) -> pl.Series:  # type: ignore[name-defined]
        seen.append(len(batch))
        return batch["n"] * 2

    seen: list[int] = []
    flow = Flow("demo").array("rows", rows).map("double", double, over="rows", batch=3)
    assert run_inline(flow, 1) == {"double": [0, 2, 4, 6, 8]}
    assert seen == [3, 2]


def test_no_library_is_imported_for_anybody_and_pandas_not_by_arrow() -> None:
    code = (
        "import sys, pgflow_mp.flows.handlers, pgflow_mp.values.outputs as o, pgflow_mp.values.reading as r\n"
        "o.encode_output([{'a': object}.keys(), b'x']); r.decoder(list[bytes])(b'[]')\n"
        "assert not {'numpy', 'pandas', 'polars', 'pyarrow', 'pydantic', 'attrs'} & set(sys.modules)\n"
        "assert not {'shutil', 'tempfile', 'hashlib', 'mimetypes', 'fsspec'} & set(sys.modules)\n"
        "import pyarrow as pa\n"
        "for unit in ('us', 'ns'):\n"
        "    t = pa.table({'a': pa.array([1], pa.timestamp(unit)), 'b': pa.array([1], pa.duration(unit))})\n"
        "    print(o.encode_output(t).decode())\n"
        "assert 'pandas' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        '[{"a":"1970-01-01T00:00:00.000001","b":"PT0.000001S"}]',
        '[{"a":"1970-01-01T00:00:00.000000001","b":"PT0.000000001S"}]',
    ], done.stderr


def test_fine_times_inside_of_lists_and_structs_are_refused_rather_than_cut() -> None:
    coarse = [
        pl.Series([[1000]], dtype=pl.List(pl.Datetime("ns"))),
        pl.Series([{"a": 1000}], dtype=pl.Struct({"a": pl.Duration("ns")})),
        pa.array([[1000]], pa.list_(pa.timestamp("ns"))),
        pa.array([{"a": [1000]}], pa.struct({"a": pa.list_(pa.duration("ns"))})),
        pa.array([1, None], pa.timestamp("ns")).dictionary_encode(),
    ]
    assert encode_output(coarse) == (
        b'[[["1970-01-01T00:00:00.000001"]],[{"a":"PT0.000001S"}],[["1970-01-01T00:00:00.000001"]],'
        b'[{"a":["PT0.000001S"]}],["1970-01-01T00:00:00.000000001",null]]'
    )
    for fine in (
        pl.Series([[1]], dtype=pl.List(pl.Datetime("ns"))),
        pa.array([{"a": 1}], pa.struct({"a": pa.time64("ns")})),
    ):
        with pytest.raises(OutputError, match="written to the microsecond, and here are finer ones"):
            encode_output([fine])


def test_fields_of_a_record_that_no_column_can_say_are_left_to_the_library() -> None:
    class More(TypedDict):
        number: float
        parts: list[int]
        kind: Literal["a", "b"]

    for kind in FRAMES:
        back = decoder(Annotated[kind, More])(b'[{"number":1,"parts":[1,2],"kind":"a"}]')
        (row,) = rows_of(back)
        assert (row, type(row["number"])) == ({"number": 1.0, "parts": [1, 2], "kind": "a"}, float)


def test_rows_of_a_table_have_the_types_of_the_frame_that_takes_them() -> None:
    def take(batch: Annotated[pd.DataFrame, Row]) -> list[None]:  # type: ignore[name-defined]
        return [None] * len(batch)

    found = row_type(Flow("demo").map("take", take, batch=8))
    assert found is not None
    assert found.fields["number"].kinds == ["int", "null"]
    assert found.fields["share"].kinds == ["float"]
