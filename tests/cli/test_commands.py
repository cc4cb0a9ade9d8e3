"""install, migrate, compile, start, status, and the worker."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen, finish


def test_install_is_safe_to_repeat_and_needed_once(tmp_path: Path, empty_dsn: str) -> None:
    cli = Cli(tmp_path, empty_dsn)
    assert cli("install").out.startswith("Installed pgflow schema version ")
    assert cli("install").out.startswith("Up to date: pgflow schema version ")
    assert cli("migrate", "--json").json["changed"] is False
    with psycopg.connect(empty_dsn) as conn:
        conn.execute("drop schema pgmq cascade")
    refused = cli("run", "simple")
    assert refused.code == 3
    assert "Install it: python -m pgflow_mp install --dsn" in " ".join(refused.err.split())
    assert cli("install").out.startswith("Added the queue, which was missing, to pgflow schema version ")


def test_the_sql_for_a_dba_can_be_printed_without_a_database(bare_cli: Cli) -> None:
    text = bare_cli("install", "--print").out
    assert "create schema" in text
    assert text.count("\nbegin isolation level read committed;") == text.count("\ncommit;") == 1
    assert "create extension pgmq;" in text
    assert "pgmq.send_batch" in text
    always = bare_cli("migrate", "--print", "--with-queue").out
    assert "from pg_available_extensions" not in always.partition("\\if")[0]
    assert len(always) > 0.9 * len(text)


def test_compile_writes_the_flow_as_sql(bare_cli: Cli) -> None:
    text = bare_cli("compile", "simple").out
    assert text.startswith(
        "SELECT pgflow.create_flow('simple');\nSELECT pgflow.add_step('simple', 'rootStep');"
    )
    done = bare_cli("compile", f"{FLOWS}:sums", "-o", "sums.sql")
    assert (done.code, done.out) == (0, "")
    assert "add_step('sums', 'total', ARRAY['double'])" in (bare_cli.cwd / "sums.sql").read_text()
    done = bare_cli("compile", "simple", "-o", "nowhere/x.sql")
    assert (done.code, "nowhere/x.sql cannot be written" in done.err) == (1, True)


def test_compile_says_which_maps_are_for_our_workers_only(bare_cli: Cli) -> None:
    source = "from pgflow_mp import Flow\nf = Flow('f', storage='ranges').map('a', abs)\n"
    source += "f.map('b', abs, storage='tasks').step('s', abs).map('c', abs)\n"
    (bare_cli.cwd / "f.py").write_text(source)
    lines = bare_cli("compile", "f.py").out.splitlines()
    assert lines[-3:-2] == ["SELECT pgflow.set_step_policy('f', 'c', storage => 'ranges');"]
    assert lines[-2].startswith('-- In ranges: "a", "c". Workers of pgflow in other languages get none of')
    assert all(line.startswith("-- ") for line in lines[-2:])


@pytest.mark.slow
def test_options_that_changed_in_the_code_hold_from_the_next_start_on(cli: Cli) -> None:
    source = "from pgflow_mp import Flow\nf = Flow('f')\n\n"
    source += "@f.map{}\ndef double(x: int) -> int:\n    return 2 * x\n"
    flow = cli.cwd / "f.py"
    flow.write_text(source.format("(timeout=3)"))
    assert "is now" not in cli("start", "f.py", "--input", "[1]").err
    flow.write_text(source.format("(timeout=20, tolerate=0.5)"))
    assert "is now" not in cli("start", "f.py", "--input", "[1]", "--compile", "skip").err
    started = cli("start", "f.py", "--input", "[1]")
    assert 'flow f: timeout of step "double" is now 20 s, was 3 s' in started.err
    assert 'flow f: tolerate of step "double" is now 50 %, was not set' in started.err
    assert len(started.out.split()) == 1
    flow.write_text(source.format(""))
    done = cli("run", "f.py", "--input", "[1]", "--workers", "1")
    assert 'flow f: timeout of step "double" is now the flow\'s, was 20 s' in done.err
    assert "is now" not in cli("run", "f.py", "--input", "[1]", "--workers", "1").err


def test_sql_is_utf_8_whatever_the_encoding_of_the_terminal(bare_cli: Cli) -> None:
    (bare_cli.cwd / "cafe.py").write_text(
        "from pgflow_mp import Flow\n"
        "flow = Flow('cafe')\n"
        "flow.step('order', lambda x: x, when={'drink': 'caf\u00e9 \u2603'})\n",
        encoding="utf-8",
    )
    done = bare_cli("compile", "cafe.py", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.code == 0, done
    assert '{"drink": "caf\u00e9 \u2603"}' in done.out.replace('":"', '": "')


@pytest.mark.slow
def test_start_prints_the_id_of_a_run_that_a_worker_then_executes(cli: Cli) -> None:
    done = cli("start", f"{FLOWS}:square", "--input", "[2, 3]")
    assert re.fullmatch(r"[0-9a-f-]{36}\n", done.out)
    first = done.out.strip()
    second = cli("start", "square", "--input", "[4]", "--json").json["run_id"]

    worker = cli.start(f"{FLOWS}:square", "--workers", "1", "--log-format", "json")
    assert cli.dsn is not None
    deadline = time.monotonic() + 20
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        query = "select count(*) from pgflow.runs where status = 'completed'"
        while conn.execute(query).fetchone() != (2,):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    worker.send_signal(signal.SIGTERM)
    ended = finish(worker)
    assert ended.code == 0, ended
    messages = [json.loads(line)["message"] for line in ended.err.splitlines()]
    assert messages[0].startswith("1 worker for square (from ")
    assert messages[-1].startswith("stopped (stop requested): 3 items done in ")

    listed = {run["run_id"]: run for run in cli("status", "--json").json}
    assert {run["status"] for run in listed.values()} == {"completed"}
    assert listed[first]["items"] == listed[first]["done"] == 2
    shown = cli("status", second[:8]).out
    assert f"square  run {second}" in shown
    assert re.search(r"times +completed +1 ", shown)


def test_start_knows_flows_of_the_database_and_their_names(cli: Cli) -> None:
    assert cli("start", "simple").code == 0
    done = cli("start", "simpel")
    assert done.code == 2
    assert 'There is no module "simpel", and no flow "simpel" in PostgreSQL' in " ".join(done.err.split())
    assert "Flows there: simple." in " ".join(done.err.split())


def test_a_worker_stops_at_ctrl_c_with_130(cli: Cli) -> None:
    screen = OnTerminal(cli, "simple", "--workers", "1")
    screen.wait_for(r"worker for simple, PostgreSQL at ")
    screen.wait_for(r"0/1 workers busy")
    screen.interrupt()
    done = screen.finish()
    assert done.code == 130
    assert "stopping: " in done.out
    assert "stopped (stop requested): 0 items done" in done.out


def wait_for_workers(cli: Cli, *queues: str) -> None:
    """Wait until a worker has registered for each of these flows."""
    assert cli.dsn is not None
    deadline = time.monotonic() + 30
    with psycopg.connect(cli.dsn, autocommit=True) as conn:
        while True:
            rows = conn.execute("select queue_name from pgflow.workers").fetchall()
            if {row[0] for row in rows} >= set(queues):
                return
            assert time.monotonic() < deadline, rows
            time.sleep(0.05)


def test_a_worker_without_a_target_serves_what_the_project_names(cli: Cli) -> None:
    (cli.cwd / "pyproject.toml").write_text(f'[tool.pgflow_mp]\nflows = "{FLOWS}:square"\n')
    worker = cli.start("--workers", "1", "--compile", "check")
    wait_for_workers(cli, "square")
    worker.send_signal(signal.SIGTERM)
    ended = finish(worker)
    assert ended.code == 0
    assert f"worker for square (from {cli.cwd}/pyproject.toml)" in ended.err


@pytest.mark.slow
def test_a_worker_with_nothing_to_serve_takes_the_examples_and_says_so(cli: Cli) -> None:
    worker = cli.start("--workers", "1")
    wait_for_workers(cli, "code_metrics", "simple", "wide")
    worker.send_signal(signal.SIGTERM)
    ended = finish(worker)
    assert ended.code == 0, ended
    assert "(from the bundled examples, as no other flows were named)" in ended.err


def test_status_of_nothing_makes_no_database(bare_cli: Cli) -> None:
    done = bare_cli("status")
    assert (done.code, done.out) == (0, "No runs yet. Start one: python -m pgflow_mp run simple\n")
    assert bare_cli("status", "--json").json == []
    assert bare_cli("status", "1234").code == 2
    assert list(bare_cli.cwd.iterdir()) == []


@pytest.mark.slow
def test_status_shows_failures_with_their_place(cli: Cli) -> None:
    assert cli("run", f"{FLOWS}:picky", "--input", "[1, 3]").code == 1
    (run,) = cli("status", "--json").json
    shown = cli("status", run["run_id"])
    assert shown.code == 0
    assert re.search(r"check +failed +1/2 ", shown.out) or re.search(r"check +failed +0/2 ", shown.out)
    assert "check[1] 3: PermanentError: 3 is not allowed" in shown.out
    assert (
        f"After a correction, try what failed again: python -m pgflow_mp run FLOW --resume {run['run_id']}"
        in shown.out
    )
    assert f"See their tracebacks: python -m pgflow_mp failures {run['run_id']}" in shown.out
    told = cli("status", run["run_id"], "--json").json
    assert told["failures"][0] | {"error": ""} == {
        "step": "check", "index": 1, "attempts": 1, "error": "", "input": 3, "input_bytes": 1, "glimpse": "3"
    }  # fmt: skip
    assert [group["items"] for group in told["failure_groups"]] == [1]
    assert cli("status", "--flow", "nothing", "--json").code == 2
    assert cli("status", "abcdef").code == 2


def test_status_counts_what_ended_with_its_run(cli: Cli) -> None:
    (cli.cwd / "ending.py").write_text(
        "from pgflow_mp import Flow\n\nflow = Flow('ending')\n\n\n"
        "@flow.map\ndef check(n: int) -> int:\n    return n\n"
    )
    run_id = cli("start", "ending.py", "--input", "[1, 2, 3]", "--json").json["run_id"]
    assert cli("cancel", run_id).code == 0
    assert re.search(r"check +failed +0/3 .*3 cancelled; Run cancelled", cli("status", run_id).out)
    (step,) = cli("status", run_id, "--json").json["steps"]
    assert step["storage"] in ("tasks", "ranges")
    assert (step["cancelled_tasks"], step["skipped_tasks"], step["failed_tasks"]) == (3, 0, 0)


def test_status_shows_the_whole_text_of_errors_when_asked_to(cli: Cli) -> None:
    (cli.cwd / "parts.py").write_text(
        "from pgflow_mp import Flow\n\nflow = Flow('parts', max_attempts=1)\n\n\n"
        "@flow.map\ndef parse(number: int) -> int:\n"
        "    raise ValueError(f'piece {number} cannot be parsed:\\n\\tline 7 [red] \\x1b[31m\\n\\nthe end')\n"
    )
    done = cli("run", "parts.py", "--input", "[1]")
    assert (done.code, done.err.count("cannot be parsed"), "line 7" in done.err) == (1, 1, False)
    (run,) = cli("status", "--json").json
    shown = cli("status", run["run_id"], "--errors").out
    first = "    ValueError: piece 1 cannot be parsed:\n        line 7 [red]  [31m\n\n    the end\n"
    assert first in shown.expandtabs(4)
    assert re.search(r'\n    Traceback .*\n +File ".*parts.py", line 8, in parse\n', shown)
    assert "See their tracebacks" not in shown
    assert_one_screen(cli("status", "--errors"), 2, "--errors is for one run", "RUN_ID --errors")


def test_a_password_appears_nowhere(cli: Cli) -> None:
    assert cli.dsn is not None
    secret = ("--dsn", f"{cli.dsn} password=very-secret", "--debug", "--log-level", "debug")
    run_id = Cli(cli.cwd)("start", "simple", *secret).out.strip()
    done = Cli(cli.cwd)("status", run_id, *secret)
    assert "password=***" in done.out
    assert "very-secret" not in done.out + done.err
