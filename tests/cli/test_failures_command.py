"""``failures``: groups of alike errors, items with what they were given, and the same for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Cli, OnTerminal, assert_one_screen
from database_roles import role_with
from failed_runs import failed_run
from worker_harness import adapted

from pgflow_mp.cli.main import main

Said = Callable[..., str]
ENDED = "exceeded its timeout of 3 s and its process was terminated"
ERROR = f"""case when i % 2 = 0
then format(E'ValueError: no %s at %L\\n\\nTraceback\\n  [red]in\x1b[2J parse', i, i)
when i = 1 then 'TimeoutError: step "m" task 1 {ENDED}' else 'KeyError: ''a''' end"""


@pytest.fixture
def run_id(dsn: str) -> str:
    """Of a run with 7 failed items, which are tolerated."""
    with adapted(dsn) as conn:
        found = failed_run(conn, 7, ERROR)
        conn.execute(
            """update pgflow.step_tasks set input = '{"path": "a\u202e.gz"}', attempts_count = 3"""
            " where task_index = 0"
        )
    return found


@pytest.fixture
def said(dsn: str, run_id: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """What the command prints about this run."""
    monkeypatch.setenv("NO_COLOR", "1")

    def failures(*arguments: str, code: int = 0) -> str:
        assert main(["failures", run_id, *arguments, "--dsn", dsn]) == code
        return capsys.readouterr().out if not code else capsys.readouterr().err

    return failures


@pytest.mark.parametrize(
    ("ended", "word"),
    [
        ("status = 'completed', completed_at = now(), remaining_steps = 0", "completed with failures"),
        ("status = 'failed', failed_at = now()", "failed"),
    ],
)
def test_it_heads_a_run_that_has_ended_with_the_word_that_status_has(
    said: Said, dsn: str, run_id: str, ended: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with adapted(dsn) as conn:
        conn.execute(f"update pgflow.runs set {ended} where run_id = %s".encode(), (run_id,))
    assert said().splitlines()[0] == f"f  run {run_id}  {word}"
    assert main(["status", run_id, "--dsn", dsn]) == 0
    assert f"\n{word}, started" in capsys.readouterr().out


def test_groups_come_first_and_then_examples_with_their_whole_errors(said: Said, run_id: str) -> None:
    text = said()
    head, _, examples = text.partition("\n\n  m[")
    assert head.splitlines() == [
        f"f  run {run_id}  started",
        "",
        "7 failed and tolerated (1 timed out)",
        "  4 x m: ValueError: no * at '*'",
        "  2 x m: KeyError: 'a'",
        f"  1 x m: TimeoutError: {ENDED}",
    ]
    assert examples.startswith(
        '0] {"path": "a\\u202e.gz"} after 3 attempts:\n'
        "    ValueError: no 0 at '0'\n\n    Traceback\n      [red]in [2J parse\n\n  m[2] 2:\n"
    )
    assert f"\nSee each of them: python -m pgflow_mp failures {run_id} --dsn" in text
    assert f"\nExecute one again: python -m pgflow_mp replay {run_id} m 0 FLOW --dsn" in text


def test_all_of_them_and_those_with_a_text(said: Said) -> None:
    lines = said("--all").partition("\n\nm[")[2].splitlines()
    assert lines[0] == """0] {"path": "a\\u202e.gz"} after 3 attempts: ValueError: no 0 at '0'"""
    assert [line[:4] for line in lines[1:]] == [f"m[{index}]" for index in range(1, 7)]
    only = said("m", "--error", "no * at '*'", "--all", "--with-input")
    assert "4 failed and tolerated\n  4 x m: ValueError" in only
    assert re.findall(r"m\[(\d)\]", only) == ["0", "2", "4", "6"]
    assert '    input: {"path": "a .gz"}\n' in only
    assert said("--error", "zork").splitlines()[1] == "No item of it has failed with 'zork'."
    assert re.findall(r"  m\[(\d)\]", said("--limit", "2")) == ["0", "3"]


def test_programs_get_one_object_with_whole_inputs(said: Said, run_id: str) -> None:
    told = json.loads(said("--json"))
    assert {key: told[key] for key in ("run_id", "flow", "status", "failed")} == {
        "run_id": run_id, "flow": "f", "status": "started", "failed": 7
    }  # fmt: skip
    first = told["groups"][0]
    assert (first["step"], first["outcome"], first["kind"], first["items"]) == ("m", "tolerated", "error", 4)
    example = first["examples"][0]
    assert example["error"].startswith("ValueError: no 0 at '0'\n\nTraceback")
    assert (example["index"], example["attempts"], example["input"]) == (0, 3, {"path": "a\u202e.gz"})
    assert example["glimpse"] == '{"path": "a\u202e.gz"}'
    assert "items" not in told
    everything = json.loads(said("--json", "--all"))
    assert [item["index"] for item in everything["items"]] == [*range(7)]
    assert sum(group["items"] for group in everything["groups"]) == 7


def test_what_is_wrong_is_said_on_one_screen(said: Said, cli: Cli, run_id: str) -> None:
    assert 'Step "zork" does not exist in flow' in said("zork", code=2)
    assert "needs a text" in said("--error", " ", code=2)
    assert_one_screen(cli("failures", "abcdef"), 2, "There is no run abcdef")
    assert_one_screen(cli("failures"), 2, "RUN_ID is missing")


def test_a_role_that_may_read_runs_may_see_what_failed(
    cli: Cli, run_id: str, dsn: str, tmp_path: Path
) -> None:
    with role_with(dsn, "starter") as restricted:
        theirs = Cli(tmp_path, restricted)("failures", run_id[:8], "--json")
        assert theirs.code == 0, theirs.err
        assert theirs.json == cli("failures", run_id, "--json").json


FLOW = """
from pgflow_mp import Flow
flow = Flow("many", max_attempts=1)
WORDS = "one two three four five six seven eight nine ten".split()

@flow.map(tolerate=1.0)
def parse(name: str) -> str:
    raise ValueError(f"{WORDS[len(name) % 10]} is wrong with {name!r} " + "and so on " * 10)
"""


@pytest.mark.slow
def test_a_run_and_its_status_end_with_the_groups_on_one_screen(cli: Cli) -> None:
    (cli.cwd / "many.py").write_text(FLOW)
    names: list[Any] = ["日本" * 30 + "x" * number for number in range(60)]
    screen = OnTerminal(cli, "run", "many.py", "--input", json.dumps(names), "--workers", "1")
    shown = screen.finish(60)
    assert shown.code == 0
    summary = shown.out.replace("\r\n", "\n").rpartition("completed  many")[2]
    assert "\n60 failed and tolerated\n  6 x parse: ValueError: " in summary
    assert '\n      e.g. [0] "日本' in summary
    assert "... and 24 with 4 other errors: python -m pgflow_mp failures" in summary
    assert len(summary.splitlines()) < 24
    run_id = cli("status", "--json").json[0]["run_id"]
    status = OnTerminal(cli, "status", run_id).finish()
    assert "  6 x parse: ValueError: " in status.out
    assert len(status.out.splitlines()) <= 24
    assert all("…" in line or len(line) < 80 for line in status.out.splitlines() if " x parse" in line)
