"""Texts of others that would command a terminal, on every way to one."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from cli_harness import Cli, finish
from rich.console import Console

from pgflow_mp import logs
from pgflow_mp.cli import complaints
from pgflow_mp.cli.summary import _print_pair
from pgflow_mp.errors import InputError
from pgflow_mp.observe.live import LiveObserver
from pgflow_mp.observe.plain import PlainObserver

EVIL = "one \x1b]0;owned\x07\x1b[2J\x9b31m\x7f two \u202ethree\u2066 [red]four[/] %s {five}\r\u2028"
WORDS = ("one", "two", "three", "[red]four[/] %s {five}")
FLOW = """
import time
from pgflow_mp import Flow
flow = Flow("evil", max_attempts=1)
@flow.map
def boom(text: str) -> str:
    if not text:
        time.sleep(60)
    raise ValueError(text + "\\n" + text)
"""


def assert_harmless(text: str, *words: str) -> None:
    lines = text.replace("\n", "").replace("\t", "")
    assert not [c for c in lines if ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u2028\u2029\u202e\u2066"], (
        text
    )
    for word in words:
        assert word in text, text


@pytest.mark.slow
def test_errors_reasons_and_names_reach_no_terminal_as_they_are(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(FLOW)
    done = cli("run", "evil.py", "--input", json.dumps([EVIL]), "--log-level", "debug")
    assert done.code == 1
    assert_harmless(done.err, *WORDS)
    assert_harmless(done.out, *WORDS)
    run_id = cli("status", "--json").json[0]["run_id"]
    for command in (
        ["status", run_id],
        ["status", run_id, "--errors"],
        ["replay", run_id, "boom", "0", "evil.py"],
    ):
        done = cli(*command)
        assert_harmless(done.out + done.err, *WORDS)
    running = cli.start("run", "evil.py", "--input", '[""]')
    while not (found := [run for run in cli("status", "--json").json if run["status"] == "started"]):
        pass
    assert cli("cancel", found[0]["run_id"], "--reason", EVIL).code == 0
    done = finish(running)
    assert done.code == 1
    assert_harmless(done.out + done.err, *WORDS)
    done = cli("run", EVIL, "--input", EVIL)
    assert done.code == 2
    assert_harmless(done.err)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "9 " * 100_000, "'" + "y" * 700 + "' " * 50_000])
def test_what_is_too_long_for_a_screen_is_cut_in_errors_and_hints(text: str) -> None:
    paper = io.StringIO()
    complaints.report(InputError(f"Slug {text} is too long", hint=f"It is {text}"), stream=paper)
    assert len(paper.getvalue()) < 30_000
    assert len(paper.getvalue().splitlines()) <= 48
    assert ("more lines" in paper.getvalue()) or ("characters)" in paper.getvalue())


def test_what_is_told_by_messages_logs_errors_and_the_summary_is_printable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("pgflow_mp")
    before: Any = (logger.handlers[:], logger.level, logger.propagate)
    logs.set_up("debug")
    try:
        PlainObserver().on_message("warn", f"{EVIL}\n12:00:00 info  all is well")
        try:
            raise ValueError(EVIL)
        except ValueError:
            logger.exception("look")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
        logger.setLevel(before[1])
    said = capsys.readouterr().err
    assert_harmless(said, *WORDS)
    assert "\n    12:00:00 info  all is well\n" in said
    paper = io.StringIO()
    assert complaints.report(InputError(EVIL, hint=EVIL), debug=True, stream=paper) == 2
    _print_pair(Console(file=paper, width=200, color_system=None), "error", EVIL)
    live = LiveObserver("flow", console=Console(file=io.StringIO(), width=200, color_system=None))
    live.close()
    live.console.file = paper
    live.on_message("warn", EVIL)
    assert_harmless(paper.getvalue(), *WORDS)
