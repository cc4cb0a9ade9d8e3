"""The report of a run says what the rows say, in a file of bounded size that does no harm."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec
import pytest
from failed_runs import failed_run
from html_pages import Page, number
from played_run import Played, counted
from worker_harness import adapted

from pgflow_mp.db import engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.observe.run_html import gather, write
from pgflow_mp.observe.run_html.gathering import RunDocument
from pgflow_mp.observe.run_html.usage import usage_of
from pgflow_mp.observe.run_reports import ItemCounts, total
from pgflow_mp.observe.work_reports import SpanReport

HOSTILE = "</code></pre><script>alert(1)</script><img src=x onerror=alert(2)> & \" ' \x1b[31m"
COLUMNS: dict[str, Callable[[ItemCounts], int]] = {
    "items": lambda counts: counts.items,
    "completed": lambda counts: counts.completed,
    "failed": lambda counts: counts.failed,
    "tolerated": lambda counts: counts.tolerated,
    "unfinished": lambda counts: counts.running + counts.waiting + counts.queued,
    "dropped": lambda counts: counts.cancelled + counts.skipped,
    "attempts": lambda counts: counts.attempts,
}


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    with adapted(dsn) as conn:
        yield conn


def document_of(conn: Connection, run_id: str) -> RunDocument:
    found = gather(conn, run_id, "PostgreSQL at here")
    assert found is not None
    return found


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in range(2, 12))])
def test_its_sums_are_those_of_the_rows_whatever_has_happened(
    conn: Connection, storage: str, seed: int
) -> None:
    played = Played(conn, storage, seed)
    for turn in range(60):
        played.play()
        if turn % 10 != 9:
            continue
        page, rows = Page(write(document_of(conn, played.run))), counted(conn, played.run)
        told = {row["step"]: row for row in page.rows("Items of each step")}
        for name, count in COLUMNS.items():
            for slug, counts in rows.items():
                assert number(told[slug].get(name, "")) == count(counts), (slug, name)
            assert number(told["all"].get(name, "")) == count(total(rows.values())), name
        failed = [re.match(r"([\d,]+) items? of (\w+) ", text) for text in page.texts]
        sums = dict.fromkeys(rows, 0)
        for found in filter(None, failed):
            sums[found[2]] += number(found[1])
        assert sums == {slug: counts.failed for slug, counts in rows.items()}


def test_nothing_in_it_is_read_as_code_and_no_password_is_in_it(conn: Connection) -> None:
    secrets = 'at postgresql://me:topsecret@host/db password=\'alsosecret\' {"api_token": "thirdsecret"}'
    error = f"ValueError: {HOSTILE} {secrets}\n  more lines of {HOSTILE}"
    run = failed_run(conn, 3, f"'{error.replace(chr(39), chr(39) * 2)}' || i".replace("%", "%%"), "failed")
    given = json.dumps({"name": HOSTILE, "password": "fourthsecret", "url": "ftp://a:fifthsecret@b"})
    conn.execute("update pgflow.step_tasks set input = %s::text::jsonb", (given,))
    conn.execute("update pgflow.step_states set error_message = %s", (f"{HOSTILE} {secrets}",))
    conn.execute("update pgflow.runs set status = 'failed', failed_at = now()")
    conn.execute("select pgflow.tag_run(%s::uuid, array['nightly'])", (run,))
    html = write(document_of(conn, run)._replace(place="PostgreSQL at x:password=sixthsecret"))
    page = Page(html)
    assert page.tags.isdisjoint({"script", "img", "link", "iframe", "object", "form", "base"})
    assert not [name for name in page.attributes if name.startswith("on") or name in ("style", "src")]
    assert all(link.startswith("#") for link in page.links)
    assert "http-equiv" in page.attributes
    assert "default-src 'none'" in html
    assert "secret" not in page.text
    assert "\x1b" not in html
    assert "<script>alert(1)</script>" in page.text
    assert "tags nightly" in page.text
    assert page.text.count("more lines of") == 3
    assert "url(" not in html


def test_however_much_has_failed_it_is_of_bounded_size(conn: Connection) -> None:
    kinds = "'abcdefghijklmnopqrstuvwxyz'"
    error = (
        f"'Error_' || substr({kinds}, 1 + i %% 26, 1) || substr({kinds}, 1 + i / 26 %% 26, 1)"
        " || ': ' || repeat('long ' || i || chr(10), 4000)"
    )
    run = failed_run(conn, 2_000, error.replace("%%", "%"), "failed")
    conn.execute("update pgflow.step_tasks set input = to_jsonb(repeat('x', 20000))")
    html = write(document_of(conn, run))
    page = Page(html)
    assert len(html) < 2_000_000
    shown = sum(
        number(found[1]) for found in (re.match(r"([\d,]+) items? of m ", t) for t in page.texts) if found
    )
    others = sum(number(row["items"]) for row in page.rows("Further groups"))
    assert shown + others == 2_000
    assert "characters left out" in html


@pytest.mark.slow
def test_a_million_items_and_a_hundred_thousand_failures_take_no_more_than_a_few_seconds(
    conn: Connection,
) -> None:
    run = failed_run(conn, 100_000, "'ValueError: no ' || i || chr(10) || 'in a line'", "started")
    conn.execute("update pgflow.step_states set initial_tasks = 1000000, remaining_tasks = 900000")
    began = datetime.now(UTC)
    html = write(document_of(conn, run))
    assert (datetime.now(UTC) - began).total_seconds() < 20
    assert len(html) < 200_000
    assert "100,000 items of m were tolerated" in html


def test_a_run_of_which_nobody_has_told_anything_and_one_of_no_items_have_a_report(conn: Connection) -> None:
    conn.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 'm', step_type => 'map')")
    waiting, empty = (engine.start_flow(conn, "f", text) for text in (b"[1]", b"[]"))
    page = Page(write(document_of(conn, waiting)))
    assert "No worker that is alive takes items of m." in page.texts
    assert "No worker has told what its lanes did." in page.texts
    assert "It has not ended" in page.text
    assert "retry" not in page.text
    assert "No item has failed." in Page(write(document_of(conn, empty))).texts
    assert gather(conn, uuid.uuid4()) is None
    assert conn.execute("show transaction_read_only").fetchone() == ("off",)


def test_all_of_it_is_of_one_moment(conn: Connection, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = failed_run(conn, 5, "'ValueError: no ' || i", "started")
    ask = engine.run_progress

    def later(conn: Connection, run_id: str) -> list[engine.StepProgress]:
        with adapted(dsn) as other:
            other.execute("delete from pgflow.step_tasks where task_index = 4")
            other.execute("update pgflow.step_states set failed_tasks = 4, initial_tasks = 4")
        return ask(conn, run_id)

    monkeypatch.setattr(engine, "run_progress", later)
    document = document_of(conn, run)
    assert document.run.counts.failed == document.failures.failed == 5


def test_a_role_that_may_only_read_gets_it(conn: Connection) -> None:
    run = failed_run(conn, 5, "'ValueError: no ' || i", "started")
    conn.execute("create role pgflow_mailer")
    try:
        conn.execute("select pgflow.grant_access('pgflow_mailer', 'reader')")
        conn.execute("set role pgflow_mailer")
        assert document_of(conn, run).failures.failed == 5
    finally:
        conn.execute("reset role")
        conn.execute("drop owned by pgflow_mailer")
        conn.execute("drop role pgflow_mailer")


def test_usage_is_what_the_lanes_did() -> None:
    def span(lane: int, first: int, last: int, seconds: float, items: int) -> SpanReport:
        at = [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (first, last)]
        return SpanReport(
            worker="w",
            lane=lane,
            step_slug="s",
            first_index=0,
            items=items,
            failed=0,
            outcome="completed",
            seconds=seconds,
            started_at=at[0],
            ended_at=at[1],
        )

    begin, end = (datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (0, 20))
    usage = usage_of([span(0, 0, 20, 20, 40), span(1, 0, 10, 5, 100)], begin, end)
    assert usage.lanes == 2
    assert usage.share == pytest.approx(25 / 40)
    values = [value or 0.0 for _, value in usage.in_use.points]
    assert values[:59] == pytest.approx([1.5] * 59)
    assert values[61:] == pytest.approx([1.0] * 59)
    width = 20 / len(usage.items.points)
    assert sum((value or 0.0) * width for _, value in usage.items.points) == pytest.approx(140)


def test_the_document_is_plain_data(conn: Connection) -> None:
    run = failed_run(conn, 1, "'ValueError: no ' || i", "started")
    told = msgspec.json.decode(msgspec.json.encode(document_of(conn, run)._asdict()))
    assert told["run"]["run_id"] == run
