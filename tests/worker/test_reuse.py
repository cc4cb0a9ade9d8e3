"""Runs that take work of an earlier one, by real workers, from the command line and from Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from extended_harness import FLOWS, done

from pgflow_mp.testing.audit import audit_run


def last_run(conn: psycopg.Connection[tuple[object, ...]]) -> str:
    row = conn.execute("select run_id from pgflow.runs order by started_at desc limit 1").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_what_an_earlier_run_has_finished_is_taken_and_said(dsn: str, storage: str) -> None:
    run = ("run", str(FLOWS), "--workers", "1", "--input")
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert done(dsn, 2, *run, "[1, 2, 13]", storage=storage)[0] == 1
        failed = last_run(conn)
        taken = ("--from-run", failed[:13], "--reuse", "double", "--reuse", "total")
        code, out, err = done(dsn, 4, *run, "[2, 13, 5]", *taken, storage=storage)
        assert code == 0, err
        text = " ".join(out.split())
        assert f"1 of 3 items of step double from run {failed}" in text
        assert f"0 of 1 items of step total from run {failed}" in text
        second = last_run(conn)
        code, out, err = done(
            dsn,
            4,
            *run,
            "[2, 13, 5]",
            "--from-run",
            second,
            "--reuse",
            "double",
            "--reuse",
            "total",
            "--reuse",
            "named",
            "--reuse",
            "report",
            "--json",
            storage=storage,
        )
        assert code == 0, err
        third = last_run(conn)
        record = json.loads(out)
        assert [(each["step_slug"], each["taken"], each["items"]) for each in record["reused"]] == [
            ("double", 3, 3),
            ("total", 1, 1),
            ("named", 3, 3),
            ("report", 1, 1),
        ]
        assert record["items"] == 0
        output = conn.execute("select output from pgflow.runs where run_id = %s", (third,)).fetchone()
        assert output == ({"report": "40: #4 #26 #10"},)
        attempts = "select sum(attempts_count) from pgflow.step_tasks where run_id = %s"
        assert conn.execute(attempts, (third,)).fetchone() == (0,)
        code, out, err = done(dsn, 4, "status", third, storage=storage)
        assert f"reused 3 of 3 items of step double from run {second}" in out
        code, out, err = done(
            dsn,
            4,
            "start",
            str(FLOWS),
            "--input",
            "[2, 7]",
            "--from-run",
            second,
            "--reuse",
            "double",
            "--reuse",
            "named",
            storage=storage,
        )
        assert f"reused 1 of 2 items of step double from run {second}" in err
        assert f"step named is looked for in run {second} when it starts" in err
        for each in (second, third, out.strip()):
            assert audit_run(conn, each) == []


@pytest.mark.slow
def test_from_python_items_are_drawn_and_taken(dsn: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"import sys; sys.path.insert(0, {str(FLOWS.parent)!r})\n"
        "from extended_flows import flow\nfrom pgflow_mp import Client, run\n"
        "if __name__ == '__main__':\n"
        f"    dsn = {dsn!r}\n"
        "    print(run(flow, [1, 2, 3], dsn=dsn, workers=1, run_id='00000000-0000-0000-0000-000000000001'))\n"
        "    given = {'from_run': '00000000-0000-0000-0000-000000000001', 'reuse': ['double']}\n"
        "    print(run(flow, iter([3, 4]), dsn=dsn, workers=1, **given))\n"
        "    with Client(dsn) as client:\n"
        "        print(client.start_flow('growing', [2, 9], **given).status)\n"
        "        print(client.start(flow, range(3), **given).status)\n"
    )
    env = {**os.environ, "PGFLOW_TEST_AGE": "1"}
    made = subprocess.run([sys.executable, program], env=env, capture_output=True, text=True, check=False)
    assert made.stdout.splitlines() == ["{'total': 12}", "{'total': 14}", "started", "started"], made.stderr
    with psycopg.connect(dsn) as conn:
        rows = conn.execute(
            "select u.taken, u.items from pgflow.reuses u join pgflow.runs using (run_id) order by started_at"
        ).fetchall()
    assert rows == [(1, 2), (1, 2), (2, 3)]


def test_what_makes_no_sense_is_refused_before_anything_is_started(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pgflow_mp.cli.main import main
    from pgflow_mp.client.reuse import reuse_of
    from pgflow_mp.errors import FlowNotFound, InputError

    nobody = "00000000-0000-0000-0000-000000000009"
    flow = ["start", "simple", "--dsn", dsn]
    for words, said in (
        (["--reuse", "square"], "--reuse is for --from-run, which is missing"),
        (["--from-run", nobody], "--from-run is for --reuse, which is missing"),
        (
            ["--from-run", nobody, "--reuse", "square", "--key", "k"],
            "--key and --from-run cannot be used together",
        ),
        (
            ["--from-run", nobody, "--reuse", "nope"],
            '--reuse nope: step "nope" does not exist in flow "simple"',
        ),
    ):
        assert main([*flow, *words]) == 2, words
        assert said in capsys.readouterr().err
    main(["start", "simple", "--dsn", dsn])
    capsys.readouterr()
    step = "square"
    with psycopg.connect(dsn) as conn:
        (step,) = conn.execute(
            "select step_slug from pgflow.steps order by step_index limit 1"
        ).fetchone() or ("",)
    assert main([*flow, "--from-run", nobody, "--reuse", step]) != 0
    assert f"There is no run {nobody}" in capsys.readouterr().err
    assert (
        main(["run", "simple", "--dsn", dsn, "--resume", nobody, "--from-run", nobody, "--reuse", step]) == 2
    )
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgflow.runs").fetchone() == (1,)
    for given, error in (
        ({"from_run": nobody, "steps": []}, InputError),
        ({"from_run": None, "steps": ["s"]}, InputError),
        ({"from_run": "x", "steps": ["s"]}, InputError),
        ({"from_run": nobody, "steps": ["s"], "key": "k"}, InputError),
    ):
        with pytest.raises(error):
            reuse_of("f", **given)
    from pgflow_mp.examples.simple import flow as example

    with pytest.raises(FlowNotFound):
        reuse_of(example, nobody, ["nope"])
