"""One task inside a lane: typed input, result as JSON, and every failure as an outcome."""

from __future__ import annotations

import contextlib
import math
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypedDict, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow_mp import Context, Flow, FlowDefinitionError, FlowNotFound, PermanentError
from pgflow_mp.flows.context import Runtime
from pgflow_mp.flows.handlers import COMPLETED, FAILED, FAILED_FOR_GOOD, check, prepare
from pgflow_mp.values.encoding import OutputError
from pgflow_mp.values.outputs import encode_output


class Point(msgspec.Struct):
    x: int
    y: float = 0.0


@dataclass
class Person:
    name: str
    born: datetime | None = None


class Row(TypedDict):
    id: int


class Pair(NamedTuple):
    left: str
    right: int


class Color(Enum):
    RED = "red"


def run_map(handler: Callable[..., Any], element: bytes, ctx: Context | None = None) -> tuple[int, bytes]:
    flow = Flow("demo").map("m", handler)
    return prepare(flow, "m").execute(element, None, ctx or Context(task_index=7))


def output(handler: Callable[..., Any], element: bytes = b"null") -> bytes:
    kind, body = run_map(handler, element)
    assert kind == COMPLETED, body.decode()
    return body


def failure(result: object) -> str:
    """The error text for a result that must be refused for good."""
    kind, body = run_map(lambda _: result, b"null")
    assert kind == FAILED_FOR_GOOD
    assert body.startswith(b'OutputError: Output of step "m", index 7, cannot be stored: ')
    return body.decode().split("stored: ", 1)[1]


# Input


def test_input_is_converted_to_the_annotated_type() -> None:
    def of_struct(p: Point) -> float:
        return p.x + p.y

    def of_dataclass(p: Person) -> int:
        assert p.born is not None
        return p.born.year

    def of_typed_dict(row: Row) -> int:
        return row["id"]

    def of_pair(pair: Pair) -> int:
        return pair.right

    def of_enum(color: Color) -> str:
        return color.name

    def of_optional(x: int | None) -> bool:
        return x is None

    def of_list(items: list[Point]) -> int:
        return sum(item.x for item in items)

    def of_int_keys(counts: dict[int, str]) -> list[int]:
        return list(counts)

    assert output(of_struct, b'{"x":1,"y":2}') == b"3.0"
    assert output(of_dataclass, b'{"name":"a","born":"1999-01-01T00:00:00Z"}') == b"1999"
    assert output(of_typed_dict, b'{"id":5}') == b"5"
    assert output(of_pair, b'["a",3]') == b"3"
    assert output(of_enum, b'"red"') == b'"RED"'
    assert output(of_optional, b"null") == b"true"
    assert output(of_list, b'[{"x":1},{"x":2}]') == b"3"
    assert output(of_int_keys, b'{"1":"a"}') == b"[1]"


def test_input_that_does_not_fit_fails_for_good_with_the_path() -> None:
    def of_list(items: list[Point]) -> None: ...

    kind, body = run_map(of_list, b'[{"x":1},{"x":"two"}]')
    assert kind == FAILED_FOR_GOOD
    assert body.decode() == (
        'InputMismatch: Input of step "m" does not fit parameter "items": '
        "Expected `int`, got `str` - at `$[1].x`"
    )


def test_conversion_is_strict() -> None:
    def of_int(x: int) -> int:
        return x

    for element in (b'"5"', b"5.5", b"true", b"null", b"5 5", b""):
        assert run_map(of_int, element)[0] == FAILED_FOR_GOOD


def test_a_root_step_receives_the_runs_input_under_any_name() -> None:
    def root(numbers: list[int], ctx: Context, flow_input: list[int]) -> bool:
        return bool(numbers == flow_input == ctx.flow_input)

    prepared = prepare(Flow("demo").step("r", root), "r")
    assert prepared.wants_flow_input
    ctx = Context(run_id="a", raw_flow_input=b"[1,2]")
    assert prepared.execute(b"{}", b"[1,2]", ctx) == (COMPLETED, b"true")
    assert not prepare(Flow("demo").step("r", lambda: 1), "r").wants_flow_input


def test_a_dependent_step_receives_outputs_of_parents_by_name() -> None:
    def join(b: Point, a: int, flow_input: str, c: int = 9, d: str | None = None) -> list[Any]:
        return [b.x, a, flow_input, c, d]

    flow = Flow("demo")
    for parent in "abcd":
        flow.step(parent, lambda: 1)
    prepared = prepare(flow.step("join", join, depends_on=list("abcd")), "join")
    assert prepared.wants_flow_input
    kind, body = prepared.execute(b'{"a":1,"b":{"x":2}}', b'"in"', Context(run_id="b"))
    assert (kind, body) == (COMPLETED, b'[2,1,"in",9,null]')
    kind, body = prepared.execute(b'{"a":1,"b":{"x":"2"}}', b'"in"', Context(run_id="b"))
    assert kind == FAILED_FOR_GOOD
    assert b'parameter "b": Expected `int`, got `str` - at `$.x`' in body


def test_a_skipped_parent_without_a_default_is_none() -> None:
    flow = Flow("demo").step("a", lambda: 1)
    flow.step("b", lambda a: a is None, depends_on=["a"])
    assert prepare(flow, "b").execute(b"{}", None, Context()) == (COMPLETED, b"true")
    assert prepare(flow, "b").execute(b'{"a":null}', None, Context()) == (COMPLETED, b"true")


def test_a_single_parameter_of_a_dependent_step_is_a_read_only_mapping() -> None:
    def change(outputs: Mapping[str, Any]) -> None:
        outputs["a"] = 1  # type: ignore[index]

    flow = Flow("demo").step("a", lambda: 1)
    flow.step("same", lambda outputs: outputs, depends_on=["a"])
    flow.step("change", change, depends_on=["a"])
    flow.step("rest", lambda **outputs: outputs, depends_on=["a"])
    assert prepare(flow, "same").execute(b'{"a":1}', None, Context()) == (COMPLETED, b'{"a":1}')
    assert prepare(flow, "rest").execute(b'{"a":1}', None, Context()) == (COMPLETED, b'{"a":1}')
    assert b"does not support item assignment" in prepare(flow, "change").execute(b"{}", None, Context())[1]


def test_a_parameter_after_an_unused_default_is_passed_by_name() -> None:
    def late(x: int, scale: int = 10, ctx: Context | None = None) -> int:
        assert ctx is not None
        return x * scale + ctx.task_index

    assert output(late, b"2") == b"27"


def test_handlers_may_be_builtins_classes_and_callable_objects() -> None:
    class Scale:
        def __call__(self, x: int) -> int:
            return x * 2

    assert output(Scale(), b"2") == b"4"
    assert output(len, b"[1,2]") == b"2"
    assert output(str.upper, b'"a"') == b'"A"'
    assert output(int, b'"12"') == b"12"


def test_an_annotation_that_cannot_be_resolved_is_named() -> None:
    def broken(x: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(FlowDefinitionError, match=r"parameter \"x\" has the annotation 'Missing'.*resolved"):
        check(Flow("demo").map("m", broken))


def test_an_annotation_that_json_cannot_become_is_refused() -> None:
    def broken(x: int | list[int] | dict[str, int] | Point) -> None: ...

    with pytest.raises(FlowDefinitionError, match="annotation that JSON cannot be converted to"):
        check(Flow("demo").map("m", broken))


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(FlowNotFound, match='Step "x" does not exist in flow "demo"'):
        prepare(Flow("demo"), "x")


# Output


@pytest.mark.parametrize("value", [0, False, "", [], {}, None, 0.0])
def test_falsy_results_are_kept(value: Any) -> None:
    assert msgspec.json.decode(output(lambda _: value)) == value


@pytest.mark.parametrize(
    ("value", "json"),
    [
        ((1, 2), b"[1,2]"),
        ({1}, b"[1]"),
        ({1: "a", "b": 2}, b'{"1":"a","b":2}'),
        (2**70, b"1180591620717411303424"),
        (Decimal("1.50"), b'"1.50"'),
        (datetime(2024, 1, 2, tzinfo=UTC), b'"2024-01-02T00:00:00Z"'),
        (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (Point(1), b'{"x":1,"y":0.0}'),
        (Person("a"), b'{"name":"a","born":null}'),
        (Pair("a", 1), b'["a",1]'),
        (Color.RED, b'"red"'),
        (range(2), b"[0,1]"),
        ({"a": 1}.keys(), b'["a"]'),
        ("\\u0000", b'"\\\\u0000"'),
        ([None, {"a": None, "b": 1.5}], b'[null,{"a":null,"b":1.5}]'),
        (msgspec.Raw(b' {"a": 1}'), b'{"a":1}'),
    ],
)
def test_results_become_json_as_msgspec_writes_it(value: Any, json: bytes) -> None:
    assert output(lambda _: value) == json


def test_subclasses_of_str_int_and_float_are_stored_as_what_they_are() -> None:
    class Text(str):
        pass

    class Number(float):
        pass

    assert encode_output([Text("a"), Number(1.5)]) == b'["a",1.5]'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (math.nan, ""),
        ([1.0, -math.inf], " (at $[1])"),
        ({"a": [{"b": math.inf}]}, " (at $.a[0].b)"),
        ({"flat": math.nan}, " (at $.flat)"),
        (Point(1, math.nan), " (at $.y)"),
        ((1, Pair("a", 1), math.nan), " (at $[2])"),
    ],
)
def test_nan_and_infinity_are_refused_with_their_path(value: Any, path: str) -> None:
    assert failure(value).startswith(f"NaN and Infinity are not JSON{path}\n")


class Name(bytes):
    pass


@pytest.mark.parametrize(
    ("value", "json"),
    [
        (b"\0\xff", b'"AP8="'),
        ([bytearray(b"a")], b'["YQ=="]'),
        ({"a": (1, memoryview(b"a"))}, b'{"a":[1,"YQ=="]}'),
        ({b"a": Name(b"")}, b'{"YQ==":""}'),
    ],
)
def test_bytes_are_written_as_base64(value: Any, json: bytes) -> None:
    assert output(lambda _: value) == json


def test_keys_that_are_no_strings_or_numbers_are_refused() -> None:
    assert failure({b"YQ==": 1, "WVE9PQ==": 2}).startswith(
        "The keys b'YQ==' and 'WVE9PQ==' of a dict are both"
    )
    assert failure({"x": {(1, 2): 1}}).startswith("A key of a dict is no string or number (at $.x)")
    assert failure({None: 1}).startswith("A key of a dict is no string or number")


def test_what_postgresql_refuses_in_strings_is_refused_before() -> None:
    assert failure(["ok", "a\0b"]) == "PostgreSQL stores no string with a NUL character (at $[1])"
    assert failure({"a\0": 1}).startswith("PostgreSQL stores no string with a NUL character")
    assert failure({"a": "\ud800"}) == "A string with a lone surrogate is not UTF-8 (at $.a)"


def test_cycles_and_deep_nesting_are_refused() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(600):
        deep = [deep]
    assert failure(cycle) == "It contains itself, or is nested too deeply"
    assert failure(deep) == "It is nested more than 500 levels deep"


def test_unknown_types_and_invalid_raw_json_are_refused() -> None:
    assert failure({"a": [1j]}).startswith("Objects of type complex are not JSON (at $.a[0])")
    assert failure(msgspec.Raw(b"{oops")).startswith("A msgspec.Raw value is not valid JSON")
    assert failure(10**5000).startswith("It cannot be encoded as JSON: ValueError: Exceeds the limit")


def test_too_large_results_are_refused_by_size() -> None:
    with pytest.raises(OutputError, match=r"It has 200,002 bytes of JSON; at most 150,000"):
        encode_output("x" * 200_000, limit=150_000)
    with pytest.raises(OutputError, match=r"bytes in PostgreSQL's jsonb; at most 268,435,455"):
        encode_output([1] * 22_000_000)


def test_numbers_beyond_postgresqls_numeric_are_refused() -> None:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        with pytest.raises(OutputError, match="no number of more than 131,072 digits"):
            encode_output(10**131_072)
    finally:
        sys.set_int_max_str_digits(before)


def test_an_array_step_must_return_a_list_or_yield_one() -> None:
    def yields() -> Iterator[int]:
        yield from range(3)

    def run(handler: Callable[..., Any]) -> tuple[int, bytes]:
        return prepare(Flow("demo").array("a", handler), "a").execute(b"{}", b"null", Context())

    assert run(lambda: [1]) == run(lambda: (1,)) == run(lambda: {1}) == (COMPLETED, b"[1]")
    assert run(yields) == run(lambda: iter([0, 1, 2])) == (COMPLETED, b"[0,1,2]")
    for wrong in (None, {"a": 1}, "abc", 5):
        kind, body = run(lambda wrong=wrong: wrong)
        assert kind == FAILED_FOR_GOOD
        assert b'Output of step "a" cannot be stored: An array step must return a list, not' in body


def test_an_iterator_becomes_an_array_in_every_kind_of_step() -> None:
    for make in (lambda: map(str, [1]), lambda: zip("1"), lambda: iter(["1"]), lambda: (str(n) for n in [1])):
        expected = b'[["1"]]' if isinstance(make(), zip) else b'["1"]'
        assert output(lambda _, make=make: make()) == expected
        flow = Flow("demo").step("s", lambda _, make=make: make())
        assert prepare(flow, "s").execute(b"{}", b"null", Context()) == (COMPLETED, expected)


def test_an_error_inside_a_generator_is_the_handlers_error() -> None:
    def yields(_: object) -> Iterator[int]:
        yield 1
        raise ValueError("half way")

    kind, body = run_map(yields, b"null")
    assert kind == FAILED
    assert body.startswith(b"ValueError: half way\n")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_every_json_value_passes_through_unchanged(value: Any) -> None:
    encoded = msgspec.json.encode(value)
    kind, body = run_map(lambda x: x, encoded)
    if b"\\u0000" in encoded and kind == FAILED_FOR_GOOD:
        assert b"NUL character" in body
    else:
        assert (kind, body) == (COMPLETED, encoded)


# Failures


def raising(error: BaseException) -> Callable[[object], None]:
    def handler(_: object) -> None:
        raise error

    return handler


def test_an_exception_is_retried_with_type_message_and_the_users_frames() -> None:
    kind, body = run_map(raising(ValueError("boom")), b"null")
    lines = body.decode().splitlines()
    assert kind == FAILED
    assert lines[:4] == [
        "ValueError: boom",
        "",
        "Traceback (most recent call last):",
        f'  File "{__file__}", line {lines[3].split("line ")[1].split(",")[0]}, in handler',
    ]
    assert 'handlers.py", line' not in body.decode().replace(__file__, "")


def test_permanent_errors_fail_for_good_also_in_groups() -> None:
    assert run_map(raising(PermanentError("no use")), b"null")[0] == FAILED_FOR_GOOD
    both = ExceptionGroup("two", [PermanentError("a"), PermanentError("b")])
    assert run_map(raising(both), b"null")[0] == FAILED_FOR_GOOD
    mixed = ExceptionGroup("two", [PermanentError("a"), ValueError("b")])
    kind, body = run_map(raising(mixed), b"null")
    assert kind == FAILED
    assert b"ValueError: b" in body


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError("deep"), GeneratorExit()]
)
def test_nothing_that_a_handler_raises_escapes(error: BaseException) -> None:
    kind, body = run_map(raising(error), b"null")
    assert kind == FAILED
    assert body.startswith(type(error).__name__.encode())


def test_endless_recursion_is_a_short_failure() -> None:
    def endless(x: int) -> int:
        return endless(x)

    kind, body = run_map(endless, b"1")
    assert kind == FAILED
    assert body.startswith(b"RecursionError: maximum recursion depth exceeded")
    assert len(body) < 4000


def test_exceptions_that_cannot_be_printed_are_still_recorded() -> None:
    class Nasty(Exception):
        def __str__(self) -> str:
            raise SystemExit("nasty")

    assert run_map(raising(Nasty()), b"null")[1].startswith(b"test_handlers.test_exceptions")


def test_an_error_text_is_bounded_and_safe_for_postgresql() -> None:
    kind, body = run_map(raising(ValueError("\0\ud800" + "é" * 100_000)), b"null")
    assert kind == FAILED
    assert len(body) <= 8 * 1024
    text = body.decode()
    assert "\0" not in text
    assert text.startswith("ValueError: \\x00\\ud800é")
    assert text.endswith("é")


def test_a_chained_cause_is_part_of_the_text() -> None:
    def handler(_: object) -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    body = run_map(handler, b"null")[1].decode()
    assert body.startswith("ValueError: second\n")
    assert "KeyError: 'first'" in body


def test_a_validation_error_of_the_handlers_own_is_retried() -> None:
    assert run_map(lambda _: msgspec.json.decode(b'"x"', type=int), b"null")[0] == FAILED


# Context


def test_the_context_describes_the_task() -> None:
    def look(x: int, ctx: Context) -> None:
        assert ctx.task == ("demo", "r", "m", 3, 5, 42, {"all": 1})
        assert (ctx.attempt, ctx.task_index) == (2, 3)
        config = cast(dict[str, Any], ctx.worker_config["a"])
        assert config["b"] == (1, 2)
        assert not ctx.shutdown.is_set()
        assert "PATH" in ctx.env
        with contextlib.suppress(TypeError):
            config["b"] = 1
            raise AssertionError("worker_config is frozen")
        ctx.log.warning("seen")

    runtime = Runtime(worker_config={"a": {"b": [1, 2]}})
    ctx = Context("r", "demo", "m", 3, 2, 42, b"5", b'{"all":1}', runtime)
    assert run_map(look, b"5", ctx) == (COMPLETED, b"null")


def test_log_lines_carry_the_task(caplog: pytest.LogCaptureFixture) -> None:
    run_map(lambda _, ctx: ctx.log.warning("seen"), b"null", Context("r", "demo", "m", 3))
    assert vars(caplog.records[0]).items() >= {"run_id": "r", "task_index": 3}.items()
    assert caplog.records[0].name == "pgflow_mp.task.demo.m"


def test_a_context_without_a_worker_has_no_database() -> None:
    kind, body = run_map(lambda _, ctx: ctx.connect(), b"null")
    assert kind == FAILED
    assert body.startswith(b"pgflow_mp.errors.ConfigError: This handler asked for a database connection")


def test_flow_input_is_decoded_once_per_run() -> None:
    runtime = Runtime()
    first = Context("r", raw_flow_input=b"[1]", runtime=runtime).flow_input
    assert Context("r", raw_flow_input=b"[1]", runtime=runtime).flow_input is first
    assert Context("other", raw_flow_input=b"[2]", runtime=runtime).flow_input == [2]
