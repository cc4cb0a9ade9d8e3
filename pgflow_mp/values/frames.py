"""Frames, series and Arrow tables as JSON: rows become objects, columns arrays. No library is imported here.

Whoever has such a value has imported its library already.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from pgflow_mp.values.duplicates import first_repeated
from pgflow_mp.values.isotext import duration, moment, time_of_day

LIBRARIES: Final = ("numpy", "pandas", "polars", "pyarrow")
_FRAMES: Final = {"pandas": ("DataFrame",), "polars": ("DataFrame",), "pyarrow": ("Table", "RecordBatch")}
_COLUMNS: Final = {
    "pandas": ("Series", "Index"),
    "polars": ("Series",),
    "pyarrow": ("Array", "ChunkedArray"),
}
_TOO_FINE: Final = (
    "Times inside of lists and structs are written to the microsecond, and here are finer ones",
    "Convert them to microseconds, or to texts.",
)
_NANOSECONDS: Final = "%Y-%m-%dT%H:%M:%S%.9f"

TableForm = Literal["frame", "column", ""]


class Unsupported(TypeError):
    """What is raised for a value that has no JSON form, with a ``hint`` where there is a way."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def library_of(kind: type) -> str:
    """numpy, pandas, ...: the package that a class comes from."""
    return str(getattr(kind, "__module__", "")).partition(".")[0]


def shape_of(kind: Any) -> TableForm:
    """Whether objects of a class, or of one above it, are tables (``frame``) or one column of such."""
    if not isinstance(kind, type):
        return ""
    for base in kind.__mro__:
        library, name = library_of(base), base.__name__
        if name in _FRAMES.get(library, ()):
            return "frame"
        if name in _COLUMNS.get(library, ()):
            return "column"
    return ""


def is_lazy(kind: Any) -> bool:
    """Whether it is a table that is yet to be computed."""
    return isinstance(kind, type) and library_of(kind) == "polars" and kind.__name__ == "LazyFrame"


def to_json_values(value: Any) -> list[Any]:
    """A frame as a list of dicts, a column as a list. Raises Unsupported."""
    kind = type(value)
    if shape_of(kind) == "column":
        return _column(value)
    columns = _columns(value)
    names = [name for name, _ in columns]
    if (twice := first_repeated(map(str, names))) is not None:
        raise Unsupported(
            f"A {kind.__qualname__} has the column {twice!r} more than once, of which JSON keeps one",
            "Rename one of them.",
        )
    if not names:
        return [{} for _ in range(len(value) if hasattr(value, "__len__") else value.num_rows)]
    return [dict(zip(names, row, strict=True)) for row in zip(*(list_ for _, list_ in columns), strict=True)]


def _columns(frame: Any) -> list[tuple[Any, list[Any]]]:
    library = next(library_of(base) for base in type(frame).__mro__ if base.__name__ in _names(base))
    if library == "pandas":
        return [*_levels(frame), *((name, _pandas(column)) for name, column in frame.items())]
    if library == "polars":
        return [(column.name, _polars(column)) for column in frame.get_columns()]
    return list(zip(frame.schema.names, map(_arrow, frame.columns), strict=True))


def _names(kind: type) -> Sequence[str]:
    return _FRAMES.get(library_of(kind), ())


def _column(value: Any) -> list[Any]:
    for base in type(value).__mro__:
        library = library_of(base)
        if library == "pandas":
            return _pandas(value)
        if library == "polars":
            return _polars(value)
        if library == "pyarrow":
            return _arrow(value)
    raise Unsupported(f"Objects of type {type(value).__qualname__} are not JSON")


def _levels(frame: Any) -> Iterator[tuple[Any, list[Any]]]:
    """The labels of rows as columns, unless they are numbers without a name, which say nothing."""
    index = frame.index
    names = list(index.names)
    if names == [None] and (index.dtype.kind in "iu" or not len(index)):
        return
    for number, name in enumerate(names):
        default = "index" if len(names) == 1 else f"level_{number}"
        yield (default if name is None else name), _pandas(index.get_level_values(number))


def _pandas(column: Any) -> list[Any]:
    found: list[Any] = column.tolist()
    if str(column.dtype) in ("str", "string"):  # a text that is missing, which is NaN or NA for pandas
        return [each if isinstance(each, str) else None for each in found]
    return found


def _polars(column: Any) -> list[Any]:
    polars: Any = sys.modules["polars"]
    dtype, found = column.dtype, column
    if dtype == polars.Datetime and dtype.time_unit == "ns":  # Python's times have microseconds
        found = column.dt.strftime(_NANOSECONDS + ("%:z" if dtype.time_zone else ""))
    elif dtype == polars.Time and (column.cast(polars.Int64) % 1000 != 0).any():
        found = column.dt.strftime("%H:%M:%S%.9f")
    elif dtype == polars.Duration and dtype.time_unit == "ns":
        return [None if each is None else duration(each, 10**9) for each in column.cast(polars.Int64)]
    elif dtype.is_nested() and "'ns'" in repr(dtype):
        coarse = column.cast(_in_microseconds_polars(polars, dtype))
        if not coarse.cast(dtype).equals(column):
            raise Unsupported(*_TOO_FINE)
    listed: list[Any] = found.to_list()
    return listed


def _arrow(column: Any) -> list[Any]:
    pyarrow: Any = sys.modules["pyarrow"]
    types, kind = pyarrow.types, column.type
    if types.is_dictionary(kind):
        return _arrow(column.cast(kind.value_type))
    unit = getattr(kind, "unit", "")
    if types.is_timestamp(kind) and unit == "ns":
        counts = column.cast(pyarrow.int64()).to_pylist()
        zone = None if kind.tz is None else pyarrow.lib.string_to_tzinfo(kind.tz)
        return [None if each is None else moment(each, zone) for each in counts]
    if types.is_time(kind) and unit == "ns":
        counts = column.cast(pyarrow.int64()).to_pylist()
        return [None if each is None else time_of_day(each) for each in counts]
    if types.is_duration(kind) and unit == "ns":
        return [
            None if each is None else duration(each, 10**9)
            for each in column.cast(pyarrow.int64()).to_pylist()
        ]
    names: list[str] | None = [field.name for field in kind] if types.is_struct(kind) else None
    if names is not None and len(set(names)) < len(names):
        raise Unsupported("A struct of Arrow has a field more than once, of which JSON keeps one")
    if "[ns" in str(kind):  # of which pyarrow would make times of pandas, and import it for that
        try:
            column = column.cast(_in_microseconds_arrow(pyarrow, kind))
        except (pyarrow.ArrowException, ValueError):
            raise Unsupported(*_TOO_FINE) from None
    found: list[Any] = column.to_pylist()
    return found


def _in_microseconds_polars(polars: Any, dtype: Any) -> Any:
    """The same type with times in microseconds."""
    if dtype == polars.Datetime:
        return polars.Datetime("us", dtype.time_zone)
    if dtype == polars.Duration:
        return polars.Duration("us")
    if dtype == polars.List:
        return polars.List(_in_microseconds_polars(polars, dtype.inner))
    if dtype == polars.Array:
        return polars.Array(_in_microseconds_polars(polars, dtype.inner), dtype.shape[0])
    if dtype == polars.Struct:
        return polars.Struct({f.name: _in_microseconds_polars(polars, f.dtype) for f in dtype.fields})
    return dtype


def _in_microseconds_arrow(pyarrow: Any, kind: Any) -> Any:
    """The same type with times in microseconds."""
    types = pyarrow.types
    if types.is_struct(kind):
        return pyarrow.struct(
            [field.with_type(_in_microseconds_arrow(pyarrow, field.type)) for field in kind]
        )
    if types.is_list(kind) or types.is_large_list(kind):
        made = pyarrow.list_ if types.is_list(kind) else pyarrow.large_list
        return made(_in_microseconds_arrow(pyarrow, kind.value_type))
    if types.is_timestamp(kind):
        return pyarrow.timestamp("us", kind.tz)
    if types.is_duration(kind):
        return pyarrow.duration("us")
    return pyarrow.time64("us") if types.is_time64(kind) else kind
