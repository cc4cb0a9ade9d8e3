"""A run with failures, retries, a skip, tolerated items, a takeover: whoever tells of it tells the same."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_harness import Cli, finish
from html_pages import Page, number
from web_harness import serve

pytest.importorskip("starlette")
text_string_to_metric_families = pytest.importorskip(
    "prometheus_client.parser"
).text_string_to_metric_families
pytestmark = pytest.mark.slow

ITEMS = 60
FLOW = """
import time

from pgflow_mp import Context, Flow

flow = Flow("summed", max_attempts=2, base_delay=1, storage="STORAGE")

@flow.map(tolerate=4)
def tried(n: int, ctx: Context) -> int:
    time.sleep(0.1)
    if n in (53, 58) or (n == 55 and ctx.attempt == 1):
        raise ValueError(f"{n} is bad")
    return n

@flow.step(when={"unheard": "of"}, when_unmet="skip")
def skipped() -> int:
    return 1

@flow.step(depends_on=[tried])
def total(tried: list[int | None]) -> int:
    return sum(n is None for n in tried)
"""
COUNTS = ("items", "completed", "failed", "tolerated", "skipped", "attempts")
TRUTH = """
select i.step_slug, count(*), count(*) filter (where i.status = 'completed'),
  count(*) filter (where i.status = 'failed'), count(*) filter (where i.status = 'failed'),
  count(*) filter (where i.status = 'skipped'), coalesce(sum(i.attempts), 0)::int
from pgflow.items i group by i.step_slug
"""
Sums = dict[str, dict[str, int]]


@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_all_tell_the_same_of_a_run_to_which_everything_happened(cli: Cli, dsn: str, storage: str) -> None:
    (cli.cwd / "summed.py").write_text(FLOW.replace("STORAGE", storage))
    run = cli("start", "summed.py", "--input", json.dumps([*range(ITEMS)])).out.strip()
    common = ("summed.py", "--workers", "2", "--dead-after", "3", "--heartbeat-interval", "1")
    dead = cli.start(*common)
    with psycopg.connect(dsn, autocommit=True) as conn:
        wait(conn, "select count(*) >= 8 from pgflow.items where status = 'completed'")
        os.kill(dead.pid, signal.SIGKILL)
        dead.communicate()
        before = value(conn, "select count(*) from pgflow.items where status = 'completed'")
        other = cli.start(*common, "--metrics-port", "0")
        url = told(other, r"http://\S+/metrics")
        wait(conn, "select status <> 'started' from pgflow.runs")
        truth = {
            slug: dict(zip(COUNTS, rest, strict=True))
            for slug, *rest in conn.execute(TRUTH.encode()).fetchall()
        }
    assert truth["tried"]["attempts"] == ITEMS + 3, "what is taken over is not charged"
    assert (truth["tried"]["failed"], truth["total"]["completed"]) == (2, 1)
    everything = {name: sum(counts[name] for counts in truth.values()) for name in COUNTS}

    status = cli("status", run, "--json").json
    steps = {step["step_slug"]: step["counts"] for step in status["steps"]}
    assert {
        slug: {name: counts[name] for name in COUNTS} for slug, counts in steps.items() if slug in truth
    } == truth
    assert steps["skipped"]["items"] == truth.get("skipped", {"items": 0})["items"]
    assert {name: status["counts"][name] for name in COUNTS} == everything
    assert (status["items"], status["done"]) == (
        everything["items"],
        everything["items"] - everything["skipped"],
    )
    listed = cli("runs", "--json").json["runs"][0]
    assert listed["counts"] == status["counts"]

    page = Page(_report(cli, run))
    rows = {row["step"]: row for row in page.rows("Items of each step")}
    for name in ("items", "completed", "failed", "tolerated", "attempts"):
        for slug, counts in truth.items():
            assert number(rows[slug].get(name, "")) == counts[name], (slug, name)
        assert number(rows["all"].get(name, "")) == everything[name], name

    web = serve(cli)
    words = web.ask(f"/runs/{run}").words
    assert f"{status['done']} of {status['items']} items done, 2 failed (tolerated)" in words
    assert f"Attempts {everything['attempts']}" in words
    found = samples(web.ask("/metrics").text)
    assert found["pgflow_runs_ended_last_day", ("summed", "completed")] == 1
    assert sum(number for (name, _), number in found.items() if name in ("pgflow_runs", "pgflow_items")) == 0
    found = samples(urllib.request.urlopen(url, timeout=10).read().decode())
    assert found["pgflow_worker_items_total", ("summed", "completed", "tried")] == (
        truth["tried"]["completed"] - before
    )
    assert found["pgflow_worker_items_total", ("summed", "failed", "tried")] == 2
    assert found["pgflow_worker_failed_attempts_total", ("summed", "tried")] == 5
    assert found["pgflow_worker_retries_total", ()] == 3
    other.terminate()
    assert finish(other).code in (0, 143)


def _report(cli: Cli, run: str) -> str:
    assert cli("report", run, "-o", "report.html").code == 0
    return Path(cli.cwd, "report.html").read_text(encoding="utf-8")


def samples(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """By name and the values of labels, in the order of their names."""
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def wait(conn: psycopg.Connection[Any], query: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not value(conn, query):
        assert time.monotonic() < deadline, query
        time.sleep(0.05)


def told(process: Any, pattern: str, seconds: float = 30.0) -> str:
    """What a command says that fits the pattern."""
    text, deadline = "", time.monotonic() + seconds
    while (found := re.search(pattern, text)) is None:
        assert time.monotonic() < deadline, text
        if select.select([process.stderr], [], [], 0.2)[0]:
            piece = os.read(process.stderr.fileno(), 1 << 16).decode()
            assert piece, text
            text += piece
    return found[0]
