"""Flows that grow while they are worked on, by workers of old and of new code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from extended_harness import FLOWS, command, done
from worker_harness import adapted, eventually

from pgflow_mp.db import engine
from pgflow_mp.testing.audit import audit_run


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_a_worker_of_old_code_leaves_new_steps_to_workers_of_the_new(dsn: str, storage: str) -> None:
    old = command(dsn, 1, "work", str(FLOWS), "--workers", "1", storage=storage)
    new = None
    try:
        with adapted(dsn) as conn:
            known = "select count(*) from pgflow.workers where stopped_at is null"
            eventually(lambda: conn.execute(known).fetchone() == (1,), 30)
            code, out, err = done(dsn, 2, "start", str(FLOWS), "--input", "[1, 2]", storage=storage)
            assert code == 0, err
            assert 'flow growing: extended by steps "named", "report"; runs that were started before' in err
            run = out.strip()
            states = "select status from pgflow.step_states where run_id = %s and step_slug = %s"
            eventually(lambda: conn.execute(states, (run, "total")).fetchone() == ("completed",), 30)
            assert conn.execute(states, (run, "named")).fetchone() == ("started",)
            assert engine.run_status(conn, run) == "started"
            new = command(dsn, 2, "work", str(FLOWS), "--workers", "1", storage=storage)
            eventually(lambda: engine.run_status(conn, run) == "completed", 30)
            assert conn.execute("select output from pgflow.runs where run_id = %s", (run,)).fetchone() == (
                json.dumps({"report": "6: #2 #4"}).encode(),
            )
            attempts = "select max(attempts) from pgflow.items where run_id = %s"
            assert conn.execute(attempts, (run,)).fetchone() == (1,)
            with psycopg.connect(dsn) as audited:
                assert audit_run(audited, run) == []
    finally:
        for process in filter(None, (old, new)):
            process.terminate()
    _, err = old.communicate(timeout=20)
    assert err.count('has a step "named", which is newer than the code here') == 1, err
    if new is not None:
        new.communicate(timeout=20)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_runs_get_the_new_steps_when_they_are_gone_on_with(dsn: str, storage: str) -> None:
    completed, failed = ("run", str(FLOWS), "--input", "[1, 2]"), ("run", str(FLOWS), "--input", "[1, 13]")
    assert done(dsn, 1, *completed, storage=storage)[0] == 0
    assert done(dsn, 1, *failed, storage=storage)[0] == 1
    with psycopg.connect(dsn, autocommit=True) as conn:
        first, second = [
            str(row[0])
            for row in conn.execute("select run_id from pgflow.runs order by started_at").fetchall()
        ]
        code, out, err = done(dsn, 2, "run", str(FLOWS), "--resume", first, "--output", "-", storage=storage)
        assert (code, json.loads(out)) == (0, {"report": "6: #2 #4"}), err
        assert f'note: run {first} has the new steps "named", "report"' in err
        code, out, err = done(dsn, 2, "run", str(FLOWS), "--resume", first, "--output", "-", storage=storage)
        assert (code, json.loads(out)) == (0, {"report": "6: #2 #4"})
        assert "new step" not in err
        code, out, err = done(
            dsn, 4, "retry", "--new-steps", second, str(FLOWS), "--work", "--output", "-", storage=storage
        )
        assert (code, json.loads(out)) == (0, {"report": "28: #2 #26"}), err
        assert (
            conn.execute(
                "select step_slug, item_index from pgflow.items where run_id = %s and attempts <> 1",
                (second,),
            ).fetchall()
            == []
        )
        for run in (first, second):
            assert audit_run(conn, run) == []
        program = (
            f"import sys; sys.path.insert(0, {str(FLOWS.parent)!r})\n"
            "from extended_flows import flow\nfrom pgflow_mp.runner import resume\n"
            f"if __name__ == '__main__': print(resume(flow, {first!r}, dsn={dsn!r}, workers=1))"
        )
        env = {**os.environ, "PGFLOW_TEST_AGE": "5", "PGFLOW_TEST_STORAGE": storage}
        made = subprocess.run(
            [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
        )
        assert made.stdout == "{'last': '6: #2 #4!'}\n", made.stderr
        code, out, err = done(dsn, 9, "start", str(FLOWS), "--input", "[1]", storage=storage)
        assert (code, 'the database has step "named", the code has not' in err) == (3, True), err
        code, out, err = done(dsn, 9, "run", str(FLOWS), "--resume", first, "--output", "-", storage=storage)
        assert (code, json.loads(out)) == (0, {"last": "6: #2 #4!"}), err


def test_steps_that_the_database_got_are_added_by_retry(dsn: str, capsys: pytest.CaptureFixture[str]) -> None:
    from pgflow_mp.cli.main import main

    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("select pgflow.create_flow('f')")
        (run,) = conn.execute("select run_id from pgflow.start_flow('f', '{}')").fetchone() or ()
        assert main(["retry", "--new-steps", str(run), "--dsn", dsn]) == 0
        assert f"Run {run} has all steps that flow f has in the database." in capsys.readouterr().out
        conn.execute("select pgflow.add_step('f', 's'), pgflow.add_step('f', 'm', step_type => 'map')")
        assert main(["retry", "--new-steps", str(run), "--dsn", dsn]) == 2
        assert 'cannot get the new step "m"' in capsys.readouterr().err
        conn.execute("delete from pgflow.steps where step_slug = 'm'")
        assert main(["retry", "--new-steps", str(run), "--json", "--dsn", dsn]) == 0
        assert json.loads(capsys.readouterr().out) == {"run_id": str(run), "flow": "f", "added": ["s"]}
        assert main(["retry", "--new-steps", str(run), "--output", "x.json", "--dsn", dsn]) == 2


def test_changed_conditions_are_refused_and_taken_over_if_asked_for(dsn: str) -> None:
    from pgflow_mp.db import definitions
    from pgflow_mp.flows.flow import Flow

    def shape(**condition: Any) -> bytes:
        flow = Flow("g")
        flow.step(**condition)(lambda given: 1)
        return json.dumps(flow.shape()).encode()

    with adapted(dsn) as conn:
        one, other = shape(slug="a", when={"x": 1}), shape(slug="a", when={"x": 2})
        assert definitions.ensure(conn, "g", one).status == "compiled"
        found = definitions.ensure(conn, "g", other)
        error = definitions.mismatch("g", found, hint="Or not.")
        assert 'when of step "a" is {"x": 2} in the code, {"x": 1} in the database' in str(error)
        assert error.hint.startswith("Take the changed conditions over")
        assert error.differences == found.differences != list(found.words)
        found = definitions.ensure(conn, "g", other, how="extend")
        assert found.status == "extended"
        assert found.notes == ['when of step "a" is {"x": 2} in the code, {"x": 1} in the database']
        assert definitions.ensure(conn, "g", other).status == "verified"
