"""Values of numpy, pandas, polars, Arrow and pydantic as JSON and back. None of them is ever imported here.

Whoever has such a value, or such an annotation, has imported the library already. A null among floats and
times of numpy is NaN, or NaT: they have nothing else for what is missing.
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, get_args, get_origin

from pgflow_mp.values import columns, frames
from pgflow_mp.values.frames import Unsupported, library_of
from pgflow_mp.values.isotext import duration, of_duration

_DAY: Final = 86_400


class Missing(Unsupported):
    """What is raised for NaT and NA, which are null where NaN is."""


def is_model(kind: Any) -> bool:
    """Whether it is a class of pydantic models."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def elements(value: Any) -> list[Any] | None:
    """Those of an array or a column, the rows of a table; None for what is none. Raises Unsupported."""
    kind = type(value)
    if frames.shape_of(kind):
        return frames.to_json_values(value)
    if library_of(kind) != "numpy" or not getattr(value, "ndim", 0):
        return None
    plain = list(value) if value.dtype.kind in "mM" else _numpy_to_plain(value, nulls=False)
    return plain if isinstance(plain, list) else None


def unwritten(kind: type) -> str | None:
    """An attribute that msgspec leaves out when it writes objects of this class without a word.

    Those are the ones of attrs classes that start with an underscore; of dataclasses it writes them.
    """
    names = (attribute.name for attribute in getattr(kind, "__attrs_attrs__", ()))
    return next((name for name in names if name.startswith("_")), None)


# -- to JSON ---------------------------------------------------------------------------------------


def to_plain(value: Any, *, nulls: bool = False) -> Any:
    """A value of one of these libraries as one that is nearer to JSON; Unsupported if there is none.

    ``nulls``: NaT and NA are None, for which Missing is raised otherwise.
    """
    kind = type(value)
    if is_model(kind):
        return value.model_dump(mode="json", by_alias=True)
    library = library_of(kind)
    if library == "pandas" and kind.__name__ in ("NaTType", "NAType"):
        return _missing(kind.__name__.removesuffix("Type"), nulls)
    if library == "pandas" and kind.__name__ == "Timestamp":
        return value.isoformat()
    if library == "pandas" and kind.__name__ == "Timedelta":
        return duration(value.value, 10**9)
    if frames.shape_of(kind):
        return frames.to_json_values(value)
    if frames.is_lazy(kind):
        raise Unsupported("A LazyFrame is not JSON", "Return frame.collect().")
    if library == "pyarrow" and hasattr(value, "as_py"):
        return frames.to_json_values(sys.modules["pyarrow"].array([value]))[0]
    if library not in ("numpy", "pandas") or not hasattr(value, "tolist"):
        raise Unsupported(f"Objects of type {kind.__qualname__} are not JSON")
    return _numpy_to_plain(value, nulls) if library == "numpy" else value.tolist()


def _numpy_to_plain(value: Any, nulls: bool) -> Any:
    dtype = value.dtype
    if dtype.names is not None:  # records: one object for each
        if value.ndim:
            return [_numpy_to_plain(each, nulls) for each in value]
        return {name: value[name] for name in dtype.names}
    if dtype.kind == "M":
        return _times(value, nulls)
    if dtype.kind == "m":
        return _durations(value, nulls)
    if dtype.kind == "V" and value.size:
        raise Unsupported("Raw data of numpy is not JSON", "Return value.tobytes().")
    if dtype.char == "g":  # longdouble, which numpy gives back as itself
        return value.astype("float64").tolist()
    plain = value.tolist()
    if type(plain) is type(value):
        raise Unsupported(f"Objects of type {type(value).__qualname__} are not JSON")
    return plain


def _times(value: Any, nulls: bool) -> Any:
    """ISO 8601, as exact as they are: a date for days and coarser units, else date and time."""
    numpy = sys.modules["numpy"]
    gone = numpy.isnat(value)
    if gone.any():
        _missing("NaT", nulls)
    unit = numpy.datetime_data(value.dtype)[0]
    coarse = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}.get(unit)
    texts = numpy.datetime_as_string(value.astype(f"datetime64[{coarse}]") if coarse else value).tolist()
    return _each(texts, lambda text: None if text == "NaT" else text) if gone.any() else texts


def _durations(value: Any, nulls: bool) -> Any:
    """ISO 8601 durations, as timedelta has them."""
    numpy = sys.modules["numpy"]
    if numpy.isnat(value).any():
        _missing("NaT", nulls)
    unit, multiple = numpy.datetime_data(value.dtype)
    counts = value.astype("int64").tolist()
    none = numpy.iinfo("int64").min  # NaT's

    def each(text: Callable[[int], str]) -> Any:
        return _each(counts, lambda count: None if count == none else text(count))

    if unit in ("Y", "M"):
        return each(lambda count: f"{'-' * (count < 0)}P{abs(count) * multiple}{unit}")
    if unit == "generic":
        raise Unsupported("A timedelta64 without a unit is not JSON", "Give it one: timedelta64(1, 's').")
    if unit in ("ps", "fs", "as"):
        raise Unsupported(f"A timedelta64 in {unit} has no form in JSON", "Convert it to timedelta64[ns].")
    seconds = {"W": 7 * _DAY, "D": _DAY, "h": 3600, "m": 60}.get(unit, 1) * multiple
    return each(lambda count: duration(count * seconds, _per_second(unit)))


def _per_second(unit: str) -> int:
    return {"ms": 10**3, "us": 10**6, "ns": 10**9}.get(unit, 1)


def _each(values: Any, convert: Any) -> Any:
    return [_each(value, convert) for value in values] if isinstance(values, list) else convert(values)


def _missing(name: str, nulls: bool) -> None:
    if not nulls:
        raise Missing(f"{name} is not JSON", 'Put None in its place, or let the step have nan="null".')


# -- from JSON -------------------------------------------------------------------------------------


def can_read(kind: type) -> bool:
    """Whether :func:`from_plain` makes objects of a class."""
    library, name = library_of(kind), kind.__name__
    if columns.can_make(kind):
        return True
    if library == "pandas":
        return name in ("Timestamp", "Timedelta")
    numpy = sys.modules.get("numpy")
    if numpy is None or library != "numpy":
        return is_model(kind)
    if issubclass(kind, numpy.generic):
        unreadable = (numpy.complexfloating, numpy.void, numpy.object_)
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
    if columns.can_make(origin):
        return columns.make(origin, None, value)
    if library_of(origin) == "pandas":
        if not isinstance(value, str):
            raise ValueError(f"Expected `{origin.__name__}`, got `{columns.json_name(value)}`")
        return origin(value)
    numpy: Any = sys.modules["numpy"]
    if origin is numpy.ndarray:
        args = get_args(kind)
        return _shaped(_array(numpy, _element_type(args), value), _shape(args))
    return _scalar(numpy, origin, value)


def _element_type(args: tuple[Any, ...]) -> Any:
    """float64 in ndarray[Any, dtype[float64]]; None where all are welcome."""
    inner = get_args(args[1])[:1] if len(args) > 1 else ()
    return inner[0] if inner and isinstance(inner[0], type) and inner[0].__name__ != "generic" else None


def _shape(args: tuple[Any, ...]) -> list[int | None] | None:
    """[None, 3] in ndarray[tuple[int, Literal[3]], ...]; None where any shape is welcome."""
    if not args or get_origin(args[0]) is not tuple or Ellipsis in (sizes := get_args(args[0])):
        return None
    fixed = [get_args(size) if get_origin(size) is Literal else () for size in sizes]
    return [size[0] if len(size) == 1 and isinstance(size[0], int) else None for size in fixed]


def _shaped(made: Any, shape: list[int | None] | None) -> Any:
    if shape is None:
        return made
    if not made.size and made.ndim < len(shape):  # JSON does not tell how long the rows are of which none is
        made = made.reshape([*made.shape, *(size or 0 for size in shape[made.ndim :])])
    fits = made.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, made.shape, strict=True)
    )
    if not fits:
        names = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"Expected an array of shape ({names}), got one of shape {made.shape}")
    return made


def _array(numpy: Any, wanted: Any, value: Any) -> Any:
    if not isinstance(value, list | int | float | None):
        raise ValueError(f"Expected `array`, got `{columns.json_name(value)}`")
    kinds = _kinds_inside(value)
    if wanted is None:
        numbers = bool(kinds) and kinds <= {int, float, type(None)}
        made = numpy.array(value, dtype="float64" if numbers and type(None) in kinds else None)
        if made.dtype.kind not in "biufU":
            raise ValueError("Expected an array of numbers, booleans or strings")
        return made
    allowed, dtype = _rules(numpy, wanted)
    if wrong := kinds - allowed:
        raise ValueError(
            f"Expected an array of `{wanted.__name__}`, got `{columns.json_name(wrong.pop()())}`"
        )
    if issubclass(wanted, numpy.timedelta64 | numpy.bytes_):
        made = numpy.array(_each(value, lambda text: _scalar(numpy, wanted, text)))
        return made if made.size else made.astype(_rules(numpy, wanted)[1])
    return numpy.array(value, dtype=dtype)


def _kinds_inside(value: Any) -> set[type]:
    waiting, kinds = [value], set[type]()
    while waiting:
        item = waiting.pop()
        members = item if isinstance(item, list) else [item]
        here = set(map(type, members))
        kinds |= here - {list}
        if list in here:
            waiting += (member for member in members if isinstance(member, list))
    return kinds


def _scalar(numpy: Any, kind: Any, value: Any) -> Any:
    allowed, concrete = _rules(numpy, kind)
    if type(value) not in allowed:
        raise ValueError(f"Expected `{kind.__name__}`, got `{columns.json_name(value)}`")
    if issubclass(kind, numpy.timedelta64):
        return numpy.timedelta64("NaT" if value is None else of_duration(value), "ns")
    if issubclass(kind, numpy.bytes_):
        return concrete(decoded(value))
    return concrete(value)


def decoded(text: str) -> bytes:
    """What base64 stands for. Raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("Invalid base64 encoded string") from None


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
    if issubclass(made, numpy.timedelta64 | numpy.datetime64):
        return frozenset({str, type(None)}), made
    if issubclass(made, numpy.integer):
        return frozenset({int}), made
    if issubclass(made, numpy.floating):
        return frozenset({int, float, type(None)}), made
    return frozenset({str}), made
