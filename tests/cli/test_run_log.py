"""``logs``: what happened in a run, in order."""

from __future__ import annotations

import json
import re

from cli_harness import FLOWS, Cli, assert_one_screen, finish


def test_a_run_is_told_in_order_with_its_failed_items(cli: Cli) -> None:
    run = cli("run", f"{FLOWS}:picky", "--input", "[1, 3, 4]", "--json").json["run_id"]
    done = cli("logs", run[:13])
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  \S", line) for line in lines)
    told = [line[25:] for line in lines]
    assert told[:2] == ["run of picky started", "step check started"]
    assert sorted(told[3:]) == ["run of picky failed", "step check failed"]
    assert re.match(r"item check\[1\] failed after 1 attempt: \S", told[2])


def test_json_is_a_line_for_each_and_one_step_may_be_asked_for(cli: Cli) -> None:
    run = cli("run", f"{FLOWS}:picky", "--input", "[1, 3, 4]", "--json").json["run_id"]
    records = [json.loads(line) for line in cli("logs", run, "--json", "--step", "check").out.splitlines()]
    assert {record["step"] for record in records} == {"check"}
    (item,) = [record for record in records if record["index"] is not None]
    assert (item["run_id"], item["flow"], item["status"], item["attempts"]) == (run, "picky", "failed", 1)
    assert item["error"]
    assert_one_screen(
        cli("logs", run, "--step", "nope"), 2, 'Step "nope" does not exist in flow "picky"', "check"
    )


def test_more_failed_items_than_asked_for_are_counted(cli: Cli) -> None:
    run = cli("run", f"{FLOWS}:lenient", "--input", "[0, 3, 6, 9]", "--json").json["run_id"]
    shown = cli("logs", run, "--limit", "1").out.splitlines()
    failed = cli("logs", run).out.count(" failed after ")
    assert failed > 1
    assert sum(" failed after " in line for line in shown) == 1
    assert f"... and {failed - 1} item" in shown[-1]


def test_a_run_is_followed_to_its_end(cli: Cli) -> None:
    run = cli("start", f"{FLOWS}:square", "--input", "[1, 2]", "--json").json["run_id"]
    following = cli.start("logs", run, "--follow")
    assert cli("run", f"{FLOWS}:square", "--resume", run).code == 0
    done = finish(following)
    assert done.code == 0
    assert done.out.splitlines()[-1].endswith("run of square completed")
    assert len(done.out.splitlines()) == len(set(done.out.splitlines()))
