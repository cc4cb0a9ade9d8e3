"""run() and imap() where another run of 10,000 items waits: their own comes first, or is all they do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cli_harness import FLOWS, Cli
from database_server import DatabaseServer
from streaming_flows import in_ranges, in_tasks
from worker_harness import adapted

from pgflow_mp import Client, ConfigError
from pgflow_mp.db import engine
from pgflow_mp.flows.flow import Flow
from pgflow_mp.runner import resume, run
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.worker import Worker

HERE = Path(__file__).parent
WAITING = 10_000
BOTH = pytest.mark.parametrize("flow", [in_tasks, in_ranges], ids=lambda flow: str(flow.slug))


@pytest.fixture
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """A database for one test: no other run is in the way."""
    with server.database(template) as found:
        yield found


@pytest.fixture
def crowded(dsn: str, flow: Flow) -> str:
    """The id of a run that waits, with 10,000 items, for a worker."""
    with Client(dsn) as client:
        return client.start(flow, [n % 12 for n in range(WAITING)]).run_id


def open_items(dsn: str, run_id: str) -> int | None:
    with adapted(dsn) as conn:
        (step, *_) = engine.run_progress(conn, run_id)
        return step.remaining_tasks


def touched(dsn: str, run_id: str) -> int:
    """Tasks that anybody began with, and items that anybody leased."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "select (select count(*) from pgflow.step_tasks where run_id = %(run)s and attempts_count > 0)"
            " + (select coalesce(sum(next_index), 0) from pgflow.range_maps where run_id = %(run)s)",
            {"run": run_id},
        ).fetchone()
    assert row is not None
    return int(row[0])


@BOTH
def test_only_does_nothing_else_and_ends_with_its_run(dsn: str, flow: Flow, crowded: str) -> None:
    options: dict[str, Any] = {"dsn": dsn, "workers": 2, "only": True, "timeout": 60.0}
    first = run(flow, list(range(300)), run_id="00000000-0000-0000-0000-000000000001", **options)
    assert len(next(iter(first.values()))) == 300
    assert len(list(flow.imap(range(50), **options))) == 50
    again = resume(flow, "00000000-0000-0000-0000-000000000001", **options)
    assert again == first
    assert (open_items(dsn, crowded), touched(dsn, crowded)) == (WAITING, 0)


@BOTH
def test_without_it_the_own_items_are_begun_before_any_other(dsn: str, flow: Flow, crowded: str) -> None:
    with Client(dsn) as client:
        mine = client.start(flow, list(range(200))).run_id
    resume(flow, mine, dsn=dsn, workers=2, timeout=60.0)
    left = open_items(dsn, crowded)
    assert left is not None
    assert left > 0, "others were served to their end before the own run was seen to have ended"
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "select max(f.at) filter (where f.run_id = %(run)s), min(f.at) filter (where f.run_id <> %(run)s)"
            " from (select run_id, started_at as at from pgflow.step_tasks where started_at is not null"
            "   union all select run_id, leased_at from pgflow.pages where is_result"
            " ) f",
            {"run": mine},
        ).fetchone()
    assert row is not None
    last, first_of_others = row
    assert first_of_others is None or last <= first_of_others


def test_a_worker_of_no_run_refuses_only() -> None:
    with pytest.raises(ConfigError, match="is for a worker with a run of its own"):
        Worker(WorkerSettings(dsn="", targets=("flows.py",), only=True)).run()


def test_the_command_line_has_it_too(dsn: str, tmp_path: Path) -> None:
    cli = Cli(tmp_path, dsn)
    waiting = cli("start", f"{FLOWS}:square", "--input", f"[{', '.join(['1'] * 1000)}]").out.strip()
    mine = cli("start", f"{FLOWS}:square", "--input", "[3]").out.strip()
    done = cli("run", f"{FLOWS}:square", "--input", "[2]", "--only", "--output", "-", "--workers", "1")
    assert (done.code, done.out) == (0, '{"times": [4]}\n')
    assert (
        f"leaving 2 other runs of square that have not ended ({waiting}, {mine}) to other workers" in done.err
    )
    done = cli("run", f"{FLOWS}:square", "--resume", mine, PGFLOW_ONLY="1", PGFLOW_WORKERS="1")
    assert done.code == 0, done
    assert (open_items(dsn, mine)) == 0
    assert (open_items(dsn, waiting), touched(dsn, waiting)) == (1000, 0)
