"""``run``: from an input to an output, through failures and interruptions."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from typing import Any

import psycopg
import pytest
from cli_harness import FLOWS, Cli, OnTerminal, assert_one_screen, finish


def runs(cli: Cli) -> list[tuple[str, str]]:
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        return conn.execute("select run_id::text, status from pgflow.runs order by started_at").fetchall()


def wait_for_naps(cli: Cli, number: int, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until that many items of the flow ``slow`` have begun."""
    notes, deadline = cli.cwd / "naps", time.monotonic() + 20
    while not notes.exists() or len(notes.read_text().splitlines()) < number:
        assert process is None or process.poll() is None, finish(process)
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.02)


def test_what_a_handler_logs_is_in_the_format_of_the_worker_and_names_its_task(cli: Cli) -> None:
    command = ("run", f"{FLOWS}:talks", "--input", "[7]", "--workers", "1", "--progress", "off")
    done = cli(*command)
    run_id = re.search(r"run ([0-9a-f-]{36})", done.out + done.err)
    assert run_id is not None
    told = [line for line in done.err.splitlines() if "careful" in line]
    assert len(told) == 1
    assert re.fullmatch(
        rf"\d{{4}}-\d\d-\d\d [\d:]{{8}} warn  tell\[0\] attempt 1 of run {run_id[1]}: careful with 7", told[0]
    )
    done = cli(*command, "--log-format", "json")
    (line,) = [line for line in map(json.loads, done.err.splitlines()) if "careful" in line["message"]]
    assert (line["message"], line["level"]) == ("careful with 7", "warn")
    assert line["logger"] == "pgflow_mp.task.talks.tell"
    assert (line["flow"], line["step"], line["index"], line["attempt"]) == ("talks", "tell", 0, 1)
    assert re.fullmatch("[0-9a-f-]{36}", line["run"])
    assert "no more than that" not in done.err


@pytest.mark.parametrize("word", ["threads", "inline"])
def test_what_runs_the_items_is_chosen_by_a_word_and_says_what_it_cannot_do(cli: Cli, word: str) -> None:
    done = cli("run", "simple", "--executor", word, "--progress", "plain")
    assert done.code == 0, done
    assert done.out.splitlines()[-1] == '  output    {"thirdStep": "32 + 10 = 42"}'
    assert (
        f"executor {word}: a step's timeout is not enforced, and cancelling waits for what runs" in done.err
    )


def test_an_example_runs_by_name_with_its_own_input(cli: Cli) -> None:
    done = cli("run", "simple")
    assert done.code == 0, done
    status, work, state, output = done.out.splitlines()
    assert status.startswith("completed  simple  run ")
    assert "3 items in " in work
    assert "used" in work
    assert "PostgreSQL at " in state
    assert output == '  output    {"thirdStep": "32 + 10 = 42"}'
    assert len(done.err.splitlines()) <= 2


def test_input_from_a_file_and_output_to_a_file(cli: Cli) -> None:
    (cli.cwd / "in.jsonl").write_text("1\n2\n\n3\n")
    (cli.cwd / "out.json").write_text("old")
    done = cli("run", f"{FLOWS}:square", "--input", "in.jsonl", "--output", "out.json", "--workers", "2")
    assert done.code == 0, done
    assert json.loads((cli.cwd / "out.json").read_text()) == {"times": [1, 4, 9]}
    assert "in out.json" in done.out
    done = cli("run", f"{FLOWS}:square", "-i", "in.jsonl", "-o", "out.jsonl")
    assert done.code == 0, done
    assert (cli.cwd / "out.jsonl").read_text() == "1\n4\n9\n"
    assert sorted(path.name for path in cli.cwd.iterdir()) == ["in.jsonl", "out.json", "out.jsonl"]


def test_only_the_output_goes_to_standard_output_when_asked_for(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:sums", "--input", "-", "--output", "-", stdin="[1, 2, 3]")
    assert json.loads(done.out) == {"total": 12}
    assert "a handler prints" in done.err
    assert "completed  sums" in done.err
    assert done.code == 0


def test_the_summary_as_json(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:picky", "--input", "[1, 3, 4, 6]", "--json", PGFLOW_WORKERS="1")
    assert done.code == 1
    told = done.json
    assert (told["flow"], told["status"], told["workers"]) == ("picky", "failed", 1)
    assert told["failures"][0]["step"] == "check"
    assert "not allowed" in told["failures"][0]["error"]


@pytest.mark.slow
def test_a_failed_run_says_what_failed_and_how_to_go_on_and_that_works(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:picky", "--input", "[3]")
    assert done.code == 1
    ((run_id, status),) = runs(cli)
    assert status == "failed"
    assert f"failed  picky  run {run_id}" in done.out
    assert "check[0] 3: PermanentError: 3 is not allowed" in done.out
    assert f"See all about it: python -m pgflow_mp failures {run_id}" in done.out
    retry = f"python -m pgflow_mp run {FLOWS}:picky --resume {run_id}"
    assert f"After a correction, try what failed again: {retry}" in done.out

    (cli.cwd / "allowed-3").touch()
    done = cli("run", f"{FLOWS}:picky", "--resume", run_id[:8], "--output", "-")
    assert done.code == 0, done
    assert json.loads(done.out) == {"check": [3]}
    assert runs(cli) == [(run_id, "completed")]


@pytest.mark.slow
def test_a_completed_run_is_not_run_again_but_its_output_can_be_had(cli: Cli) -> None:
    assert cli("run", "simple").code == 0
    ((run_id, _),) = runs(cli)
    done = cli("run", "simple", "--resume", run_id)
    assert (done.code, "nothing left to do" in done.out) == (0, True)
    assert json.loads(cli("run", "--resume", run_id, "--output", "-").out) == {"thirdStep": "32 + 10 = 42"}


def test_a_run_is_resumed_with_the_right_code_or_not_at_all(cli: Cli) -> None:
    assert cli("start", "simple").code == 0
    ((run_id, _),) = runs(cli)
    done = cli("run", "wide", "--resume", run_id)
    assert done.code == 2
    assert 'is one of flow "simple", not of "wide"' in " ".join(done.err.split())
    done = cli("run", "wide", "--resume", "00000000-0000-0000-0000-000000000000")
    assert (done.code, "There is no run 0000" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupted_run_finishes_what_runs_and_is_resumed(
    cli: Cli, number: signal.Signals, code: int
) -> None:
    naps = [0.2] * 20
    process = cli.start("run", f"{FLOWS}:slow", "--input", json.dumps(naps), "--workers", "2")
    wait_for_naps(cli, 4, process)
    process.send_signal(number)
    done = finish(process)
    assert done.code == code, done
    ((run_id, status),) = runs(cli)
    assert status == "started"
    assert "stopping: what runs may finish within 30 s;" in done.err
    assert "interrupted  slow" in done.out
    command = next(line for line in done.out.splitlines() if line.startswith("Go on with it: "))
    assert f"run {FLOWS}:slow --resume {run_id}" in command

    done = cli("run", f"{FLOWS}:slow", "--resume", run_id, "--output", "-")
    assert done.code == 0, done
    assert json.loads(done.out) == {"naps": 20}
    assert len((cli.cwd / "naps").read_text().splitlines()) == 20, "an item ran twice"


def test_a_run_that_is_deleted_meanwhile_is_not_called_interrupted(cli: Cli) -> None:
    process = cli.start("run", f"{FLOWS}:slow", "--input", json.dumps([0.2] * 100), "--workers", "2")
    wait_for_naps(cli, 2, process)
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        conn.execute("select pgflow.delete_flow_and_data('slow')")
    assert_one_screen(finish(process), 1, "was deleted while it was being worked on", "start a new one")


@pytest.mark.slow
def test_a_second_ctrl_c_stops_at_once(cli: Cli) -> None:
    process = cli.start("run", f"{FLOWS}:slow", "--input", "[30, 30]", "--workers", "2")
    wait_for_naps(cli, 2, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert time.monotonic() - begun < 10
    assert done.code == 130
    assert "stopping at once" in done.err


def test_ctrl_c_before_anything_has_begun_leaves_no_run(cli: Cli) -> None:
    (cli.cwd / "late.py").write_text(
        "import time, pathlib; pathlib.Path('importing').touch(); time.sleep(20)\n"
        "from pgflow_mp import Flow\nf = Flow('f')\n"
    )
    process = cli.start("run", "late.py")
    while not (cli.cwd / "importing").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    done = finish(process, 10)
    assert (done.code, done.err.splitlines()[-1]) == (130, "Interrupted.")
    assert runs(cli) == []


def test_a_timeout_ends_the_work_in_order(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:slow", "-i", json.dumps([0.2] * 40), "--workers", "1", "--timeout", "1s")
    assert done.code == 124, done
    assert "Go on with it: " in done.out


@pytest.mark.slow
@pytest.mark.parametrize("options", [pytest.param((), marks=pytest.mark.slow), ("--timeout", "60s")])
def test_an_operator_who_ends_the_worker_is_named_and_has_a_status(
    cli: Cli, options: tuple[str, ...]
) -> None:
    process = cli.start("run", f"{FLOWS}:slow", "-i", json.dumps([0.1] * 200), "--workers", "1", *options)
    wait_for_naps(cli, 2, process)
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        conn.execute("update pgflow.workers set deprecated_at = now()")
    done = finish(process)
    assert done.code == 75, done
    assert done.out.startswith("stopped  slow")
    assert "stopped by an operator (its worker was deprecated)" in done.out
    assert "interrupted" not in done.out
    assert "Go on with it: " in done.out


@pytest.mark.slow
def test_an_error_that_leaves_a_run_says_how_to_go_on_with_it(cli: Cli) -> None:
    lines = (
        "@flow.on_start",
        "def model(): return open('model').read()",
        "@flow.map",
        "def one(n, model): return n",
    )
    (cli.cwd / "one.py").write_text("\n".join(("from pgflow_mp import Flow", "flow = Flow('one')", *lines)))
    done = cli("run", "one.py", "-i", "[1]", "--workers", "2")
    assert done.code == 1
    assert done.err.count("does not start") == 1, done.err  # of two processes, tried three times
    again = re.search(r"Go on with it: python -m\s+pgflow_mp\s+(run\s+one.py\s+--resume\s+\S+)", done.err)
    assert again, done.err
    (cli.cwd / "model").touch()
    assert cli(*again[1].split(), "--output", "-").json == {"one": [1]}


@pytest.mark.slow
def test_the_embedded_server_is_used_where_none_is_named(bare_cli: Cli) -> None:
    lines = ("from pgflow_mp import Flow", "flow = Flow('one')", "@flow.map", "def one(row): return row['n']")
    (bare_cli.cwd / "one.py").write_text("\n".join(lines))
    asked = ("--sql", "select setting::int as n from pg_settings where name = 'port'", "--data-dir", "data")
    elsewhere = "postgresql://me@127.0.0.1:1/not_asked"
    done = bare_cli("run", "one.py", *asked, "--output", "-", PGFLOW_DATABASE_URL=elsewhere)
    assert done.json == {"one": [5432]}, done
    done = bare_cli("run", "simple", "--data-dir", "data")
    assert done.code == 0, done
    home = next((bare_cli.cwd / "data").glob("postgres-*"))
    assert f"state     embedded PostgreSQL in {home.relative_to(bare_cli.cwd)}" in done.out.replace(
        f"{bare_cli.cwd}/", ""
    )
    runs = bare_cli("status", "--json", "--data-dir", "data").json
    assert [run["status"] for run in runs] == ["completed", "completed"]


def test_progress_is_drawn_on_a_terminal_and_interrupted_there(cli: Cli) -> None:
    screen = OnTerminal(cli, "run", f"{FLOWS}:slow", "-i", json.dumps([0.1] * 400), "--workers", "2")
    screen.wait_for(r"slow  run [0-9a-f-]{36}")
    screen.wait_for(r"▸ nap .*\d+/400 +\d+%.*/s.*left")
    screen.wait_for(r"2/2 workers busy · ")
    screen.wait_for(r"busy \S+ \d+% · cpu \S+ [\d.]+ · memory \S+ ")
    screen.interrupt()
    screen.wait_for(r"stopping: what runs may finish within 30 s; Ctrl-C again stops at once")
    done = screen.finish()
    assert done.code == 130
    assert "interrupted  slow" in done.out
    assert "Go on with it: python -m pgflow_mp run" in done.out
    assert screen.raw.rstrip().count("\x1b[?25l") == screen.raw.count("\x1b[?25h"), "the cursor stays hidden"


@pytest.mark.parametrize("size", [(0, 0), pytest.param((24, 80), marks=pytest.mark.slow)])
def test_what_handlers_print_stays_readable_on_a_terminal(cli: Cli, size: tuple[int, int]) -> None:
    screen = OnTerminal(cli, "run", f"{FLOWS}:sums", "-i", "[1, 2, 3]", size=size)
    done = screen.finish()
    assert done.code == 0, done.out
    lines = [line.strip() for line in done.out.replace("\r", "\n").splitlines()]
    assert "a handler prints" in lines
    assert any(line.startswith("✓ double") and "3/3" in line for line in lines)
    assert 'output    {"total": 12}' in lines


@pytest.mark.slow
def test_colours_are_for_terminals_that_want_them(cli: Cli) -> None:
    def on_terminal(*arguments: str, **env: Any) -> str:
        screen = OnTerminal(cli, *arguments, **env)
        screen.finish()
        return screen.raw

    assert "\x1b[1;32mcompleted" in on_terminal("run", "simple", NO_COLOR="")
    assert "\x1b[32mcompleted" in on_terminal("status", NO_COLOR="")
    assert "\x1b[32m" not in on_terminal("status", NO_COLOR="1")
    assert "\x1b[" not in cli("status", NO_COLOR="").out
    assert "\x1b[1;31merror:" in on_terminal("run", "nonsense", NO_COLOR="")
    assert "\x1b[" not in on_terminal("run", "nonsense", NO_COLOR="1")


def test_the_output_of_a_run_whose_last_steps_were_skipped_is_none(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:unmet", "--input", "{}")
    assert done.code == 0, done
    assert "output    none: every step that it would hold was skipped" in done.out
    assert "Fetch the output" not in done.out
    again = cli("run", f"{FLOWS}:unmet", "--input", "{}", "--output", "-")
    assert (again.code, again.out) == (0, "{}\n")


def test_a_flow_without_steps_is_refused_before_anything_is_written(cli: Cli) -> None:
    (cli.cwd / "bare.py").write_text('from pgflow_mp import Flow\n\nflow = Flow("bare")\n')
    for verb in ("run", "start"):
        assert_one_screen(cli(verb, "bare.py"), 2, 'Flow "bare" has no steps', "@flow.step")
    assert runs(cli) == []


def test_a_run_without_an_input_is_refused_where_nothing_does_not_fit(cli: Cli) -> None:
    (cli.cwd / "wants.py").write_text(
        "import msgspec\nfrom pgflow_mp import Flow\n\nflow = Flow('wants')\n\n\n"
        "class Request(msgspec.Struct):\n    numbers: int\n\n\n"
        "@flow.step\ndef first(request: Request) -> int:\n    return request.numbers\n"
    )
    said = ("(none was given: {}, an object)", 'parameter "request" of step "first"', "`numbers`", "--input")
    for verb in ("run", "start"):
        assert_one_screen(cli(verb, "wants.py"), 2, *said)
    assert runs(cli) == []
    assert cli("run", "wants.py", "--input", '{"numbers": 3}').code == 0


@pytest.mark.slow
def test_other_runs_of_the_flow_that_are_worked_on_as_well_are_mentioned(cli: Cli) -> None:
    older = [cli("start", f"{FLOWS}:square", "--input", "[1]").out.strip() for _ in range(3)]
    cli("start", f"{FLOWS}:sums", "--input", "[1]")
    done = cli("run", f"{FLOWS}:square", "--input", "[2]")
    assert done.code == 0, done
    said = (
        f"also working on 3 other runs of square that have not ended ({older[0]}, {older[1]}, ...), after "
        f"this one; --only leaves them; to end one: python -m pgflow_mp cancel {older[0]} --dsn"
    )
    assert said in done.err
    assert "also working" not in cli("run", f"{FLOWS}:slow", "--input", "[0]").err


@pytest.mark.slow
def test_a_completed_run_says_where_its_tolerated_failures_are_listed(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:lenient", "--input", "[1, 3]")
    assert done.code == 0, done
    ((run_id, _),) = runs(cli)
    assert "trouble   1 failed" in done.out
    assert f"See all about it: python -m pgflow_mp failures {run_id}" in done.out
    status = cli("status", run_id).out
    assert "check[1] 3: PermanentError: 3 is not allowed" in status
    assert f"with what followed from it: python -m pgflow_mp retry {run_id}" in status
    assert "See all about it" not in cli("run", f"{FLOWS}:lenient", "--input", "[1]").out


@pytest.mark.slow
def test_trying_again_is_advised_where_it_can_help(cli: Cli) -> None:
    done = cli("run", f"{FLOWS}:barred", "--input", "{}")
    assert done.code == 1, done
    assert 'error     condition of step "go" not met' in done.out
    ((run_id, _),) = runs(cli)
    for text in (done.out, cli("status", run_id).out):
        assert "again: " not in text
    done = cli("run", f"{FLOWS}:barred", "--input", '{"fail": true}')
    assert (done.code, "\nTry what failed again: " in done.out) == (1, True)
    assert "After a correction" not in done.out


@pytest.mark.parametrize("terminal", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_id_of_a_run_is_told_once_the_run_is_there(cli: Cli, terminal: bool) -> None:
    """Whoever is killed after having told it can be gone on with."""
    command = ("run", "simple", "--workers", "1")
    with psycopg.connect(cli.dsn or "") as conn:
        conn.execute("lock table pgflow.runs in access exclusive mode")
        shown = OnTerminal(cli, *command) if terminal else None
        process = shown.process if shown is not None else cli.start(*command)
        waiting = "select 1 from pg_locks where not granted and relation = 'pgflow.runs'::regclass"
        for _ in range(600):
            if conn.execute(waiting).fetchone():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        if shown is not None:
            while shown._read(0.2):
                pass
            said = shown.text
        else:
            assert process.stderr is not None
            os.set_blocking(process.stderr.fileno(), False)
            said = os.read(process.stderr.fileno(), 65536).decode()
            os.set_blocking(process.stderr.fileno(), True)
        process.send_signal(signal.SIGCONT)
    done = shown.finish() if shown is not None else finish(process)
    assert done.code == 0, done
    ((run_id, _),) = runs(cli)
    assert said
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", said), said
    assert f"run {run_id}" in (done.out if terminal else done.err)


@pytest.mark.slow
def test_nothing_is_said_to_start_where_it_is_refused(cli: Cli) -> None:
    source = "from pgflow_mp import Flow\nf = Flow('f')\nf.step('a', lambda x: 1)\n"
    (cli.cwd / "f.py").write_text(source)
    assert cli("start", "f.py").code == 0
    (cli.cwd / "f.py").write_text(source.replace("'a'", "'b'"))
    for done in (cli("run", "f.py"), cli("f.py")):
        assert "differs" in done.err
        assert done.err.startswith("error:"), done.err
