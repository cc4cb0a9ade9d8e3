"""results --follow, --status and --fields: which items, what of each, and when."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from subprocess import Popen
from typing import Any

import pytest
from cli_harness import Cli, assert_one_screen, environment, finish

from pgflow_mp.cli import fetching
from pgflow_mp.cli.parser import Parser
from pgflow_mp.errors import ConfigError, InputError
from pgflow_mp.io.picking import Fields

CODE = """
import time
from pathlib import Path
from pgflow_mp import Flow, PermanentError

books = Flow("books", max_attempts=1, storage="{storage}")

@books.map(tolerate=1)
def row(n: int) -> dict:
    while not Path(f"go{n}").exists():
        time.sleep(0.02)
    if n > 12:
        raise PermanentError(f"bad luck with {n}")
    return {"n": n, "by": {"name": f"N. {n}", "ages": [n, n + 1]}, "index": "i"}

@books.step(depends_on=[row])
def total(row: list[dict | None]) -> int:
    if len(row) == 1:
        raise PermanentError("too few")
    return len(row)
"""


def running(cli: Cli, storage: str, items: str) -> tuple[Popen[str], str]:
    """A run under way, whose items wait for files; its id."""
    (cli.cwd / "books.py").write_text(CODE.replace("{storage}", storage))
    run = cli.start("run", "books.py", "--input", items, "--workers", "2", "--max-poll-seconds", "0.1")
    assert run.stderr is not None
    for line in run.stderr:
        if "starting run" in line:
            return run, line.partition("starting run ")[2].split()[0]
    raise AssertionError("no run was started")


def lines(process: Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


@pytest.mark.parametrize("storage", ["ranges", pytest.param("tasks", marks=pytest.mark.slow)])
def test_items_as_they_end_until_the_run_does(cli: Cli, storage: str) -> None:
    run, run_id = running(cli, storage, "[1, 13, 2, 3]")
    plain = cli.start("results", run_id, "row", "--follow")
    other = cli.start("results", run_id, "row", "--follow", "--fields", "index,status,input,by.name")
    into = cli.start("results", run_id, "row", "--follow", "--status", "failed", "-o", "failed.jsonl.gz")
    found, others = lines(plain), lines(other)
    (cli.cwd / "go13").touch()
    assert next(found) is None
    assert next(others) == {"index": 1, "status": "failed", "input": 13, "by.name": None}
    (cli.cwd / "go1").touch()
    assert next(found)["n"] == 1  # what waits behind it has not ended
    assert next(others) == {"index": 0, "status": "completed", "input": 1, "by.name": "N. 1"}
    assert not (cli.cwd / "failed.jsonl.gz").exists()
    for n in (2, 3):
        (cli.cwd / f"go{n}").touch()
    assert sorted(item["n"] for item in found) == [2, 3]
    assert sorted(item["index"] for item in others) == [2, 3]
    assert (finish(plain).code, finish(other).code, finish(run).code) == (0, 0, 0)
    assert "1 item of row in failed.jsonl.gz" in finish(into).err
    assert_one_screen(cli("results", run_id, "--follow"), 2, "Which step of run", "row, total")


def test_a_run_that_fails_is_followed_to_its_end_with_its_words(cli: Cli) -> None:
    run, run_id = running(cli, "ranges", "[5]")
    (cli.cwd / "rows.jsonl").write_text("of yesterday")
    into = cli.start("results", run_id, "row", "--follow", "-o", "rows.jsonl")
    plain = cli.start("results", run_id, "row", "--follow")
    (cli.cwd / "go5").touch()
    done = finish(plain)
    assert (done.code, json.loads(done.out)["n"]) == (1, 5)
    said = " ".join(done.err.split())
    assert f'Run {run_id} of books failed: total[0] {{"row": [' in said
    assert ": PermanentError: too few" in said
    assert "--status completed,failed" in said
    assert_one_screen(finish(into), 1, "too few", "rows.jsonl was not written")
    assert (cli.cwd / "rows.jsonl").read_text() == "of yesterday"
    assert finish(run).code == 1
    done = cli("results", run_id, "row", "--status", "completed,failed")
    assert [json.loads(line)["index"] for line in done.out.splitlines()] == [0]


@pytest.mark.slow
def test_run_writes_lines_as_items_end(cli: Cli) -> None:
    (cli.cwd / "books.py").write_text(CODE.replace("{storage}", "ranges"))
    (cli.cwd / "go2").touch()
    read, write = os.pipe()
    words = [
        "--input",
        "[1, 2]",
        "--workers",
        "2",
        "--results",
        f"row=/dev/fd/{write}",
        "--results",
        "row=r.csv",
    ]
    command = cli.command("run", "books.py", *words, "--follow", "--output", "out.json")
    process = subprocess.Popen(
        command, cwd=cli.cwd, env=environment(cli.cwd), pass_fds=[write], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    cli.started.append(process)
    os.close(write)
    with open(read, encoding="utf-8") as lines_of_pipe:
        assert json.loads(lines_of_pipe.readline())["n"] == 2  # the other has not ended
        assert not (cli.cwd / "r.csv").exists()
        (cli.cwd / "go1").touch()
        assert [json.loads(line)["n"] for line in lines_of_pipe] == [1]
    done = finish(process)
    assert done.code == 0, done
    assert json.loads((cli.cwd / "out.json").read_text()) == {"total": 2}
    assert (cli.cwd / "r.csv").exists()
    (cli.cwd / "go13").touch()
    words = ["--input", "[13]", "--workers", "1", "--results", "row=rows.jsonl", "--follow"]
    done = cli("run", "books.py", *words)
    assert (done.code, (cli.cwd / "rows.jsonl").exists()) == (1, False)
    assert "rows.jsonl was not written" in done.out
    done = cli("run", "books.py", "--input", "[1]", "--follow", "--output", "x.json")
    assert_one_screen(done, 2, "no lines are asked for", "--results STEP=FILE.jsonl")


def test_statuses_and_fields(cli: Cli) -> None:
    for n in (1, 2, 13):
        (cli.cwd / f"go{n}").touch()
    run, run_id = running(cli, "ranges", "[1, 13, 2]")
    assert finish(run).code == 0
    words = ["results", run_id, "row"]
    done = cli(
        *words, "--fields", "n,by.ages.1,output.index,index,nope", "--status", "completed", "-o", "x.csv"
    )
    assert "warning: --fields: no item has nope" in done.err
    assert (cli.cwd / "x.csv").read_bytes().split(b"\r\n") == [
        b"n,by.ages.1,output.index,index,nope", b"1,2,i,0,", b"2,3,i,2,", b"",
    ]  # fmt: skip
    found = [json.loads(line) for line in cli(*words, "--fields", "n").out.splitlines()]
    assert found == [{"n": 1}, {"n": None}, {"n": 2}]
    done = cli(*words, "--status", "failed", "--status", "skipped,cancelled")
    assert [json.loads(line)["index"] for line in done.out.splitlines()] == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--status", "done"], "'done' is not one of queued, started, completed"),
        (["--failed", "--status", "failed"], "cannot be used together"),
        (["--fields", "n", "--with-input"], "Name input among the fields"),
        (["--follow", "--status", "queued"], "completed or failed"),
        (["--follow", "-o", "x.csv"], "nothing can be csv before its end"),
        (["--into", "postgresql://u:secret@h/d"], "--into postgresql://u:***@h/d names no table"),
        (["--into", "#a b"], "'a b' is not the name of a table"),
        (["--into", "#pgflow.runs"], "Nothing is written into the schema pgflow"),
        (["--into", "mysql://h/d#rows"], "only PostgreSQL can be used"),
        (["--into", "#rows", "-o", "x"], "--into and --output cannot be used together"),
        (["--into", "#rows", "--follow"], "--into and --follow cannot be used together"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(words: list[str], message: str) -> None:
    parser = Parser(prog="results")
    fetching.configure(parser, "results")
    with pytest.raises((ConfigError, InputError)) as caught:
        fetching.execute(parser.parse(["RUN", "STEP", *words], {}))
    assert message in str(caught.value) + caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a name missing"),
        ("a,,b", "a name missing"),
        ("a..b", "a..b names nothing"),
        ("a,b, a", "a occurs twice"),
        ("index.x", "index has no members"),
    ],
)
def test_fields_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(InputError, match="^--fields " + text.replace(".", r"\.")) as caught:
        Fields(text)
    assert message in str(caught.value)


def test_members_are_found_wherever_they_are() -> None:
    fields = Fields("a,b.c,b.d.0,output.error,input.x.y,output,seconds")
    item = {
        "output": b'{"a": 1.10, "b": {"c": "\\u00e9", "d": [[1]]}, "error": "e"}', "input": b'{"x": [7]}',
        "seconds": b"0.5",
    }  # fmt: skip
    assert fields.pick(item) == (
        b'{"a": 1.10, "b.c": "\\u00e9", "b.d.0": [1], "output.error": "e", "input.x.y": null, "output": '
        + item["output"] + b', "seconds": 0.5}'
    )  # fmt: skip
    assert fields.unmet == {"input.x.y"}
    for output in (b"3", b"[1]", b'"a"', b"null", None):
        assert b'"a": null, "b.c": null' in fields.pick({"output": output})
