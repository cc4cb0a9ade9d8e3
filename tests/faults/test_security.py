"""Least privilege, private sockets, and secrets that appear nowhere."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import psycopg
import pytest
from database_roles import SECRET, role_with
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from worker_harness import FLOWS, Tasks, compiled, eventually, run_row, settings, threaded

from pgflow_mp.client import Client
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.testing import audit_run
from pgflow_mp.worker.worker import Worker


def refused(dsn: str, query: str) -> bool:
    with psycopg.connect(dsn, autocommit=True) as conn:
        try:
            conn.execute(query.encode())
        except psycopg.errors.InsufficientPrivilege:
            return True
    return False


TABLES = ("runs", "step_states", "step_tasks", "flows", "steps", "deps", "workers")


@pytest.mark.parametrize(
    "serve_one", [pytest.param(False, id="flows", marks=pytest.mark.slow), pytest.param(True, id="one run")]
)
def test_a_worker_needs_no_right_on_any_table(dsn: str, serve_one: bool) -> None:
    compiled(dsn, "mischief")
    with role_with(dsn, "worker") as restricted, role_with(dsn, "starter") as starting:
        if serve_one:  # nor on any other flow
            with psycopg.connect(dsn) as conn:
                user = conninfo_to_dict(restricted)["user"]
                conn.execute("select pgflow.grant_access(%s, 'worker', array['mischief'])", (user,))
        for table in TABLES:
            assert refused(restricted, f"select * from pgflow.{table}"), table
            assert refused(starting, f"select * from pgflow.{table}"), table
        client = Client(starting)
        run = client.start_flow("mischief", [["echo", n] for n in range(40)] + [["flaky", 1]])
        worker = Worker(
            settings(restricted, "mischief", compile="skip", heartbeat_interval=0.2, dead_after=1.0)
        )
        with threaded(worker, run_id=run.run_id if serve_one else None) as running:
            eventually(lambda: run_row(dsn, run.run_id).status == "completed", 30)
            if not serve_one:
                worker.request_stop()
            report = running.join()
        assert report.stats.done == 41
        assert [step.status for step in run.refresh().steps.values()] == ["completed"]
        assert run.steps["act"].output == [*range(40), 2]
        assert list(client.results(run.run_id, "act")) == [*range(40), 2]
        assert run.wait(5).output == {"act": [*range(40), 2]}
        client.close()
        with psycopg.connect(dsn) as conn:
            assert audit_run(conn, run.run_id) == []
            held = conn.execute("select count(*) from pgflow.workers where stopped_at is null").fetchone()
            assert held == (0,)


def test_a_starter_can_start_and_read_and_nothing_else(dsn: str) -> None:
    compiled(dsn, "single")
    with role_with(dsn, "starter") as starting:
        run = Client(starting).start_flow("single", "ada")
        assert run.status == "started"
        for query in (
            "select * from pgflow.claim_tasks('single', gen_random_uuid(), 1)",
            f"select pgflow.complete_tasks('{run.run_id}', 'shout', array[0], array['1'::jsonb])",
            f"select pgflow.fail_tasks('{run.run_id}', 'shout', array[0], array['no'])",
            f"select pgflow.cancel_run('{run.run_id}')",
            f"select pgflow.retry_failed_tasks('{run.run_id}')",
            "select pgflow.recover_dead_workers()",
            "select pgflow.grant_access(current_user, 'worker')",
            "select pgflow.delete_flow_and_data('single')",
            "select * from pgmq.q_single",
            "create table pgflow.mine ()",
        ):
            assert refused(starting, query), query
        run._client.close()
    assert Tasks(dsn, run.run_id).statuses("shout") == {"queued": 1}


def test_the_password_is_in_no_log_error_or_process_list(dsn: str, tmp_path: Path) -> None:
    flow = tmp_path / "leaky.py"
    flow.write_text(
        "from pgflow_mp import Context, Flow\n"
        'leaky = Flow("leaky", max_attempts=1)\n'
        "@leaky.map(tolerate=1.0)\n"
        "def look(x: int, ctx: Context) -> str:\n"
        "    if x == 1:\n"
        "        raise ValueError(repr(ctx.worker_config))\n"
        "    if x == 2:\n"
        '        ctx.connect().execute("selec 1")\n'
        "    return str(dict(ctx.worker_config)) + str(ctx)\n"
    )
    secret = make_conninfo(dsn, password=SECRET)
    environment = {**os.environ, "PGFLOW_DATABASE_URL": secret, "PGFLOW_DEBUG": "1"}
    command = [sys.executable, "-m", "pgflow_mp", "run", str(flow), "--input", "[0, 1, 2]"]
    command += ["--log-level", "debug", "--workers", "1", "--output", "-"]
    running = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    seen = ""
    while running.poll() is None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(running.pid)
            seen += "".join(" ".join(p.cmdline()) for p in [process, *process.children(recursive=True)])
        time.sleep(0.05)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert "pgflow_mp" in seen
    with psycopg.connect(dsn) as conn:
        rows = str(conn.execute("select t::text from pgflow.step_tasks t").fetchall())
        rows += str(conn.execute("select w::text from pgflow.workers w").fetchall())
    assert SECRET not in seen + out + err + rows


def test_a_wrong_password_is_not_repeated_in_the_traceback_of_debug(tmp_path: Path) -> None:
    bad = f"postgresql://me:{SECRET}@127.0.0.1:1/none?connect_timeout=1"
    command = [sys.executable, "-m", "pgflow_mp", "status", "--dsn", bad, "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_the_embedded_server_listens_on_a_private_socket_only() -> None:
    with EmbeddedServer(throwaway=True) as server:
        pid = int((server.data_dir / "data" / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        for process in [postmaster, *postmaster.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                assert process.net_connections("inet") == []
        directory = Path(str(conninfo_to_dict(server.dsn)["host"]))
        with psycopg.connect(server.dsn) as conn:
            assert conn.execute("show listen_addresses").fetchone() == ("",)
        reachable = stat.S_IMODE(directory.stat().st_mode) & 0o077 == 0
        socket = next(directory.glob(".s.PGSQL.*[0-9]"))
        assert reachable or stat.S_IMODE(socket.stat().st_mode) & 0o007 == 0
        assert stat.S_IMODE((server.data_dir / "data").stat().st_mode) & 0o077 == 0


def test_handlers_are_never_given_the_connection_string(dsn: str) -> None:
    assert "dsn" not in settings(dsn, "naps").for_handlers()
    assert str(FLOWS) in str(settings(dsn, "naps").for_handlers())


def test_a_map_that_asks_for_the_runs_input_gets_it_without_rights_on_tables(
    dsn: str, tmp_path: Path
) -> None:
    flow = tmp_path / "asks.py"
    flow.write_text(
        "from pgflow_mp import Flow\n"
        'asks = Flow("asks", max_attempts=1)\n'
        "@asks.map\n"
        "def share(x: int, flow_input: list[int]) -> float:\n"
        "    return x / sum(flow_input)\n"
    )
    with role_with(dsn, "worker") as restricted:
        targets = (str(flow),)
        first = Worker(settings(dsn, "asks", targets=targets))
        first.run(idle_exit=True)  # compiles the flow, as an administrator does
        client = Client(restricted)
        run = client.start_flow("asks", [1, 3])
        Worker(settings(restricted, "asks", targets=targets, compile="skip")).run(run_id=run.run_id)
        assert run.wait(5).output == {"share": [0.25, 0.75]}
        client.close()
