"""All who count what failed count the same, after retries, time-outs, crashes, skips and a takeover."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import Any

import msgspec
import psycopg
import pytest
from cli_harness import Cli, finish
from html_pages import Page, number
from played_run import counted as counted_items
from worker_harness import eventually

from pgflow_mp import Client
from pgflow_mp.observe.run_reports import total as sum_of
from pgflow_mp.testing import audit_run

CODE = """
import os
import time
from pgflow_mp import Context, Flow, PermanentError

flow = Flow("sums", max_attempts=2, base_delay=1, timeout=3, storage="{storage}")

@flow.map(tolerate=0.9)
def work(number: int, ctx: Context) -> int:
    if number % 10 == 1 and ctx.attempt == 1:
        raise ValueError(f"not yet {{number}}")
    if number % 10 == 2:
        raise ValueError(f"no {{number}}")
    if number % 10 == 3:
        raise PermanentError(f"never {{number}}")
    if number == 4:
        time.sleep(60)
    if number in (5, 15):
        os.abort()
    time.sleep(0.05)
    return number

@flow.map(over=work, when_exhausted="skip", max_attempts=1)
def optional(number: int | None) -> int:
    if number == 7:
        raise KeyError("seven")
    return 1

@flow.step(depends_on=[work, optional], max_attempts=1)
def last(work: list[int | None], optional: list[int] | None = None) -> int:
    raise ValueError("nothing fits")
"""
ITEMS = 60


def counted(dsn: str, run_id: str) -> Counter[str]:
    """Failed items by step, as the view has them."""
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []
        rows = conn.execute(
            "select step_slug, count(*)::int from pgflow.items where run_id = %s and status = 'failed'"
            " group by step_slug",
            (run_id,),
        ).fetchall()
    return Counter(dict(rows))


def items_of(groups: list[dict[str, Any]], member: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for group in groups:
        found[group[member]] += group["items"]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_all_who_count_failures_count_the_same(cli: Cli, storage: str) -> None:
    assert cli.dsn is not None
    (cli.cwd / "sums.py").write_text(CODE.format(storage=storage))
    first = cli.start("run", "sums.py", "--input", json.dumps([*range(ITEMS)]), "--workers", "2")
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        query = "select run_id::text from pgflow.items where status = 'completed' limit 1"
        (run_id,) = eventually(lambda: conn.execute(query).fetchone(), 30)
    first.send_signal(signal.SIGKILL)
    finish(first)
    ended = cli("run", "sums.py", "--resume", run_id, "--workers", "2", "--dead-after", "4", "--json")
    assert ended.code == 1, ended
    summary = ended.json
    expected = counted(cli.dsn, run_id)
    assert expected == {"work": 2 * ITEMS // 10 + 3, "optional": 1, "last": 1}
    total = expected.total()
    status = cli("status", run_id, "--json").json
    told = cli("failures", run_id, "--json", "--all").json
    assert (summary["failed"], status["failed_tasks"], told["failed"]) == (total, total, total)
    assert {step["step_slug"]: step["failed_tasks"] for step in status["steps"]} == dict(expected)
    assert summary["failure_groups"] == status["failure_groups"]
    with psycopg.connect(cli.dsn) as conn:
        stored = counted_items(conn, run_id)
    assert {step["step_slug"]: step["counts"] for step in status["steps"]} == {
        slug: msgspec.to_builtins(counts) for slug, counts in stored.items()
    }
    [listed] = cli("runs", "--json").json["runs"]
    assert listed["counts"] == status["counts"] == msgspec.to_builtins(sum_of(stored.values()))
    assert listed["counts"]["attempts"] > listed["done"] > listed["counts"]["tolerated"] > 0
    assert len(summary["failures"]) == min(20, total)
    assert Counter(item["step"] for item in told["items"]) == expected
    with Client(cli.dsn) as client:
        groups = client.failures(run_id)
        page = Page(client.html_report(run_id))
    rows = {row["step"]: row for row in page.rows("Items of each step")}
    assert {slug: number(rows[slug]["failed"]) for slug in expected} == dict(expected)
    assert number(rows["all"]["failed"]) == total
    assert f"{total} items in {len(groups)} groups of alike errors" in page.text
    assert sum(group.items for group in groups) == total
    assert [(group.error, group.items) for group in groups] == [
        (group["error"], group["items"]) for group in told["groups"]
    ]
    assert items_of(told["groups"], "step") == expected
    assert items_of(told["groups"], "outcome") == {
        "failed": 1, "skipped": 1, "tolerated": expected["work"]
    }  # fmt: skip
    assert items_of(told["groups"], "kind") == {"timed out": 1, "crashed": 2, "error": total - 3}
    by_pattern = {group["pattern"]: group["items"] for group in told["groups"]}
    assert (by_pattern["ValueError: no *"], by_pattern["PermanentError: never *"]) == (6, 6)
    assert summary["failures"][0]["step"] == "last"
    shown = cli("status", run_id).out
    assert f"\n{expected['work']} failed and tolerated (1 timed out, 2 crashed)\n" in shown
    assert "\n1 failed\n  last[0] " in shown
    assert "\n1 failed and had the step skipped\n  optional[7] 7: KeyError: 'seven'\n" in shown
