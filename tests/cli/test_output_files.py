"""Files of results that run is asked for: in their formats, or refused before anything is started."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen

from pgflow_mp.cli.asked import CHOOSE, Asked, check_asked
from pgflow_mp.cli.preflight import FlowFacts, StepOutline
from pgflow_mp.errors import InputError

CODE = """
from pgflow_mp import Flow, PermanentError

books = Flow("books", max_attempts=1)

@books.map
def row(n: int) -> dict[str, object]:
    if n == 13:
        raise PermanentError("bad luck")
    return {"n": n, "text": f'"{n}",\\n', "none": None}

@books.step(depends_on=[row])
def total(row: list[dict[str, object]]) -> dict[str, int]:
    return {"rows": len(row)}
"""
LEAVING = """
import os

from pgflow_mp import Flow

leaving = Flow("leaving")

@leaving.map
def leave(n: int) -> int:
    os.rmdir("gone")
    return n
"""
ROWS = [{"n": n, "text": f'"{n}",\n', "none": None} for n in (1, 2)]
ONE = FlowFacts("f", [StepOutline("a", True, [])], b"")
TWO = FlowFacts("f", [StepOutline("a", True, []), StepOutline("b", False, ["a"])], b"")


class Order:
    """What of an order counts."""

    def __init__(self, output: str | None, output_format: str | None, *results: tuple[str, str]) -> None:
        self.output = output
        self.output_format = output_format
        self.results = results
        self.follow = False


def books(cli: Cli) -> str:
    (cli.cwd / "books.py").write_text(CODE)
    return "books.py"


def rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("out.json", None, ("json", None)),
        ("out.jsonl", None, ("jsonl", "a")),
        ("out.CSV", None, ("csv", "a")),
        ("out.parquet", None, ("parquet", "a")),
        ("out.csv.gz", None, ("csv", "a")),
        ("out.json.xz", None, ("json", None)),
        ("out", None, ("json", None)),
        ("v1.2", None, ("json", None)),
        ("out.txt", "csv", ("csv", "a")),
        ("-", "jsonl", ("jsonl", "a")),
        ("-", None, ("json", None)),
    ],
)
def test_the_ending_tells_the_format(
    name: str, format: str | None, expected: tuple[str, str | None], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = check_asked(Order(name, format), ONE)
    assert asked == [Asked("--output", name, expected[0], expected[1], expected[1] is not None)]


@pytest.mark.parametrize("name", ["out.cvs", "out.txt", "out.txt.gz", "x.xlsx", "out.tsv"])
def test_an_ending_that_nothing_writes_is_refused(name: str) -> None:
    for order in (Order(name, None), Order(None, None, ("a", name))):
        with pytest.raises(InputError, match=f"{name}: nothing here writes") as caught:
            check_asked(order, ONE)
        assert ".jsonl" in caught.value.hint


@pytest.mark.parametrize(
    ("order", "message", "hint"),
    [
        (
            Order("x.csv", None),
            r"x.csv: flow .* could be rows \(its last steps: b\)",
            "--results a=x.csv",
        ),
        (Order(None, None, ("c", "x.csv")), '--results c=x.csv: step "c" does not exist in flow "f"', "a, b"),
        (Order(None, None, ("a", "-")), "results of a step go to a file", "rows.csv"),
        (Order("x", None, ("a", "./x")), "x would be written twice", "file of its own"),
        (Order(None, None, ("a", "no/x")), "--results no/x: there is no directory no", "Create"),
        (Order(None, None, ("a", ".")), "--results . is a directory", "file in it"),
    ],
)
def test_what_could_not_be_written_is_refused(order: Order, message: str, hint: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_asked(order, TWO)
    assert hint in caught.value.hint


def test_nothing_is_started_for_files_that_cannot_be_written(cli: Cli) -> None:
    flow = f"{FLOWS}:square"
    done = cli("run", flow, "--input", "[1]", "--output", "out.cvs")
    assert_one_screen(done, 2, "--output out.cvs: nothing here writes .cvs files", ".parquet", CHOOSE)
    done = cli("run", flow, "--input", "[1]", "--results", "time=x.csv")
    assert_one_screen(done, 2, 'step "time" does not exist in flow "square"', "times")
    assert_one_screen(cli("run", flow, "--input", "[1]", "--results", "times"), 2, "is not a STEP=FILE")
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        assert conn.execute("select count(*) from pgflow.runs").fetchone() == (0,)
    assert list(cli.cwd.iterdir()) == []


def test_results_of_steps_beside_the_output(cli: Cli) -> None:
    files = ["--output", "out.json.gz", "--results", "row=rows.csv", "--results", "row=rows.parquet"]
    files += ["--results", "total=total.csv", "--results", "row=lines", "--results", "row=rows.jsonl.gz"]
    done = cli("run", books(cli), "--input", "[1, 2]", *files, "--workers", "1")
    assert done.code == 0, done
    assert json.loads(gzip.decompress((cli.cwd / "out.json.gz").read_bytes())) == {"total": {"rows": 2}}
    lines = gzip.decompress((cli.cwd / "rows.jsonl.gz").read_bytes()).splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert rows(cli.cwd / "rows.csv") == [["n", "none", "text"], ["1", "", '"1",\n'], ["2", "", '"2",\n']]
    assert pq.read_table(cli.cwd / "rows.parquet").to_pylist() == ROWS
    assert rows(cli.cwd / "total.csv") == [["rows"], ["2"]]
    assert [json.loads(line) for line in (cli.cwd / "lines").read_text().splitlines()] == ROWS
    assert "row: " in done.out
    assert " in rows.csv" in done.out


def test_a_failed_run_says_what_it_has_not_written_and_leaves_it(cli: Cli) -> None:
    (cli.cwd / "out.json").write_text("of yesterday")
    files = ["--output", "out.json", "--results", "row=rows.csv", "--workers", "1"]
    done = cli("run", books(cli), "--input", "[13]", *files)
    assert done.code == 1
    assert "out.json was not written; what is there is older than this run" in done.out
    assert "rows.csv was not written\n" in done.out
    assert (cli.cwd / "out.json").read_text() == "of yesterday"
    assert not (cli.cwd / "rows.csv").exists()
    done = cli("run", books(cli), "--input", "[13]", *files, "--json")
    assert (done.code, done.json["unwritten"]) == (1, ["out.json", "rows.csv"])


def test_what_can_be_written_is_where_another_file_cannot(cli: Cli) -> None:
    files = ["--output", "/dev/full", "--results", "row=rows.csv", "--workers", "1"]
    done = cli("run", books(cli), "--input", "[1, 2]", *files)
    assert_one_screen(done, 1, "/dev/full cannot be written: No space left", "--output FILE")
    assert len(rows(cli.cwd / "rows.csv")) == 3


def test_rows_on_standard_output(cli: Cli) -> None:
    words = ["--input", "[2, 3]", "--output", "-", CHOOSE, "csv", "--workers", "1"]
    done = cli("run", f"{FLOWS}:square", *words)
    assert (done.code, done.out) == (0, "value\r\n4\r\n9\r\n")


def test_a_folder_that_goes_away_meanwhile_leaves_the_output_to_be_had(cli: Cli) -> None:
    (cli.cwd / "gone").mkdir()
    (cli.cwd / "leaving.py").write_text(LEAVING)
    done = cli("run", "leaving.py", "--input", "[1]", "--output", "gone/out.json", "--workers", "1")
    assert_one_screen(done, 1, "gone/out.json cannot be written: No such file", "--resume", "--output FILE")
