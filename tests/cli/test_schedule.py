"""``schedule``: made, shown, paused, backfilled and deleted; a worker starts and executes the runs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psycopg
import pytest
from cli_harness import FLOWS, Cli, assert_one_screen, finish

SQUARE = f"{FLOWS}:square"
YEARLY = ("--cron", "0 3 1 1 *", "--time-zone", "Europe/Berlin")


def test_a_schedule_from_its_making_to_its_end(cli: Cli) -> None:
    made = cli("schedule", SQUARE, *YEARLY, "--input", "[1, 2]", "--json")
    assert made.code == 0
    assert (made.json["flow"], made.json["name"], made.json["is_new"]) == ("square", "default", True)
    assert made.json["next"][0].endswith("-01-01T03:00+01:00")
    again = cli(
        "schedule", "square", "--cron", "30 5 * * *", "--input", "[3]", "--as", "early", "--priority", "2"
    )
    assert again.out.startswith("Scheduled square/early: 30 5 * * * (UTC). Next:\n  20")
    changed = cli("schedule", "square", *YEARLY, "--input", "[4]", "--missed", "all")
    assert changed.out.startswith("Changed square: 0 3 1 1 * (Europe/Berlin). Next:")
    listed = cli("schedule", "list", "square", "--json").json
    assert [(each["name"], each["missed"], each["priority"]) for each in listed] == [
        ("default", "all", 0),
        ("early", "once", 2),
    ]
    text = cli("schedule", "list").out
    assert "square/early  30 5 * * *" in text
    assert max(map(len, text.splitlines())) <= 80
    assert cli("schedule", "pause", "square").out == "Paused square: nothing of it is started.\n"
    assert cli("schedule", "pause", "square", "--json").json == {
        "flow": "square",
        "name": "default",
        "was_paused": True,
    }
    assert_one_screen(
        cli("schedule", "backfill", "square", "2020-01-01..2022-01-01"), 2, "is paused", "Resume"
    )
    assert "paused" in cli("schedule", "show", "square").out
    assert cli("schedule", "resume", "square").out == "Resumed square.\n"
    asked = cli("schedule", "backfill", "square", "2020-01-01..2022-01-01").out
    assert asked == "3 runs of square will be started by the workers.\n"
    asked = cli("schedule", "backfill", "square", "2021-01-01..2023-01-01").out
    assert asked == "1 run of square will be started by the workers; 2 were or will be anyway.\n"
    assert_one_screen(
        cli("schedule", "backfill", "square", "2022-01-01..2021-01-01"), 2, "ends before it begins"
    )
    assert cli("schedule", "backfill", "square", "2021-02-01..2021-03-01").out == (
        "square has no times in that span.\n"
    )
    shown = cli("schedule", "show", "square", "--json").json
    assert (shown["input"], shown["asked"], shown["past"]) == ([4], 4, [])
    assert cli("schedule", "delete", "square/early").out == "Deleted square/early; its runs stay.\n"
    assert len(cli("schedule", "list", "--json").json) == 1


def test_a_worker_starts_and_executes_what_is_asked_for(cli: Cli) -> None:
    cli("schedule", SQUARE, *YEARLY, "--input", "[5]")
    cli("schedule", "backfill", "square", "2021-01-01..2022-01-01")
    worker = cli.start(SQUARE, "--workers", "1")
    deadline = time.monotonic() + 40
    while "2 completed" not in (told := _statuses(cli)):
        assert time.monotonic() < deadline, told
        time.sleep(0.2)
    worker.terminate()
    assert "started run " in finish(worker).err
    shown = cli("schedule", "show", "square").out
    assert shown.count("completed run ") == 2
    assert "  2022-01-01T03:00+01:00" in shown
    assert "(backfill)" in shown
    listed = cli("schedule", "list").out
    assert "completed " in listed
    (first, second) = cli("status", "--json").json
    assert {first["key"], second["key"]} == {f"schedule:default@{year}-01-01T02:00Z" for year in (2021, 2022)}


def _statuses(cli: Cli) -> str:
    assert cli.dsn is not None
    with psycopg.connect(cli.dsn) as conn:
        rows = conn.execute("select count(*), status from pgflow.runs group by status").fetchall()
    return ", ".join(f"{number} {status}" for number, status in rows)


def test_the_time_is_told_to_the_run_and_looked_at_before(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "daily.py").write_text(
        "from typing import TypedDict\n"
        "from pgflow_mp import Flow\n"
        "class Wanted(TypedDict):\n"
        "    region: str\n"
        "    day: str\n"
        "flow = Flow('daily')\n"
        "@flow.step\n"
        "def report(wanted: Wanted) -> str:\n"
        "    return wanted['region'] + wanted['day']\n"
    )
    given = ("daily.py", *YEARLY, "--input", '{"region": "eu"}')
    assert_one_screen(cli("schedule", *given), 2, "missing required field `day`")
    assert cli("schedule", *given, "--due-as", "day").code == 0
    shown = cli("schedule", "show", "daily", "--json").json
    assert (shown["input"], shown["due_as"]) == ({"region": "eu"}, "day")
    assert_one_screen(
        cli("schedule", SQUARE, *YEARLY, "--input", "[1]", "--due-as", "day"),
        2,
        "the input, which is not an object",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ((), ("What is to be done?", "list, show, pause")),
        (("square",), ("schedule square: no time is given", "--cron LINE")),
        (("pause",), ("SCHEDULE is missing", "schedule pause report")),
        (("list", "a", "b"), ("Too many arguments: b",)),
        (("backfill", "square"), ("SCHEDULE FROM..TO is missing", "2026-11-01..2026-11-25")),
        (
            ("list", "--missed", "all"),
            ("--missed is for --cron, which is missing", "It is for a schedule that is set"),
        ),
        (("--cron", "@daily"), ("Which flow is to be scheduled?",)),
        ((SQUARE, "more", "--cron", "@daily"), ("Too many arguments: more",)),
        (
            (SQUARE, "--cron", "61 * * * *", "--input", "[]"),
            ("is not a cron line: bad minute", "five fields"),
        ),
        ((SQUARE, "--cron", "@daily", "--time-zone", "Berlin"), ("no time zone 'Berlin'", "Europe/Berlin")),
        ((SQUARE, "--cron", "@daily"), ('Flow "square" needs an input',)),
        ((SQUARE, "--cron", "@daily", "--input", "{}"), ("must be an array",)),
        ((SQUARE, "--cron", "@daily", "--input", "[]", "--as", "a/b"), ("no white space and no /",)),
        (("nowhere", "--cron", "@daily"), ('no flow "nowhere" in',)),
        (("show", "square"), ('There is no schedule "square" in', "Schedules there: none.")),
    ],
)
def test_wrong_uses_end_on_one_screen(cli: Cli, words: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_one_screen(cli("schedule", *words), 2, *parts)


def test_an_input_is_kept_with_the_schedule_and_bounded(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("1\n2\n")
    assert cli("schedule", SQUARE, *YEARLY, "--input", "items.jsonl").code == 0
    (tmp_path / "items.jsonl").unlink()
    assert cli("schedule", "show", "square", "--json").json["input"] == [1, 2]
    (tmp_path / "large.json").write_text(json.dumps([0] * 600_000))
    done = cli("schedule", SQUARE, *YEARLY, "--input", "large.json")
    assert_one_screen(done, 2, "has more than 1 MB", "Have a step of the flow read")


def test_nothing_is_set_up_to_show_what_would_be(bare_cli: Cli) -> None:
    done = bare_cli("schedule", "simple", "--cron", "@daily", "--dry-run")
    assert (done.code, done.out[:29]) == (0, "Would schedule simple: @daily")
    assert bare_cli("schedule", "list").out == "Nothing is scheduled.\n"
    assert bare_cli("schedule", "list", "--json").json == []
    assert_one_screen(bare_cli("schedule", "pause", "simple"), 2, 'There is no schedule "simple"')
