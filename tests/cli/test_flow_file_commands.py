"""Flow files on the command line: wherever a flow is named, in all processes; nothing else is imported."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import psycopg
import pytest
from cli_harness import Cli, assert_one_screen, finish

STEPS = """\
import os, time
from pathlib import Path

def split(text: str) -> list[str]:
    return text.split()

def length(word: str) -> int:
    (Path("pids") / str(os.getpid())).touch()
    if word == "fail":
        raise ValueError("no")
    while word == "wait" and not Path("go").exists():
        time.sleep(0.02)
    return len(word)

def total(length: list[int]) -> int:
    return sum(length)
"""
FLOW = """\
slug: words
steps:
  - {slug: split, kind: array, handler: "work_steps:split"}
  - {slug: length, kind: map, over: split, handler: "work_steps:length", max_attempts: 1}
  - {slug: total, depends_on: length, handler: "work_steps:total"}
"""
EVIL = "from pathlib import Path\nPath('imported').touch()\ndef f(x): pass\n"


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    (tmp_path / "work_steps.py").write_text(STEPS)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "pids").mkdir()
    file = tmp_path / "words.yaml"
    file.write_text(FLOW)
    return file


LIST = ("--handlers", "work_steps")


def test_each_command_takes_a_flow_file(cli: Cli, flow: Path) -> None:
    done = cli("run", "words.yaml", *LIST, "--input", '"a bb"', "--output", "-", "--workers", "2")
    assert (done.code, json.loads(done.out)) == (0, {"total": 3})
    assert len(list((flow.parent / "pids").iterdir())) >= 1
    assert str(os.getpid()) not in os.listdir(flow.parent / "pids")
    compiled = Cli(flow.parent)("compile", "words.yaml", PGFLOW_HANDLERS="work_steps:length, work_steps")
    assert "pgflow.add_step('words', 'total', ARRAY['length'])" in compiled.out
    planned = cli("schedule", "words.yaml", *LIST, "--cron", "@daily", "--input", '"a"')
    assert planned.code == 0, planned.err


@pytest.mark.slow
def test_other_commands_take_a_flow_file_too(cli: Cli, flow: Path) -> None:
    """doctor, run --resume as it is advised, replay, retry."""
    doctor = cli("doctor", "words.yaml", *LIST, "--json")
    assert any("flow words with 3 steps" in symptom["what"] for symptom in json.loads(doctor.out))
    assert any(
        "not on the list" in each["what"] for each in json.loads(cli("doctor", "words.yaml", "--json").out)
    )

    failed = cli("run", "words.yaml", *LIST, "--input", '"a fail"', "--progress", "off")
    assert failed.code == 1
    assert "run words.yaml --resume" in " ".join((failed.out + failed.err).split())
    assert "--handlers work_steps" in failed.out + failed.err
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        ((run,),) = conn.execute("select run_id::text from pgflow.runs where status = 'failed'").fetchall()
    replayed = cli("replay", run, "length", "1", "words.yaml", *LIST)
    assert (replayed.code, "ValueError: no" in replayed.err) == (1, True), replayed
    assert_one_screen(cli("replay", run, "length", "1", "words.yaml"), 2, "not on the list")
    again = cli("retry", run, "words.yaml", "--failed", "--work", *LIST, "--progress", "off")
    assert again.code == 1, again


def test_a_worker_serves_a_file_whose_content_is_that_of_its_start(cli: Cli, flow: Path) -> None:
    """A file that is changed and removed meanwhile makes no second flow, also of a lane that comes later."""
    flow.write_text(FLOW.replace("words", "waiting", 1))
    order = (
        "words.yaml",
        "--handlers",
        "work_steps:split,work_steps:length",
        "--handlers",
        "work_steps:total",
    )
    started = cli("start", *order, "--input", '"wait aaa wait"')
    assert started.code == 0, started.err
    worker = cli.start(*order, "--workers", "2", "--preload", "flow")
    deadline = time.monotonic() + 30
    while len(os.listdir(flow.parent / "pids")) < 2:
        assert worker.poll() is None, finish(worker)
        assert time.monotonic() < deadline
        time.sleep(0.05)
    flow.write_text("slug: other\nsteps: [{handler: 'evil:f'}]\n")
    lane = int(min(os.listdir(flow.parent / "pids")))
    os.kill(lane, 9)  # the one that replaces it makes the flow of what the worker has
    (flow.parent / "go").touch()
    done = cli("status", started.out.strip(), "--watch", "--json")
    assert json.loads(done.out.splitlines()[-1])["status"] in ("completed", "failed"), done
    worker.terminate()
    ended = finish(worker)
    assert ended.code == 0, ended
    assert "other" not in ended.err
    assert not (flow.parent / "imported").exists()


@pytest.mark.parametrize("listed", ["", "work_steps,evil:g,evil_too.*"])
def test_what_is_not_listed_is_never_imported(bare_cli: Cli, flow: Path, listed: str) -> None:
    flow.write_text("slug: words\nsteps:\n- handler: work_steps:split\n- handler: evil:f\n")
    for command in ("run", "start", "compile", "work"):
        done = bare_cli(command, "words.yaml", PGFLOW_HANDLERS=listed)
        assert_one_screen(done, 2, "words.yaml, line", "not on the list of handlers")
    assert not (flow.parent / "imported").exists()


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("a.yaml", b"a: &a [*a]", ("a.yaml, line 1: what is called &a holds itself",)),
        ("a.json", b'{"slug": "a", "slug": "b"}', ("a.json, line 1: an object has the key 'slug' twice",)),
        ("a.json", b"[" * 100_000, ("a.json: it is nested too deeply",)),
        ("a.json", b" " * (5 << 20), ("more than 4 MiB",)),
        ("a.yml", "slug: caf\u00e9".encode("latin-1"), ("not UTF-8 (byte 0xe9)", "iconv")),
        ("a.yml", b"slug: a\nsteps: [{handler: !!python/name:os.system x}]", ("has the tag",)),
        ("a.yml", b"slug: a\nsteps: [{handler: ../../etc/passwd:x}]", ("is not an import path",)),
        ("a.json", b'{"slug": "\\ud800", "steps": []}', ("half of a surrogate pair",)),
        ("a.json", b'{"slug": "\\u001b[31m", "steps": []}', ("can only contain letters",)),
        ("a.yaml", b"", ("a.yaml is empty",)),
    ],
)
def test_hostile_files_are_one_screen(bare_cli: Cli, name: str, data: bytes, parts: tuple[str, ...]) -> None:
    (bare_cli.cwd / name).write_bytes(data)
    done = bare_cli("run", name, "--handlers", "os.*")
    assert_one_screen(done, 2, *parts)
    assert "\x1b" not in done.err


def test_the_list_itself_is_checked(bare_cli: Cli) -> None:
    done = bare_cli("run", "a.yaml", "--handlers", "os;system")
    assert_one_screen(done, 2, "--handlers: 'os;system' cannot be on the list of handlers")
    done = bare_cli("run", "a.yaml", PGFLOW_HANDLERS="*")
    assert_one_screen(done, 2, "PGFLOW_HANDLERS")
    assert_one_screen(bare_cli("run", "a.yaml"), 2, "There is no file")
