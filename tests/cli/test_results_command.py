"""The command results: what a run has computed, from the database."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli, assert_one_screen

CODE = """
from pgflow_mp import Flow, PermanentError

books = Flow("books", max_attempts=1, storage="{storage}")

@books.map(tolerate=1)
def row(n: int) -> dict[str, int]:
    if n > 12:
        raise PermanentError(f"bad luck with {n}")
    return {"n": n}

@books.step(depends_on=[row])
def total(row: list[dict[str, int] | None]) -> int:
    return len(row)
"""


@pytest.mark.parametrize("storage", ["ranges", pytest.param("tasks", marks=pytest.mark.slow)])
def test_results_of_a_run(cli: Cli, storage: str) -> None:
    (cli.cwd / "books.py").write_text(CODE.replace("{storage}", storage))
    ran = cli("run", "books.py", "--input", "[1, 13, 2]", "--workers", "1", "--json")
    run_id = ran.json["run_id"]
    assert ran.code == 0, ran

    done = cli("results", run_id[:8], "row")
    assert (done.code, done.out) == (0, '{"n": 1}\nnull\n{"n": 2}\n')
    assert cli("results", run_id).out == "3\n"
    assert cli("results", run_id, "--format", "json").json == {"total": 3}
    assert cli("results", run_id, "row", "--output", "rows.csv").code == 0
    assert Path(cli.cwd / "rows.csv").read_bytes() == b'n\r\n1\r\n""\r\n2\r\n'
    records = [json.loads(line) for line in cli("results", run_id, "row", "--with-input").out.splitlines()]
    assert [(r["index"], r["status"], r["input"], r["output"]) for r in records] == [
        (0, "completed", 1, {"n": 1}),
        (1, "failed", 13, None),
        (2, "completed", 2, {"n": 2}),
    ]
    done = cli("results", run_id, "row", "--failed", "-o", "failed.csv")
    assert "1 item of row in failed.csv" in done.err
    with (cli.cwd / "failed.csv").open(newline="") as file:
        heading, (index, status, given, attempts, error) = csv.reader(file)
    assert heading == ["index", "status", "input", "attempts", "error"]
    assert (index, status, given, attempts) == ("1", "failed", "13", "1")
    assert "bad luck with 13" in error

    done = cli("results", run_id, "row", "--into", "#Rows", "--fields", "index,n", "--status", "completed")
    assert "2 items of row in table rows at PostgreSQL at" in done.err, done
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        assert conn.execute("select * from rows order by 1").fetchall() == [(0, 1), (2, 2)]
    done = cli("results", run_id, "row", "--into", "#rows")
    assert_one_screen(cli("results", run_id, "row", "--into", "#rows", "--failed"), 2, "no column 'status'")
    done = cli("results", run_id, "row", "--into", "postgresql://joe:secret@127.0.0.1:1/x#rows")
    assert_one_screen(done, 3, "nothing accepts connections", "--into")
    assert "secret" not in done.err

    assert_one_screen(cli("results", run_id, "rows"), 2, 'Step "rows" does not exist in flow', "row, total")
    assert_one_screen(
        cli("results", run_id, "row", "-o", "x.cvs"), 2, "x.cvs: nothing here writes", "--format"
    )


def test_what_a_failed_run_has_not_computed_is_not_written(cli: Cli) -> None:
    (cli.cwd / "books.py").write_text(CODE.replace("{storage}", "ranges"))
    (cli.cwd / "out.csv").write_text("of yesterday")
    ran = cli("run", "books.py", "--input", "[1, 13, 14]", "--workers", "1", "--json")
    run_id = ran.json["run_id"]
    done = cli("results", run_id, "row", "--output", "out.csv")
    assert_one_screen(done, 2, 'Step "row" of run', "is failed", "nothing was written", "--with-input")
    assert (cli.cwd / "out.csv").read_text() == "of yesterday"
    assert_one_screen(cli("results", run_id, "-o", "x.json"), 2, "is failed", "Name a step")
    assert_one_screen(
        cli("results", run_id), 2, "is failed: its output is not there", "Name a step of it: row, total."
    )
    failed = cli("results", run_id, "row", "--failed").out.splitlines()
    assert [json.loads(line)["index"] for line in failed] == [1, 2]
