"""Parents whose outputs are too large to be handed over: what a handler gets instead, by its annotation."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict, cast

import msgspec
import psycopg
import pytest
from database_server import DatabaseServer

from pgflow_mp import Context, Flow
from pgflow_mp.flows import page_reader
from pgflow_mp.flows.context import Runtime
from pgflow_mp.flows.handlers import FAILED, FAILED_FOR_GOOD, prepare
from pgflow_mp.flows.page_reader import Page
from pgflow_mp.flows.paged import Outputs

# -- the lazy sequence -------------------------------------------------------------------------------


class Pages:
    """Pages of the numbers from 0 on, cut at these places; counts what is read."""

    def __init__(self, *ends: int) -> None:
        self.ends = ends
        self.reads: list[int] = []

    def read(self, index: int) -> Page:
        self.reads.append(index)
        first = max((end for end in (0, *self.ends) if end <= index), default=0)
        end = min(end for end in self.ends if end > index)
        return Page(first, end - first, bytearray(msgspec.json.encode(list(range(first, end)))))

    def outputs(self) -> Outputs[int]:
        return Outputs(
            self.ends[-1], self.read, lambda page: msgspec.json.decode(page.body), msgspec.json.decode
        )


def test_it_is_iterated_page_by_page_and_again() -> None:
    pages = Pages(3, 4, 9, 10)
    outputs = pages.outputs()
    for _ in range(2):
        pages.reads.clear()
        numbers = iter(outputs)
        assert next(numbers) == 0
        assert pages.reads == [0]
        assert list(numbers) == list(range(1, 10))
        assert pages.reads == [0, 3, 4, 9]
    assert [(a, b) for a in outputs for b in outputs if a + b == 18] == [(9, 9)]


def test_it_is_a_sequence_as_a_list_is_one() -> None:
    outputs, plain = Pages(3, 4, 9, 10).outputs(), list(range(10))
    assert isinstance(outputs, Sequence)
    assert (len(outputs), bool(outputs), bool(Pages(0).outputs())) == (10, True, False)
    assert [outputs[index] for index in range(-10, 10)] == [plain[index] for index in range(-10, 10)]
    for index in (10, -11):
        with pytest.raises(IndexError):
            outputs[index]
    for part in (
        slice(2, 5),
        slice(None),
        slice(None, None, -1),
        slice(8, 1, -3),
        slice(7, 2),
        slice(-2, None),
    ):
        assert outputs[part] == plain[part]
    assert list(reversed(outputs)) == plain[::-1]
    assert (7 in outputs, 11 in outputs, outputs.index(8), outputs.count(3)) == (True, False, 8, 1)
    assert outputs == plain
    assert plain == outputs
    assert outputs == Pages(10).outputs()
    assert outputs != plain[:-1]
    assert outputs != tuple(plain)
    assert repr(outputs) == "<10 outputs>"
    assert pickle.loads(pickle.dumps(outputs)) == copy.copy(outputs) == copy.deepcopy(outputs) == plain


def test_neighbours_are_read_together_in_both_directions() -> None:
    pages = Pages(1000, 2000, 3000)
    outputs = pages.outputs()
    assert [outputs[index] for index in range(3000)] == list(range(3000))
    assert pages.reads == [0, 1000, 2000]
    pages.reads.clear()
    assert [outputs[index] for index in range(2999, -1, -1)] == list(range(3000))[::-1]
    assert pages.reads == [1000, 0]
    pages.reads.clear()
    assert list(reversed(outputs)) == list(range(3000))[::-1]
    assert pages.reads == [2000, 1000, 0]


def test_the_page_before_is_found_however_much_pages_differ() -> None:
    pages = Pages(1, 2, 900, 901, 902, 903, 2903)
    outputs = pages.outputs()
    assert list(reversed(outputs)) == list(range(2903))[::-1]
    assert [outputs[index] for index in range(2902, -1, -1)] == list(range(2903))[::-1]


def test_elements_are_made_anew() -> None:
    page = Page(0, 1, bytearray(b"[[1]]"))
    outputs: Outputs[list[int]] = Outputs(
        1, lambda _: page, lambda page: msgspec.json.decode(page.body), msgspec.json.decode
    )
    for element in outputs:
        element.append(2)
    outputs[0].append(3)
    assert list(outputs) == [outputs[0]] == [[1]]


# -- in a handler ------------------------------------------------------------------------------------


@dataclass
class Point:
    x: int


class Parents(TypedDict):
    a: list[Point]
    b: Sequence[Point]
    c: int


@pytest.fixture(scope="module")
def run(server: DatabaseServer, template: str) -> Iterator[tuple[str, str]]:
    """Where a run is whose maps a and b have a thousand outputs {"x": index}, of which b lacks the fifth."""
    with server.database(template) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        for query in (
            "select pgflow.create_flow('paged')",
            "select pgflow.add_step('paged', 'a', step_type => 'map')",
            "select pgflow.add_step('paged', 'b', step_type => 'map')",
            "select pgflow.add_step('paged', 'c')",
            "select pgflow.add_step('paged', 's', array['a', 'b', 'c'])",
        ):
            conn.execute(query)
        row = conn.execute(
            "select run_id::text from pgflow.start_flow('paged',"
            " (select jsonb_agg(i) from generate_series(1, 1000) i))"
        ).fetchone()
        assert row is not None
        conn.execute(
            "update pgflow.step_tasks set status = 'started', started_at = now(), attempts_count = 1"
        )
        conn.execute(
            "select pgflow.complete_tasks(%s, slug, array_agg(i), array_agg("
            "  case when slug = 'a' or i <> 5 then jsonb_build_object('x', i) end))"
            " from generate_series(0, 999) i, unnest(array['a', 'b']) slug group by slug",
            row,
        )
        conn.execute("select pgflow.complete_tasks(%s, 'c', array[0], array['7'::jsonb])", row)
        yield dsn, row[0]


PAGED: dict[str, int | None] = {"a": 1000, "b": 1000}
LIST = [Point(x) for x in range(1000)]


def call(run: tuple[str, str], handler: Callable[..., Any], **paged: int | None) -> tuple[int, Any]:
    """The kind and the output of a step over a, b and c that this handler is of."""
    flow = Flow("paged")
    for slug in "ab":
        flow.map(slug, lambda x: x)
    flow.step("c", lambda: 7)
    flow.step("s", handler, depends_on=["a", "b", "c"])
    dsn, run_id = run
    runtime = Runtime(dsn=dsn)
    wanted = paged or PAGED
    given = {slug: 7 for slug in "c" if slug not in wanted}
    context = Context(run_id=run_id, raw_input=msgspec.json.encode(given), paged=wanted, runtime=runtime)
    kind, body = prepare(flow, "s").execute(context.raw_input, None, context)
    assert runtime.outputs._connection is None
    runtime.close()
    return kind, msgspec.json.decode(body) if kind == 0 else body.decode()


@pytest.mark.parametrize("page_bytes", [1, 5000, 1 << 20])
def test_a_sequence_is_lazy_and_a_list_is_a_list(
    run: tuple[str, str], monkeypatch: pytest.MonkeyPatch, page_bytes: int
) -> None:
    monkeypatch.setattr(page_reader, "PAGE_BYTES", page_bytes)

    def handler(a: Sequence[Point], c: int) -> Any:
        return [type(a).__name__, len(a), a[600].x, sum(point.x for point in a), a[-1].x, c]

    def eager(a: list[Point], b: Any, c: int) -> Any:
        return [a == LIST, type(b).__name__, b[4:6], len(b), c]

    if page_bytes > 1:
        assert call(run, handler) == (0, ["Outputs", 1000, 600, 499500, 999, 7])
    assert call(run, eager) == (0, [True, "list", [{"x": 4}, None], 1000, 7])


def test_what_each_annotation_gives(run: tuple[str, str]) -> None:
    given: list[Any] = []

    def lazy(a: Iterable[Point] | None, b: Collection[Point | None]) -> None:
        given.extend([list(a or ()), type(b), sum(1 for point in b if point is None)])

    def iterated(a: Iterator[Point], b: Iterable[Any]) -> None:
        given.extend([next(a), next(a), list(b)[5]])

    def others(a: tuple[Point, ...], **rest: Any) -> None:
        given.extend([a == tuple(LIST), sorted(rest), type(rest["b"]), len(rest["b"])])

    def limited(a: Annotated[list[Point], msgspec.Meta(max_length=3)]) -> None:
        given.append("not reached")

    def nothing() -> int:
        return 5

    def optional(b: list[Point | None] | None = None, unknown: int = 3) -> None:
        given.append(b and b[5:7])

    assert call(run, lazy)[0] == 0
    assert given == [LIST, Outputs, 1]
    given.clear()
    assert call(run, iterated)[0] == 0
    assert given == [Point(0), Point(1), None]
    given.clear()
    assert call(run, others)[0] == 0
    assert given == [True, ["b", "c"], list, 1000]
    given.clear()
    assert call(run, optional)[0] == 0
    assert given == [[None, Point(6)]]
    kind, error = call(run, limited)
    assert (kind, "of length <= 3" in error) == (FAILED_FOR_GOOD, True)
    assert call(run, nothing) == (0, 5)


def test_what_a_mapping_of_all_parents_gives(run: tuple[str, str]) -> None:
    given: list[Any] = []

    def plain(outputs: Mapping[str, Any]) -> None:
        a = outputs["a"]
        given.extend([type(outputs).__name__, sorted(outputs), outputs["c"], type(a), len(a)])

    def typed(outputs: dict[str, Any], ctx: Context) -> None:
        input = cast(dict[str, Any], ctx.task.input)
        given.extend([type(outputs), outputs["b"][5], input["a"][7], sorted(input)])

    def lazy(outputs: dict[str, int | Sequence[Any]]) -> None:
        given.append(len(outputs["a"]) if isinstance(outputs["a"], Sequence) else None)

    def shaped(outputs: Parents) -> None:
        given.append(outputs["a"] == LIST)

    assert call(run, plain)[0] == 0
    assert given == ["mappingproxy", ["a", "b", "c"], 7, list, 1000]
    given.clear()
    assert call(run, typed)[0] == 0
    assert given == [dict, None, {"x": 7}, ["a", "b", "c"]]
    given.clear()
    assert call(run, lazy)[0] == 0
    assert given == [1000]
    kind, error = call(run, shaped)
    assert (kind, "got `null` - at `$.b[5]`" in error) == (FAILED_FOR_GOOD, True)


def test_an_element_that_does_not_fit_is_named_by_its_place(
    run: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "PAGE_BYTES", 60)

    def handler(b: Iterable[Point]) -> int:
        return sum(point.x for point in b)

    def eager(b: list[Point]) -> int:
        return len(b)

    text = 'Input of step "s" does not fit parameter "b": Expected `object`, got `null` - at `$[5]`'
    for each in (handler, eager):
        assert call(run, each) == (FAILED_FOR_GOOD, f"InputMismatch: {text}")


def test_a_result_that_is_or_streams_the_outputs_is_stored(run: tuple[str, str]) -> None:
    def same(a: Sequence[Any]) -> Any:
        return a

    def streamed(a: Iterable[Point]) -> Iterator[int]:
        yield from (point.x for point in a)

    plain = [{"x": x} for x in range(1000)]
    assert call(run, same) == (0, plain)
    assert call(run, streamed) == (0, list(range(1000)))


def test_one_value_is_read_by_the_process_too(run: tuple[str, str]) -> None:
    def handler(a: Iterable[Any], c: int) -> list[int]:
        return [len(list(a)), c]

    assert call(run, handler, a=1000, c=None) == (0, [1000, 7])


def test_threads_share_it(run: tuple[str, str]) -> None:
    def handler(a: Sequence[Point]) -> bool:
        with ThreadPoolExecutor(4) as pool:
            found = pool.map(lambda start: [a[index].x for index in range(start, 1000, 50)], range(8))
        return list(found) == [list(range(start, 1000, 50)) for start in range(8)]

    assert call(run, handler) == (0, True)


def test_a_transaction_of_the_handler_goes_on(run: tuple[str, str]) -> None:
    def handler(a: Sequence[Point], ctx: Context) -> Any:
        conn = ctx.connect()
        with conn.transaction():
            conn.execute("create temp table mine (x int)")
            total = sum(point.x for point in a)
            return [total, conn.execute("select count(*) from mine").fetchone()]

    assert call(run, handler) == (0, [499500, [0]])


def test_a_connection_that_is_lost_is_made_again(
    run: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_reader, "PAGE_BYTES", 5000)

    def handler(a: Iterable[Point]) -> int:
        points = []
        for point in a:
            points.append(point)
            if point.x == 500:
                with psycopg.connect(run[0], autocommit=True) as conn:
                    ended = conn.execute(
                        "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                        " where application_name = 'pgflow_mp outputs' and datname = current_database()"
                    ).fetchone()
                assert ended is not None
                assert ended[0] >= 1  # one of the test before may still be on its way out
        return len(points)

    assert call(run, handler) == (0, 1000)


def test_limits_of_time_of_a_database_do_not_reach_the_reads(run: tuple[str, str]) -> None:
    def handler(a: Iterable[Point]) -> int:
        return sum(point.x for point in a)

    limited = psycopg.conninfo.make_conninfo(run[0], options="-c statement_timeout=1")
    assert call((limited, run[1]), handler) == (0, 499500)


def test_outputs_that_are_gone_fail_the_item_with_their_step(run: tuple[str, str]) -> None:
    def handler(a: Iterable[Point]) -> int:
        return len(list(a))

    kind, error = call((run[0], "00000000-0000-0000-0000-000000000000"), handler)
    assert kind == FAILED
    assert 'The outputs of step "a" are gone from item 0 on: run 00000000' in error
