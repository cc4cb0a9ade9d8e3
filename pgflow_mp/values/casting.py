"""Columns of pandas, polars and Arrow made of JSON values, as their type asks for it.

A type is one of the library's own, or one of Python's (``int``, ``datetime.date``, ``str | None``), or None:
what the values are. Times stay texts then. No library is imported here.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import decimal
import inspect
import sys
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pgflow_mp.values import isotext

MADE: Final[dict[str, tuple[str, ...]]] = {
    "pandas": ("DataFrame", "Series"),
    "polars": ("DataFrame", "Series"),
    "pyarrow": ("Table", "RecordBatch", "Array", "ChunkedArray"),
}
_LEAST, _MOST, _MOST_UNSIGNED = -(2**63), 2**63 - 1, 2**64 - 1
_JSON: Final[dict[Any, tuple[type, ...]]] = {int: (int,), float: (int, float), bool: (bool,)}
_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_PYTHON: Final = (
    *(int, float, bool, str, bytes, datetime.datetime, datetime.date, datetime.time, datetime.timedelta),
    *(decimal.Decimal, uuid.UUID),
)
_COUNTED: Final[dict[Any, Callable[[str], int]]] = {
    datetime.datetime: lambda text: isotext.of_moment(text)[0],
    datetime.timedelta: isotext.of_duration,
    datetime.time: isotext.of_time,
}


class Caster(typing.Protocol):
    """What a library's columns and frames are made by."""

    def check(self, wanted: Any) -> Any:
        """A type of a column, as ``column`` takes it. Raises TypeError for what is none."""

    def column(self, name: str, values: list[Any], wanted: Any) -> Any:
        """A column. Raises ValueError or TypeError for values that do not fit."""

    def series(self, kind: Any, column: Any) -> Any:
        """What has one column."""

    def frame(self, kind: Any, columns: dict[str, Any], rows: int) -> Any:
        """What has several."""


def caster_of(library: str) -> Caster:
    """For a library that is imported."""
    made: dict[str, Callable[[Any], Caster]] = {"pandas": _Pandas, "polars": _Polars, "pyarrow": _Arrow}
    return made[library](sys.modules[library])


class _Pandas:
    def __init__(self, pandas: Any) -> None:
        self._pandas: Any = pandas

    def check(self, wanted: Any) -> Any:
        if wanted is Any:
            return None
        return wanted if is_simple(wanted) else self._pandas.api.types.pandas_dtype(wanted)

    def column(self, name: str, values: list[Any], wanted: Any) -> Any:
        series = self._pandas.Series
        if wanted is None:
            natural = {int: "Int64", "unsigned": "UInt64", bool: "boolean"}
            return series(values, dtype=_natural(values, natural) if None in values else None)
        kind, nullable = _python(wanted)
        if kind is not None:
            dtype: Any = {int: "Int64" if nullable else "int64", float: "float64"}.get(kind, "object")
            dtype = "boolean" if kind is bool and nullable else "bool" if kind is bool else dtype
            dtype = None if kind is str else dtype
            if kind is datetime.datetime:
                fine = any(isinstance(each, str) and isotext.of_moment(each)[0] % 1000 for each in values)
                return self._times(name, values, "ns" if fine else "us", None, any_zone=True)
            if kind is datetime.timedelta:
                return self._durations(name, values, "ns")
            return series(_converted(name, values, kind, nullable or kind is float), dtype=dtype)
        if wanted.kind == "M":
            unit = getattr(wanted, "unit", None) or sys.modules["numpy"].datetime_data(wanted)[0]
            return self._times(name, values, unit, getattr(wanted, "tz", None))
        if wanted.kind == "m":
            return self._durations(name, values, sys.modules["numpy"].datetime_data(wanted)[0])
        kind = {"i": int, "u": int, "f": float, "b": bool}.get(wanted.kind)
        kind = str if str(wanted) in ("str", "string") else kind
        nulls = kind in (str, float) or type(wanted).__module__.partition(".")[0] != "numpy"
        return series(_converted(name, values, kind, nulls), dtype=wanted)

    def series(self, kind: Any, column: Any) -> Any:
        return column

    def frame(self, kind: Any, columns: dict[str, Any], rows: int) -> Any:
        return kind(columns, index=None if columns else range(rows))

    def _times(self, name: str, values: list[Any], unit: str, zone: Any, *, any_zone: bool = False) -> Any:
        counts, aware = _moments(name, values, unit, None if any_zone else zone is not None)
        made = self._pandas.Series(self._counted(counts, f"datetime64[{unit}]"))
        return made.dt.tz_localize("UTC").dt.tz_convert(zone or "UTC") if aware else made

    def _durations(self, name: str, values: list[Any], unit: str) -> Any:
        counts = _counts(name, values, unit, datetime.timedelta)
        return self._pandas.Series(self._counted(counts, f"timedelta64[{unit}]"))

    def _counted(self, counts: list[int | None], dtype: str) -> Any:
        numpy: Any = sys.modules["numpy"]
        return numpy.array([_LEAST if count is None else count for count in counts], "int64").view(dtype)


class _Polars:
    def __init__(self, polars: Any) -> None:
        self._polars: Any = polars

    def check(self, wanted: Any) -> Any:
        polars, (kind, _) = self._polars, _python(wanted)
        if wanted is Any or kind in (datetime.datetime, decimal.Decimal):
            return None if wanted is Any else kind
        named = {int: polars.Int64, float: polars.Float64, bool: polars.Boolean, str: polars.String}
        named |= {uuid.UUID: polars.String, bytes: polars.Binary}
        named |= {datetime.date: polars.Date, datetime.time: polars.Time}
        named |= {datetime.timedelta: polars.Duration("us")}
        if kind is not None:
            return named[kind]
        is_class = isinstance(wanted, type) and issubclass(wanted, polars.DataType)
        if not is_class and not isinstance(wanted, polars.DataType):
            raise TypeError(f"{_shown(wanted)} is not a type of a column of polars")
        return wanted

    def column(self, name: str, values: list[Any], wanted: Any) -> Any:
        polars = self._polars
        if wanted is None:
            natural = {int: polars.Int64, "unsigned": polars.UInt64, bool: polars.Boolean}
            return self._made(name, values, _natural(values, natural))
        if wanted is datetime.datetime:
            counts, aware = _moments(name, values, "us", None)
            return self._counted(name, counts, polars.Datetime("us", "UTC" if aware else None))
        if wanted is decimal.Decimal:
            return self._made(name, _converted(name, values, wanted, True), None)
        if wanted == polars.Datetime:
            unit, zone = getattr(wanted, "time_unit", None) or "us", getattr(wanted, "time_zone", None)
            counts, _ = _moments(name, values, unit, zone is not None)
            return self._counted(name, counts, polars.Datetime(unit, zone))
        if wanted == polars.Duration:
            unit = getattr(wanted, "time_unit", None) or "us"
            counts = _counts(name, values, unit, datetime.timedelta)
            return self._counted(name, counts, polars.Duration(unit))
        if wanted == polars.Time:
            return self._counted(name, _counts(name, values, "ns", datetime.time), polars.Time)
        kinds: list[tuple[Any, Any]] = [(polars.Date, datetime.date), (polars.Decimal, decimal.Decimal)]
        kinds += [(polars.Binary, bytes), (polars.Boolean, bool), (polars.String, str)]
        kind = next((kind for dtype, kind in kinds if wanted == dtype), None)
        if wanted.is_integer() or wanted.is_float():
            kind = int if wanted.is_integer() else float
        return self._made(name, _converted(name, values, kind, True), wanted)

    def series(self, kind: Any, column: Any) -> Any:
        return column

    def frame(self, kind: Any, columns: dict[str, Any], rows: int) -> Any:
        return kind(list(columns.values()))

    def _counted(self, name: str, counts: list[int | None], dtype: Any) -> Any:
        return self._polars.Series(name, counts, dtype=self._polars.Int64).cast(dtype)

    def _made(self, name: str, values: list[Any], dtype: Any) -> Any:
        try:
            return self._polars.Series(name, values, dtype=dtype, strict=True)
        except Exception as error:  # noqa: BLE001 - of a kind that each version names as it likes
            raise ValueError(f"{_said(error)}{_column(name)}") from None


class _Arrow:
    def __init__(self, pyarrow: Any) -> None:
        self._pyarrow: Any = pyarrow

    def check(self, wanted: Any) -> Any:
        pyarrow = self._pyarrow
        kind, _ = _python(wanted)
        if wanted is Any:
            return None
        if kind in (decimal.Decimal, datetime.datetime):
            return kind
        named = {int: pyarrow.int64(), float: pyarrow.float64(), bool: pyarrow.bool_()}
        named |= {str: pyarrow.string(), uuid.UUID: pyarrow.string(), bytes: pyarrow.binary()}
        named |= {datetime.date: pyarrow.date32(), datetime.time: pyarrow.time64("us")}
        named |= {datetime.timedelta: pyarrow.duration("us")}
        if kind in named:
            return named[kind]
        if not isinstance(wanted, pyarrow.DataType):
            raise TypeError(f"{_shown(wanted)} is not a type of a column of Arrow")
        return wanted

    def column(self, name: str, values: list[Any], wanted: Any) -> Any:
        pyarrow, is_ = self._pyarrow, self._pyarrow.types
        if wanted is None:
            natural = {int: pyarrow.int64(), "unsigned": pyarrow.uint64(), bool: pyarrow.bool_()}
            return self._made(name, values, _natural(values, natural))
        if wanted is datetime.datetime:
            counts, aware = _moments(name, values, "us", None)
            return self._counted(counts, pyarrow.timestamp("us", "UTC" if aware else None))
        if wanted is decimal.Decimal:
            return self._made(name, _converted(name, values, wanted, True), None)
        if is_.is_timestamp(wanted):
            return self._counted(_moments(name, values, wanted.unit, wanted.tz is not None)[0], wanted)
        if is_.is_duration(wanted):
            return self._counted(_counts(name, values, wanted.unit, datetime.timedelta), wanted)
        if is_.is_time(wanted):
            return self._counted(_counts(name, values, wanted.unit, datetime.time), wanted)
        kinds = (
            *((is_.is_date, datetime.date), (is_.is_decimal, decimal.Decimal), (is_.is_binary, bytes)),
            *((is_.is_large_binary, bytes), (is_.is_fixed_size_binary, bytes), (is_.is_integer, int)),
            *((is_.is_floating, float), (is_.is_boolean, bool), (is_.is_string, str)),
        )
        kind = next((kind for says, kind in kinds if says(wanted)), None)
        return self._made(name, _converted(name, values, kind, True), wanted)

    def series(self, kind: Any, column: Any) -> Any:
        return self._pyarrow.chunked_array([column]) if kind is self._pyarrow.ChunkedArray else column

    def frame(self, kind: Any, columns: dict[str, Any], rows: int) -> Any:
        return kind.from_arrays(list(columns.values()), names=list(columns))

    def _counted(self, counts: list[int | None], dtype: Any) -> Any:
        small = self._pyarrow.types.is_time32(dtype)
        return self._pyarrow.array(counts, self._pyarrow.int32() if small else self._pyarrow.int64()).cast(
            dtype
        )

    def _made(self, name: str, values: list[Any], dtype: Any) -> Any:
        try:
            return self._pyarrow.array(values, dtype)
        except Exception as error:  # noqa: BLE001 - ArrowInvalid, OverflowError and more
            raise ValueError(f"{_said(error)}{_column(name)}") from None


def is_simple(wanted: Any) -> bool:
    """Whether it is a type of Python that a column can have, or an optional one."""
    return _python(wanted)[0] is not None


def _python(wanted: Any) -> tuple[Any, bool]:
    """(one of _PYTHON, whether it may be None) of a type of Python; (None, False) of others."""
    args = typing.get_args(wanted)
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        some = [arg for arg in args if arg is not types.NoneType]
        return (some[0], True) if len(some) == 1 and some[0] in _PYTHON else (None, False)
    return (wanted, False) if isinstance(wanted, type) and wanted in _PYTHON else (None, False)


def _natural(values: list[Any], names: dict[Any, Any]) -> Any:
    """The type of a column with nothing but integers, or booleans, of JSON in it; None: as the library does.

    Integers with nulls among them would become floats, and those past 2**63 be refused.
    """
    kinds = set(map(type, values))
    if kinds - {int, bool, type(None)} or len(kinds - {type(None)}) != 1:
        return None
    if bool in kinds:
        return names[bool] if type(None) in kinds else None
    numbers = [value for value in values if value is not None]
    low, high = min(numbers), max(numbers)
    if low >= _LEAST and high <= _MOST:
        return names[int] if type(None) in kinds else None
    return names["unsigned"] if low >= 0 and high <= _MOST_UNSIGNED else None


def _converted(name: str, values: list[Any], kind: Any, nullable: bool) -> list[Any]:
    """Values of JSON as those of a type of Python; as they are where ``kind`` is None."""
    if kind is None:
        return values
    allowed = (*_JSON.get(kind, (str,)), *((type(None),) if nullable else ()))
    for row, value in enumerate(values):
        if type(value) not in allowed:
            got = {dict: "object", list: "array", type(None): "null"}.get(type(value), type(value).__name__)
            raise ValueError(f"Expected `{kind.__name__}`, got `{got}`{_column(name, row)}")
    if kind in (*_JSON, str):
        return values
    return [None if value is None else _each(name, row, value, kind) for row, value in enumerate(values)]


def _each(name: str, row: int, value: str, kind: Any) -> Any:
    try:
        if kind is bytes:
            return base64.b64decode(value, validate=True)
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, binascii.Error) as error:
        raise ValueError(f"{error}{_column(name, row)}") from None


def _counts(name: str, values: list[Any], unit: str, kind: Any) -> list[int | None]:
    """Times, or durations, as counts of a unit. Raises ValueError for what is finer than that."""
    found: list[int | None] = []
    size = 10**9 // _PER_SECOND[unit]
    for row, value in enumerate(_converted(name, values, str, True)):
        try:
            count, rest = (None, 0) if value is None else divmod(_COUNTED[kind](value), size)
        except ValueError as error:
            raise ValueError(f"{error}{_column(name, row)}") from None
        if rest:
            raise ValueError(f"{value} is finer than {unit}{_column(name, row)}")
        found.append(count)
    return found


def _moments(name: str, values: list[Any], unit: str, aware: bool | None) -> tuple[list[int | None], bool]:
    """Dates with times as counts of a unit since 1970, and whether they have zones; all or none of them."""
    counts = _counts(name, values, unit, datetime.datetime)
    for row, value in enumerate(values):
        if value is None:
            continue
        has = isotext.of_moment(value)[1]
        aware = has if aware is None else aware
        if has != aware:
            what = "with a zone" if aware else "without a zone"
            raise ValueError(f"Expected a date and time {what}, got {value}{_column(name, row)}")
    return counts, bool(aware)


def _column(name: str, row: int | None = None) -> str:
    places = [f"row {row}"] if row is not None else []
    places += [f"column {name!r}"] if name else []
    return f" (in {', '.join(places)})" if places else ""


def _said(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _shown(wanted: Any) -> str:
    return inspect.formatannotation(wanted)
