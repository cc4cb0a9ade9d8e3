"""Options of the code and of the database: who brings them in line, and what is told about it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import DatabaseServer
from worker_harness import FLOWS, Tasks, eventually, run_row, settings, start, threaded

from pgflow_mp.errors import ShapeMismatch
from pgflow_mp.observe.observer import FailedAttempt
from pgflow_mp.worker.worker import Worker


class Ear:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []
        self.finals: list[bool] = []

    def on_message(self, level: str, text: str) -> None:
        self.messages.append((level, text))

    def on_failure(self, failure: FailedAttempt) -> None:
        self.finals.append(failure.final)

    def on_state(self, state: str) -> None: ...

    def on_progress(self, snapshot: Any) -> None: ...

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [(level, text) for level, text in self.messages if " is now " in text]


@pytest.fixture
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """A database for each test."""
    with server.database(template) as found:
        yield found


def change(dsn: str, query: str) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(query.encode())


def known_workers(dsn: str) -> bool:
    with psycopg.connect(dsn) as conn:
        return conn.execute("select count(*) from pgflow.workers").fetchone() != (0,)


def options(dsn: str) -> Any:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            "select f.opt_max_attempts, f.opt_base_delay, f.opt_timeout, s.opt_max_attempts, s.opt_timeout "
            "from pgflow.flows f join pgflow.steps s using (flow_slug) where flow_slug = 'mischief'"
        ).fetchone()


@pytest.mark.slow
def test_a_worker_brings_the_options_in_line_and_says_so(dsn: str) -> None:
    run_id = start(dsn, "mischief", [["flaky", 2]])
    change(dsn, "update pgflow.flows set opt_max_attempts = 1")
    change(dsn, "update pgflow.steps set opt_timeout = 3")
    ear = Ear()
    Worker(settings(dsn, "mischief"), observer=ear).run(run_id=run_id)
    assert ear.changes == [
        ("info", "flow mischief: max_attempts is now 3, was 1"),
        ("info", 'flow mischief: timeout of step "act" is now the flow\'s, was 3 s'),
    ]
    assert options(dsn) == (3, 1, 60, None, None)
    assert run_row(dsn, run_id).status == "completed"
    assert ear.finals == [False, False]
    again = Ear()
    Worker(settings(dsn, "mischief"), observer=again).run(idle_exit=True)
    assert again.changes == []


def test_with_compile_skip_nothing_is_applied_and_retries_are_told_as_the_database_decides(dsn: str) -> None:
    run_id = start(dsn, "mischief", [["fail", "broken"]])
    change(dsn, "update pgflow.flows set opt_max_attempts = 1")
    ear = Ear()
    Worker(settings(dsn, "mischief", compile="skip"), observer=ear).run(run_id=run_id)
    assert ear.changes == []
    assert options(dsn) == (1, 1, 60, None, None)
    assert (run_row(dsn, run_id).status, ear.finals) == ("failed", [True])


def test_nothing_is_applied_where_the_shape_differs(dsn: str) -> None:
    start(dsn, "mischief", [["echo", 1]])
    change(dsn, "update pgflow.flows set opt_timeout = 5")
    change(dsn, "update pgflow.steps set when_exhausted = 'skip'")
    with pytest.raises(ShapeMismatch):
        Worker(settings(dsn, "mischief")).run(idle_exit=True)
    assert options(dsn) == (3, 1, 5, None, None)


@pytest.mark.slow
def test_a_running_worker_claims_with_the_timeout_that_another_one_brought(dsn: str, tmp_path: Path) -> None:
    flows = tmp_path / "changing.py"
    source = FLOWS.read_text(encoding="utf-8")
    flows.write_text(source.replace("max_attempts=3)", "max_attempts=1, timeout=3)"), encoding="utf-8")
    old = settings(dsn, "mischief", targets=(str(flows),), workers=1)
    with threaded(Worker(old)):
        eventually(lambda: known_workers(dsn), 20)
        change(dsn, "select pgflow.apply_flow_options('mischief', " + _shape_with_timeout(20) + ")")
        run_id = start(dsn, "mischief", [["sleep", 4.5]])
        eventually(lambda: run_row(dsn, run_id).status != "started", 30)
    assert run_row(dsn, run_id).status == "completed", Tasks(dsn, run_id).rows


def _shape_with_timeout(seconds: int) -> str:
    from pgflow_mp.loading.finding import load_flows

    (flow,) = [f for f in load_flows(str(FLOWS)) if f.slug == "mischief"]
    shape = flow.shape()
    shape["options"]["timeout"] = seconds
    return f"'{json.dumps(shape)}'"


def test_where_the_functions_are_older_options_stay_and_it_is_said(dsn: str) -> None:
    run_id = start(dsn, "mischief", [["echo", 1]])
    change(dsn, "drop function pgflow.apply_flow_options")
    change(dsn, "drop function pgflow.flow_options")
    ear = Ear()
    Worker(settings(dsn, "mischief"), observer=ear).run(run_id=run_id)
    assert run_row(dsn, run_id).status == "completed"
    assert any("its options stay as they are stored until the schema" in text for _, text in ear.messages)
