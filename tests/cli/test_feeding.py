"""Items come from what people have: loaded whole or not at all, typed, what is wrong with its place."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import time
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli, assert_one_screen, finish

FLOW = """
from dataclasses import dataclass

from pgflow_mp import Flow

rows = Flow("rows", max_attempts=1)


@dataclass
class Row:
    n: int
    name: str
    share: float | None = None


@rows.map
def take(row: Row) -> list:
    return [row.n, row.name, row.share]


rated = Flow("rated", max_attempts=1)
rated.map("double", lambda row: row)


@rated.step
def rate(flow_input: dict) -> dict:
    return flow_input


texts = Flow("texts", max_attempts=1)


@texts.map
def upper(text: str) -> str:
    return text.upper()


@dataclass
class Params:
    rate: float
    label: str = ""


typed = Flow("typed", max_attempts=1)
typed.map("double", lambda row: row)


@typed.step
def told(flow_input: Params) -> str:
    return f"{flow_input.label} {flow_input.rate}"


single = Flow("single", max_attempts=1)


@single.step
def count(lines: list[int]) -> int:
    return len(lines)
"""


@pytest.fixture(autouse=True)
def _flows(request: pytest.FixtureRequest) -> None:
    name = "bare_cli" if "bare_cli" in request.fixturenames else "cli"
    cli: Cli = request.getfixturevalue(name)
    (cli.cwd / "flows.py").write_text(FLOW)


def run(cli: Cli, flow: str, *options: str, stdin: str = "") -> object:
    done = cli("run", f"flows.py:{flow}", *options, "--output", "-", "--workers", "1", stdin=stdin)
    assert done.code == 0, done
    return json.loads(done.out)


def left(cli: Cli) -> tuple[int, int, int]:
    """Runs, loads and pages in the database."""
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        counts = "select (select count(*) from pgflow.runs), (select count(*) from pgflow.loads), count(*)"
        row = conn.execute(f"{counts} from pgflow.pages".encode()).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_rows_of_a_table_are_typed_by_the_handler(cli: Cli) -> None:
    (cli.cwd / "x.csv.gz").write_bytes(gzip.compress(b'n,name,share\n1,"a\nb",0.5\n2,007,\n'))
    assert run(cli, "rows", "--input", "x.csv.gz") == {"take": [[1, "a\nb", 0.5], [2, "007", None]]}
    assert left(cli)[1] == 1
    (cli.cwd / "x.jsonl").write_text('{"n": 1, "name": "a"}\n{"n": \n')
    assert_one_screen(cli("run", "flows.py:rows", "--input", "x.jsonl"), 2, "x.jsonl, line 2")
    skipping = ("--input", "x.jsonl", "--on-bad-line", "skip")
    assert run(cli, "rows", *skipping) == {"take": [[1, "a", None]]}
    assert "line 2" in (cli.cwd / "x.jsonl.bad.jsonl").read_text()
    (cli.cwd / "x.csv").write_text("n\n1\n2\n")
    both = {"double": [{"n": "1"}, {"n": "2"}], "rate": {"rate": 0.5, "by": "me"}}
    assert run(cli, "rated", "--input", "x.csv", "--set", "rate=0.5", "--set", "by=me") == both


def test_bad_lines_that_cannot_be_kept_are_not_skipped(cli: Cli) -> None:
    """Their file is on a full disk: nothing is started, and nothing of the input is lost."""
    (cli.cwd / "x.jsonl").write_text('"a"\n{"n": \n"b"\n')
    (cli.cwd / "x.jsonl.bad.jsonl").symlink_to("/dev/full")
    for command in ("run", "start"):
        done = cli(command, "flows.py:texts", "--input", "x.jsonl", "--on-bad-line", "skip")
        assert_one_screen(done, 2, "x.jsonl.bad.jsonl, for bad lines, cannot be written: No space left")
    assert left(cli) == (0, 0, 0)


def test_lines_files_and_query_rows_are_items(cli: Cli) -> None:
    assert run(cli, "texts", "--input", "-", "--each-line", stdin="./a\n./b\n") == {"upper": ["./A", "./B"]}
    for name in ("p10", "p9"):
        (cli.cwd / name).write_text("")
    assert run(cli, "texts", "--input", "p*") == {"upper": ["P9", "P10"]}
    assert cli.dsn is not None
    query = "select n, 'x' || n as name from generate_series(1, 2) n order by n desc"
    out = run(cli, "rows", "--sql", query, "--sql-dsn", cli.dsn)
    assert out == {"take": [[2, "x2", None], [1, "x1", None]]}


def test_a_flow_without_a_map_over_its_input_gets_the_array(cli: Cli) -> None:
    lines = "".join(f"{n}\n" for n in range(300_000))
    (cli.cwd / "x.jsonl").write_text(lines)
    assert run(cli, "single", "--input", "x.jsonl") == {"count": 300_000}
    assert left(cli)[1] == 0


def test_start_loads_what_workers_then_find(cli: Cli) -> None:
    (cli.cwd / "x.tsv").write_text("n\tname\n1\ta\n")
    done = cli("start", "flows.py:rows", "--input", "x.tsv", "--priority", "3")
    assert done.code == 0, done
    done = cli("run", "flows.py:rows", "--resume", done.out.strip(), "--output", "-", "--workers", "1")
    assert json.loads(done.out) == {"take": [[1, "a", None]]}
    done = cli("start", "rows", "--input", "x.tsv")  # a flow that only the database knows here
    assert done.code == 0, done
    row = '{"n": 2, "name": "b"}'
    for text, options in ((f"[{row}]", ["json"]), (f"{row}\n", ["jsonl", "--on-bad-line", "skip"])):
        done = cli("start", "rows", "--input", "-", "--format", *options, stdin=text)  # to be read once
        assert done.code == 0, done
        done = cli("run", "flows.py:rows", "--resume", done.out.strip(), "--output", "-", "--workers", "1")
        assert json.loads(done.out) == {"take": [[2, "b", None]]}
    assert cli("start", "flows.py:single", "--input", "[]").code == 0
    refused = cli("start", "single", "--input", "x.tsv")  # nor may Python's words be said here
    assert_one_screen(refused, 2, "no map over its input", "as one JSON value: --input FILE.json")


BAD = "".join(f"{n},a\n" for n in range(30_000)) + "x,b\n1,c\n"


def test_a_bad_line_far_behind_leaves_nothing_and_is_named(cli: Cli) -> None:
    (cli.cwd / "x.csv").write_text("n,name\n" + BAD)
    told = ["x.csv, line 30002, column \"n\": expected int, found 'x'", "--on-bad-line skip"]
    for verb in ("run", "start"):
        assert_one_screen(cli(verb, "flows.py:rows", "--input", "x.csv"), 2, *told)
    assert left(cli) == (0, 0, 0)
    done = cli("start", "flows.py:rows", "--input", "x.csv", "--on-bad-line", "skip")
    assert done.code == 0, done
    assert "1 bad line was skipped, see x.csv.bad.jsonl" in done.err
    (bad,) = map(json.loads, (cli.cwd / "x.csv.bad.jsonl").read_text().splitlines())
    assert bad["text"] == "x,b"
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        assert conn.execute("select items from pgflow.loads").fetchall() == [(30_001,)]


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_a_load_that_is_ended_leaves_nothing_that_runs(cli: Cli, ended_by: signal.Signals) -> None:
    import os

    os.mkfifo(cli.cwd / "pipe")
    process = cli.start("start", "flows.py:rows", "--input", "pipe", "--format", "csv")
    with (cli.cwd / "pipe").open("w") as pipe:
        pipe.write("n,name\n" + "".join(f"{n},{'a' * 100}\n" for n in range(40_000)))
        pipe.flush()
        deadline = time.monotonic() + 20
        while left(cli)[2] == 0:
            assert process.poll() is None, finish(process)
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(ended_by)
        done = finish(process)
    assert done.code == (130 if ended_by == signal.SIGINT else -9), done
    runs, loads, pages = left(cli)
    assert runs == 0
    if ended_by == signal.SIGINT:
        assert (loads, pages) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["ranges", "tasks"])
def test_loads_that_are_killed_at_any_moment_leave_nothing_that_runs(cli: Cli, storage: str) -> None:
    (cli.cwd / "flows.py").write_text(FLOW.replace('"rows", max', f'"rows", storage="{storage}", max'))
    (cli.cwd / "x.csv").write_text("n,name\n" + "".join(f"{n},{'a' * 50}\n" for n in range(300_000)))
    began = time.monotonic()
    assert cli("start", "flows.py:rows", "--input", "x.csv").code == 0
    whole = time.monotonic() - began
    whole_runs = 1
    for moment in range(10):
        process = cli.start("start", "flows.py:rows", "--input", "x.csv")
        time.sleep(whole * (0.2 + 0.07 * moment))
        process.kill()
        whole_runs += bool(finish(process).out)
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        items = conn.execute(
            "select l.items from pgflow.runs r left join pgflow.loads l using (run_id)"
        ).fetchall()
        assert {count for (count,) in items} == {300_000}
        assert len(items) >= whole_runs
        started = conn.execute("select count(*) from pgflow.loads where is_started").fetchone()
        left_over = conn.execute("select count(*) from pgflow.loads where not is_started").fetchone()
        conn.execute("update pgflow.loads set touched_at = now() - interval '25 hours' where not is_started")
    assert started == (len(items),)
    assert left_over is not None
    assert left_over[0] > 0
    (cli.cwd / "y.csv").write_text("n,name\n1,a\n")
    assert cli("start", "flows.py:rows", "--input", "y.csv").code == 0  # at that occasion they go
    with psycopg.connect(cli.dsn) as conn:
        row = conn.execute(
            "select count(*) from pgflow.loads where not is_started or run_id not in "
            "(select run_id from pgflow.runs)"
        ).fetchone()
        assert row == (0,)
        row = conn.execute(
            "select count(*) from pgflow.pages where run_id not in (select run_id from pgflow.runs)"
        ).fetchone()
        assert row == (0,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.jsonl", "x.csv.gz"])
def test_a_million_items_go_through_one_command_in_order_and_in_constant_memory(cli: Cli, name: str) -> None:
    if name == "x.jsonl":
        data = "".join(f'{{"n":{n},"name":"name {n}"}}\n' for n in range(1_000_000)).encode()
    else:
        data = gzip.compress(("n,name\n" + "".join(f"{n},name {n}\n" for n in range(1_000_000))).encode(), 1)
    (cli.cwd / name).write_bytes(data)
    process = cli.start("run", "flows.py:rows", "--input", name, "--output", "out.jsonl", "--workers", "2")
    peak, deadline = 0, time.monotonic() + 600
    while process.poll() is None:
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError, LookupError):  # it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max(peak, int(status.partition("VmHWM:")[2].split()[0]) // 1024)
        time.sleep(0.05)
    assert finish(process).code == 0
    with (cli.cwd / "out.jsonl").open() as out:
        for n, line in enumerate(out):
            assert json.loads(line) == [n, f"name {n}", None]
    assert n == 999_999
    assert 0 < peak <= 100  # MB


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--input", "x.csv", "--format", "xml"], ["--format", "'xml' is not one of"]),
        (["--input", "x.csv", "--format", "csv", "--each-line"], ["--each-line means --format lines"]),
        (["--input", "x.csv", "--sql", "select 1"], ["--sql and --input cannot be used together"]),
        (["--sql-dsn", "postgresql://x"], ["--sql-dsn is for --sql, which is missing"]),
        (["--sql", "select 1", "--each-line"], ["--sql takes no format"]),
        (["--input", "x.csv", "--set", "rate"], ["--set rate: this is not a NAME=VALUE"]),
        (["--input", "none*.csv"], ["No file matches none*.csv", "'data/**/*.png'"]),
        (["--input", "x.csv"], ["No element of the input (x.csv, an array) fits", "missing required field"]),
        (["--input", "y.csv"], ["y.csv, line 2, column \"n\": expected int, found 'one'"]),
        (["--input", "empty.csv"], ["empty.csv is empty", "names of the columns"]),
        (["--input", "cut.csv.gz"], ["cut.csv.gz cannot be read any further", "fetch it again"]),
        (["--input", "names.txt"], ["names.txt, line 1, column 1", "--each-line"]),
        (["--resume", "1", "--set", "a=1"], ["--resume and --set cannot be used together"]),
        (["--sql", " ; ", "--sql-dsn", "host=x"], ["--sql is empty"]),
        (["--sql", "select 1", "--sql-dsn", "nonsense"], ["not a PostgreSQL connection string: ***"]),
        (["--sql", "select 1", "--sql-dsn", "mysql://x"], ["only PostgreSQL can be used"]),
    ],
)
def test_input_that_makes_no_sense(bare_cli: Cli, options: list[str], parts: list[str]) -> None:
    files: dict[str, bytes] = {
        "x.csv": b"a,b\n1,2\n",
        "y.csv": b"n,name\none,a\n",
        "empty.csv": b"",
        "cut.csv.gz": gzip.compress(b"n,name\n1,a\n" * 500)[:-9],
        "names.txt": b"a.png\nb.png\n",
    }
    for name, data in files.items():
        Path(bare_cli.cwd, name).write_bytes(data)
    assert_one_screen(bare_cli("run", "flows.py:rows", *options), 2, *parts)
    assert not [*bare_cli.cwd.rglob("postgres-*")]


def test_parameters_that_nothing_reads_or_that_do_not_fit(cli: Cli) -> None:
    for set_, told in (
        ("raet=1", ["--set raet: nothing in flow", "Did you mean rate?"]),
        ("x=1", ["--set x: nothing in flow", "There are label, rate."]),
        ("rate=much", ['The input (--set, an object) does not fit parameter "flow_input" of step "told"']),
    ):
        also = [] if set_.startswith("rate") else ["--set", "rate=1"]
        done = cli("run", "flows.py:typed", "--input", "[1]", "--set", set_, *also)
        assert_one_screen(done, 2, *told)
    (cli.cwd / "x1").touch()
    done = cli("run", "flows.py:texts", "--input", "x*", "--set", "rate=1")
    assert_one_screen(done, 2, '--set rate: nothing in flow "texts" reads a parameter of that name')
    assert left(cli) == (0, 0, 0)
    both = run(cli, "typed", "--input", "[1]", "--set", "rate=2", "--set", "label=n")
    assert both == {"double": [1], "told": "n 2.0"}


def test_no_items_are_a_run_and_are_told(cli: Cli) -> None:
    (cli.cwd / "x.csv").write_text("n,name\n")
    done = cli("start", "flows.py:rows", "--input", "x.csv")
    assert done.code == 0, done
    assert left(cli) == (1, 1, 0)
    assert "warning: x.csv has no items" in done.err
