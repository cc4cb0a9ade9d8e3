"""Values of numpy, pandas and pydantic as JSON and back. None of them is ever imported here.

Whoever has such a value, or such an annotation, has imported the library already.
"""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import Any, Final, get_args

_DURATION: Final = re.compile(
    r"(-?)P(?:(\d{1,9})D)?(?:T(?:(\d{1,9})H)?(?:(\d{1,9})M)?(?:(\d{1,12})(?:\.(\d{1,9}))?S)?)?"
)
_DAY: Final = 86_400
_TABLES: Final = ("DataFrame", "Series", "Index", "LazyFrame")


class Unsupported(TypeError):
    """What is raised for a value that has no JSON form, with a ``hint`` where there is a way."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def library_of(kind: type) -> str:
    """numpy, pandas, ...: the package that a class comes from."""
    return str(getattr(kind, "__module__", "")).partition(".")[0]


def is_model(kind: Any) -> bool:
    """Whether it is a class of pydantic models."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def is_numpy(value: Any) -> bool:
    """Whether it is an array, a scalar or a column of numpy or pandas."""
    return library_of(type(value)) in ("numpy", "pandas") and hasattr(value, "tolist")


def is_table(kind: type) -> bool:
    """Whether JSON could have several forms for it: rows, columns, with or without labels."""
    return library_of(kind) in ("pandas", "polars", "pyarrow") and kind.__name__ in (*_TABLES, "Table")


def unwritten(kind: type) -> str | None:
    """An attribute that msgspec leaves out when it writes objects of this class without a word.

    Those are the ones of attrs classes that start with an underscore; of dataclasses it writes them.
    """
    names = (attribute.name for attribute in getattr(kind, "__attrs_attrs__", ()))
    return next((name for name in names if name.startswith("_")), None)


# -- to JSON ---------------------------------------------------------------------------------------


def to_plain(value: Any) -> Any:
    """A value of one of these libraries as one that is nearer to JSON; Unsupported if there is none."""
    kind = type(value)
    if is_model(kind):
        return value.model_dump(mode="json", by_alias=True)
    library = library_of(kind)
    if library == "pandas" and kind.__name__ in ("NaTType", "NAType"):
        raise _missing(kind.__name__.removesuffix("Type"))
    if library == "pandas" and kind.__name__ == "Timestamp":
        return value.isoformat()
    if library == "pandas" and kind.__name__ == "Timedelta":
        return duration(value.value, 10**9)
    if library == "pandas" and kind.__name__ == "DataFrame":
        raise Unsupported("A DataFrame is not JSON", "Return frame.to_dict('records').")
    if not is_numpy(value):
        raise Unsupported(f"Objects of type {kind.__qualname__} are not JSON")
    return _numpy_to_plain(value) if library == "numpy" else value.tolist()


def _numpy_to_plain(value: Any) -> Any:
    dtype = value.dtype
    if dtype.names is not None:  # records: one object for each
        if value.ndim:
            return [_numpy_to_plain(each) for each in value]
        return {name: value[name] for name in dtype.names}
    if dtype.kind == "M":
        return _times(value)
    if dtype.kind == "m":
        return _durations(value)
    if dtype.kind in "SV" and value.size:
        raise Unsupported("bytes are not JSON", "Decode them to str, or encode them as base64 or hex.")
    if dtype.char == "g":  # longdouble, which numpy gives back as itself
        return value.astype("float64").tolist()
    plain = value.tolist()
    if type(plain) is type(value):
        raise Unsupported(f"Objects of type {type(value).__qualname__} are not JSON")
    return plain


def _times(value: Any) -> Any:
    """ISO 8601, as exact as they are: a date for days and coarser units, else date and time."""
    numpy = sys.modules["numpy"]
    if numpy.isnat(value).any():
        raise _missing("NaT")
    unit = numpy.datetime_data(value.dtype)[0]
    coarse = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}.get(unit)
    return numpy.datetime_as_string(value.astype(f"datetime64[{coarse}]") if coarse else value).tolist()


def _durations(value: Any) -> Any:
    """ISO 8601 durations, as timedelta has them."""
    numpy = sys.modules["numpy"]
    if numpy.isnat(value).any():
        raise _missing("NaT")
    unit, multiple = numpy.datetime_data(value.dtype)
    counts = value.astype("int64")
    if unit in ("Y", "M"):
        return _each(counts.tolist(), lambda count: f"{'-' * (count < 0)}P{abs(count) * multiple}{unit}")
    if unit == "generic":
        raise Unsupported("A timedelta64 without a unit is not JSON", "Give it one: timedelta64(1, 's').")
    if unit in ("ps", "fs", "as"):
        raise Unsupported(f"A timedelta64 in {unit} has no form in JSON", "Convert it to timedelta64[ns].")
    seconds = {"W": 7 * _DAY, "D": _DAY, "h": 3600, "m": 60}.get(unit, 1) * multiple
    return _each(counts.tolist(), lambda count: duration(count * seconds, _per_second(unit)))


def _per_second(unit: str) -> int:
    return {"ms": 10**3, "us": 10**6, "ns": 10**9}.get(unit, 1)


def _each(values: Any, convert: Any) -> Any:
    return [_each(value, convert) for value in values] if isinstance(values, list) else convert(values)


def duration(count: int, per_second: int = 1) -> str:
    """An ISO 8601 duration: P1DT5.000007S."""
    nanoseconds = abs(count) * (10**9 // per_second)
    seconds, rest = divmod(nanoseconds, 10**9)
    days, seconds = divmod(seconds, _DAY)
    fraction = f".{rest:09}".rstrip("0").rstrip(".")
    time = f"T{seconds}{fraction}S" if seconds or rest or not days else ""
    return f"{'-' * (count < 0)}P{f'{days}D' * bool(days)}{time}"


def _missing(name: str) -> Unsupported:
    return Unsupported(f"{name} is not JSON", "Put None, a string or a number in its place.")


# -- from JSON -------------------------------------------------------------------------------------


def can_read(kind: type) -> bool:
    """Whether :func:`from_plain` makes objects of a class."""
    library, name = library_of(kind), kind.__name__
    if library == "pandas":
        return name in ("Timestamp", "Timedelta")
    numpy = sys.modules.get("numpy")
    if numpy is None or library != "numpy":
        return is_model(kind)
    if issubclass(kind, numpy.generic):
        unreadable = (numpy.complexfloating, numpy.void, numpy.bytes_, numpy.object_)
        return kind is not numpy.generic and not issubclass(kind, unreadable)
    return kind is numpy.ndarray


def reads_elements(kind: type, args: tuple[Any, ...]) -> bool:
    """Whether arrays with elements of this kind are made."""
    dtype = _element_type(args) if library_of(kind) == "numpy" else None
    return dtype is None or can_read(dtype)


def from_plain(kind: Any, origin: type, value: Any) -> Any:
    """An object of a class that :func:`can_read`, made of JSON. Raises ValueError or TypeError."""
    if is_model(origin):
        from msgspec import json

        return kind.model_validate_json(json.encode(value))  # its rules for JSON, also where it is strict
    if library_of(origin) == "pandas":
        _expect(value, str, origin)
        return origin(value)
    numpy: Any = sys.modules["numpy"]
    if origin is numpy.ndarray:
        return _array(numpy, _element_type(get_args(kind)), value)
    return _scalar(numpy, origin, value)


def _element_type(args: tuple[Any, ...]) -> Any:
    """float64 in ndarray[Any, dtype[float64]]; None where all are welcome."""
    inner = get_args(args[1])[:1] if len(args) > 1 else ()
    return inner[0] if inner and isinstance(inner[0], type) and inner[0].__name__ != "generic" else None


def _array(numpy: Any, wanted: Any, value: Any) -> Any:
    if not isinstance(value, list | int | float):
        raise ValueError(f"Expected `array`, got `{_json_name(value)}`")
    if wanted is None:
        made = numpy.array(value)
        if made.dtype.kind not in "biufU":
            raise ValueError("Expected an array of numbers, booleans or strings")
        return made
    waiting, kinds = [value], set[type]()
    while waiting:
        item = waiting.pop()
        members = item if isinstance(item, list) else [item]
        here = set(map(type, members))
        kinds |= here - {list}
        if list in here:
            waiting += (member for member in members if isinstance(member, list))
    allowed, dtype = _rules(numpy, wanted)
    if wrong := kinds - allowed:
        raise ValueError(f"Expected an array of `{wanted.__name__}`, got `{_json_name(wrong.pop()())}`")
    if issubclass(wanted, numpy.timedelta64):
        return numpy.array(_each(value, lambda text: _scalar(numpy, wanted, text)))
    return numpy.array(value, dtype=dtype)


def _scalar(numpy: Any, kind: Any, value: Any) -> Any:
    allowed, concrete = _rules(numpy, kind)
    if type(value) not in allowed:
        raise ValueError(f"Expected `{kind.__name__}`, got `{_json_name(value)}`")
    if issubclass(kind, numpy.timedelta64):
        return numpy.timedelta64(_nanoseconds(value), "ns")
    return concrete(value)


def _rules(numpy: Any, kind: Any) -> tuple[frozenset[type], Any]:
    """The Python types of JSON values that a kind of scalar takes, and the class that is made for it."""
    abstract = {
        numpy.number: numpy.float64,
        numpy.integer: numpy.int64,
        numpy.signedinteger: numpy.int64,
        numpy.unsignedinteger: numpy.uint64,
        numpy.inexact: numpy.float64,
        numpy.floating: numpy.float64,
        numpy.flexible: numpy.str_,
        numpy.character: numpy.str_,
    }
    made = abstract.get(kind, kind)
    if issubclass(made, numpy.bool_):
        return frozenset({bool}), made
    if issubclass(made, numpy.timedelta64):
        return frozenset({str}), made
    if issubclass(made, numpy.integer):
        return frozenset({int}), made
    if issubclass(made, numpy.floating):
        return frozenset({int, float}), made
    return frozenset({str}), made


def _nanoseconds(text: str) -> int:
    found = _DURATION.fullmatch(text)
    if not found or text[-1] in "PT":
        raise ValueError("Invalid ISO8601 duration")
    sign, days, hours, minutes, seconds, fraction = found.groups()
    whole = timedelta(days=int(days or 0), hours=int(hours or 0), minutes=int(minutes or 0))
    total = round(whole.total_seconds()) + int(seconds or 0)
    return (-1 if sign else 1) * (total * 10**9 + int((fraction or "").ljust(9, "0")))


def _expect(value: Any, wanted: type, kind: type) -> None:
    if not isinstance(value, wanted):
        raise ValueError(f"Expected `{kind.__name__}`, got `{_json_name(value)}`")


def _json_name(value: Any) -> str:
    names = {dict: "object", list: "array", type(None): "null"}
    return names.get(type(value), type(value).__name__)
