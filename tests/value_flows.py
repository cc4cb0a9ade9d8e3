"""Values of many types, each given by a step and taken by the next, which says whether it is the same."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import importlib
import pathlib
import uuid
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple, TypedDict
from zoneinfo import ZoneInfo

import msgspec

from pgflow_mp import Flow

attrs: Any = importlib.import_module("attrs")  # so that types are checked where these are not installed
np: Any = importlib.import_module("numpy")
pd: Any = importlib.import_module("pandas")
pl: Any = importlib.import_module("polars")
pa: Any = importlib.import_module("pyarrow")
pydantic: Any = importlib.import_module("pydantic")
BERLIN = ZoneInfo("Europe/Berlin")


class Color(enum.Enum):
    RED = "r"


class Bits(enum.IntFlag):
    A = 1
    B = 2


@dataclasses.dataclass
class Data:
    path: pathlib.Path
    inner: Data | None = None
    seen: frozenset[int] = frozenset()


class Struct(msgspec.Struct):
    when: dt.datetime
    raw: bytes
    parts: dict[str, tuple[int, decimal.Decimal] | None]


class Typed(TypedDict, total=False):
    color: Color
    left: int | None


class Named(NamedTuple):
    key: uuid.UUID
    took: dt.timedelta = dt.timedelta(0)


class Attrs:
    number: int
    names: set[str]


Attributes: Any = attrs.define(Attrs)


class Model(pydantic.BaseModel):  # type: ignore[misc]
    day: dt.date
    price: decimal.Decimal


class Row(TypedDict):
    number: int
    text: str | None
    at: dt.datetime


AT = dt.datetime(2024, 7, 1, 12, 0, 0, 5, tzinfo=BERLIN)
ROWS = [
    Row(number=2**62 + 1, text="é\n", at=AT.astimezone(dt.UTC)),
    Row(number=-1, text=None, at=AT.astimezone(dt.UTC)),
]
NESTED: Any = [None, [None, {"a": None, "b": [[], {}]}], [[None]]]

CASES: list[tuple[str, Any, Any]] = [
    ("path", pathlib.Path, pathlib.Path("a b/é")),
    ("decimal", list[decimal.Decimal], [decimal.Decimal(text) for text in ("1.50", "-1E+5", "0.1", "1e-30")]),
    ("times", list[dt.datetime], [AT, AT.astimezone(dt.UTC), dt.datetime.min, dt.datetime.max]),
    ("day", dt.date, dt.date(1, 2, 3)),
    ("hour", dt.time, dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=-3, minutes=-30)))),
    ("took", list[dt.timedelta], [dt.timedelta.min, dt.timedelta(microseconds=-1), dt.timedelta.max]),
    ("key", uuid.UUID, uuid.UUID(int=2**127 + 5)),
    ("many", set[tuple[int, str]], {(1, "a"), (2, "b")}),
    ("frozen", frozenset[bytes], frozenset([b"", b"\0\xff"])),
    ("pair", tuple[int, str, None], (1, "a", None)),
    ("color", dict[Color, Bits], {Color.RED: Bits.A | Bits.B}),
    ("data", Data, Data(pathlib.Path("a"), Data(pathlib.Path("b"), None, frozenset([1])))),
    ("struct", Struct, Struct(AT, b"\0", {"a": (1, decimal.Decimal("1.0")), "b": None})),
    ("typed", list[Typed], [Typed(color=Color.RED, left=None), Typed()]),
    ("named", Named, Named(uuid.UUID(int=1), dt.timedelta(hours=-25))),
    ("attrs", Attributes, Attributes(1, {"a", "b"})),
    ("model", Model, Model(day=dt.date(2024, 2, 29), price=decimal.Decimal("1.50"))),
    ("raw", dict[bytes, bytearray], {b"\0key": bytearray(b"\1" * 1000)}),
    ("large", list[int], [2**63, -(2**63), 2**64 - 1, 10**100]),
    ("floats", list[float], [0.1, -0.0, 5e-324, 1.7976931348623157e308, 1e16, 2.0**53]),
    ("nested", Any, NESTED),
    ("counter", collections.Counter[str], collections.Counter("aab")),
    ("scalar", list[np.float32], [np.float32(0.1), np.float32("nan")]),
    ("unsigned", np.ndarray[tuple[int], np.dtype[np.uint64]], np.array([2**63, 2**64 - 1], dtype="uint64")),
    ("matrix", np.ndarray[tuple[int, int], np.dtype[np.float64]], np.array([[np.nan, 1.5], [-0.0, 1e300]])),
    (
        "moments",
        np.ndarray[Any, np.dtype[np.datetime64]],
        np.array(["2024-01-01T00:00", "NaT"], "M8[ns]"),
    ),
    ("pandas", Annotated[pd.DataFrame, Row], pd.DataFrame(ROWS)),
    ("series", Annotated[pd.Series, "float32"], pd.Series([0.1, None, -0.0], dtype="float32")),
    ("polars", Annotated[pl.DataFrame, Row], pl.DataFrame(ROWS)),
    ("column", Annotated[pl.Series, pl.UInt64], pl.Series([2**63, None], dtype=pl.UInt64)),
    ("arrow", Annotated[pa.Table, Row], pa.Table.from_pylist(ROWS)),
    ("batch", pa.RecordBatch, pa.RecordBatch.from_pydict({"n": [1, None], "s": ["a", "b"]})),
]
VALUES = {name: value for name, _, value in CASES}


def same(name: str, found: Any) -> bool:
    """Whether it is the value of that name, with its type."""
    value = VALUES[name]
    if type(found) is not type(value):
        return False
    if isinstance(value, np.ndarray):
        return found.dtype == value.dtype and bool(np.array_equal(found, value, equal_nan=True))
    if isinstance(value, pd.DataFrame | pd.Series):
        frame = isinstance(value, pd.DataFrame)
        assert_equal = pd.testing.assert_frame_equal if frame else pd.testing.assert_series_equal
        assert_equal(found, value)
        return True
    if hasattr(value, "equals"):
        return bool(found.equals(value))
    return repr(found) == repr(value) if name in ("scalar", "decimal") else bool(found == value)


def giving(name: str) -> Callable[[Any], Any]:
    def give(_: Any) -> Any:
        return VALUES[name]

    return give


def taking(name: str, annotation: Any, of_map: bool) -> Callable[..., bool]:
    def take(value: Any) -> bool:
        (found,) = value if of_map else (value,)
        return same(name, found)

    parent = f"{name}_given"
    wanted = list.__class_getitem__(annotation) if of_map else annotation
    scope: dict[str, Any] = {"take": take}
    exec(f"def taken({parent}): return take({parent})", scope)
    taken: Callable[..., bool] = scope["taken"]
    taken.__annotations__ = {parent: wanted, "return": bool}
    return taken


def flow_of(slug: str, storage: Any) -> Flow:
    """Of each case a map of one item, or a step, and who takes what it gives."""
    flow = Flow(slug, nan="null")
    for name, annotation, _ in CASES:
        if storage is None:
            flow.step(f"{name}_given", giving(name))
        else:
            flow.map(f"{name}_given", giving(name), storage=storage)
        flow.step(name, taking(name, annotation, storage is not None), depends_on=[f"{name}_given"])
    return flow


values_of_steps = flow_of("values_of_steps", None)
values_of_ranges = flow_of("values_of_ranges", "ranges")
values_of_tasks = flow_of("values_of_tasks", "tasks")
