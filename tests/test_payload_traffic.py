"""Payloads travel when they are asked for, once, and page by page: counted in bytes on the wire."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli
from database_roles import role_with
from tcp_proxy import TcpProxy
from worker_harness import adapted, start

from pgflow_mp.client import Client
from pgflow_mp.db.reads import documents
from pgflow_mp.errors import WaitTimeout

LARGE = 5_000_000
"""Characters of the input of a run."""


def finished(dsn: str, run_id: str, step: str, outputs: list[int]) -> None:
    """Complete a map with texts of these lengths."""
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "update pgflow.step_tasks t set status = 'completed', completed_at = now(), started_at = now(), "
            "output = to_jsonb(repeat('x', u.size)) from unnest(%s::int[]) with ordinality u (size, n) "
            "where run_id = %s and step_slug = %s and t.task_index = u.n - 1",
            (outputs, run_id, step),
        )


def test_status_and_waiting_move_no_payload(dsn: str) -> None:
    run_id = start(dsn, "single", "x" * LARGE)
    with role_with(dsn, "starter") as starter, TcpProxy(dsn) as proxy, TcpProxy(starter) as restricted:
        for found in (proxy, restricted):
            with Client(found.dsn) as client:
                run = client.get_run(run_id)
                assert run is not None
                with pytest.raises(WaitTimeout):
                    run.wait(timeout=0.2)
                with pytest.raises(WaitTimeout):
                    run.steps["shout"].wait(timeout=0.2)
                assert (run.status, run.output, run.error) == ("started", None, None)
                assert found.answered < 200_000
                given = run.input
                assert isinstance(given, str)
                assert len(given) == LARGE
                assert run.input is given
                assert LARGE < found.answered < 1.2 * LARGE


def test_starting_a_run_sends_its_input_and_reads_it_never(dsn: str) -> None:
    start(dsn, "single", "x")
    with TcpProxy(dsn) as proxy, Client(proxy.dsn) as client:
        client.start_flow("single", "x" * LARGE, run_id="11111111-1111-4111-8111-111111111111")
        client.start_flow("single", "x" * LARGE, run_id="11111111-1111-4111-8111-111111111111")
        assert proxy.answered < 200_000


@pytest.mark.slow
def test_a_command_line_run_reads_input_and_output_once(dsn: str, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(
        "from pgflow_mp import Flow\n"
        "flow = Flow('echo')\n"
        "@flow.step\n"
        "def echo(x: str) -> str:\n"
        "    return x\n"
    )
    (tmp_path / "in.json").write_text(json.dumps("x" * LARGE))
    with TcpProxy(dsn) as proxy:
        cli = Cli(tmp_path, proxy.dsn)
        done = cli("run", "flow.py", "--input", "in.json", "--output", "out.json", "--workers", "1")
        assert done.code == 0, done.err
        assert len((tmp_path / "out.json").read_text()) > LARGE
        assert proxy.answered < 2.3 * LARGE  # for the item, and for the file
        before = proxy.answered
        with psycopg.connect(dsn) as conn:
            ((run_id,),) = conn.execute("select run_id::text from pgflow.runs").fetchall()
        shown = cli("run", "flow.py", "--resume", run_id)
        assert "5.0 MB of JSON, beginning with" in shown.out
        assert proxy.answered - before < 400_000


@pytest.mark.parametrize("sizes", [[1_000_000] * 20, [9_000_000, 10, 10, 9_000_000, 1_000_000], [10] * 500])
def test_pages_of_results_are_bounded_by_bytes(
    dsn: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = start(dsn, "chain", list(range(len(sizes))))
    finished(dsn, run_id, "double", sizes)
    monkeypatch.setattr(documents, "PAGE_BYTES", 2_500_000)
    monkeypatch.setattr(documents, "PAGE_ROWS", 200)
    with adapted(dsn) as conn:
        tracemalloc.start()
        try:
            found = [
                (index, len(raw or b"") - 2) for index, raw in documents.iter_results(conn, run_id, "double")
            ]
            most = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert found == list(enumerate(sizes))
    assert most < 3 * max(2_500_000, *sizes)


def test_the_next_page_begins_where_the_last_one_ended_whatever_failed(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = start(dsn, "chain", list(range(30)))
    finished(dsn, run_id, "double", [5] * 30)
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "update pgflow.step_tasks set status = 'failed', completed_at = null, failed_at = now(), "
            "output = null, error_message = 'no' where run_id = %s and task_index %% 3 = 0",
            (run_id,),
        )
    with adapted(dsn) as conn:
        for rows in (1, 7, 30, 31):
            monkeypatch.setattr(documents, "PAGE_ROWS", rows)
            indexes = [index for index, _ in documents.iter_results(conn, run_id, "double")]
            assert indexes == [index for index in range(30) if index % 3]
            whole = [*documents.iter_map_output(conn, run_id, "double")]
            assert whole == [b"null" if index % 3 == 0 else b'"xxxxx"' for index in range(30)]
