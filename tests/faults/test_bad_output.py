"""Bad output and bad code, each through the whole stack: its own defined error, and all else completes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bad_flows
import psycopg
import pytest
from worker_harness import Tasks, adapted, output

from pgflow_mp import runner
from pgflow_mp.db import engine
from pgflow_mp.loading.finding import Target, load_flows
from pgflow_mp.run_request import RunRequest, RunSummary, StateDatabase
from pgflow_mp.testing import audit_run
from pgflow_mp.testing.inline import execute_inline

HERE = Path(__file__).parents[1] / "bad_flows.py"

ERRORS = {
    "nan": ("OutputError", 'step "act", index', "$.a[1]"),
    "infinity": ("OutputError", "cannot be stored"),
    "cycle": ("OutputError", "cannot be stored"),
    "deep": ("OutputError", "cannot be stored"),
    "tuple_key": ("OutputError", "cannot be stored"),
    "surrogate": ("OutputError", "surrogate"),
    "nul": ("OutputError", "NUL"),
    "nul_key": ("OutputError", "NUL"),
    "object": ("OutputError", "object"),
    "complex": ("OutputError", "complex"),
    "many_digits": ("OutputError", "digits"),
    "silent": ("Silent",),
    "unpicklable": ("Unpicklable: holds a lock",),
    "huge_message": ("ValueError: xxx", "[...]"),
    "odd_message": ("ValueError: a\\x00b\\ud800",),
    "group": ("ExceptionGroup: two", "ValueError: one", "TypeError: other"),
    "sys_exit": ("SystemExit: bye (the handler called sys.exit)",),
    "interrupt": ("KeyboardInterrupt",),
    "generator_exit": ("GeneratorExit",),
    "recursion": ("RecursionError: maximum recursion depth exceeded",),
    "memory_error": ("MemoryError: too much",),
    "permanent": ("PermanentError: give up",),
}

LAST = ("closes_files", "changed")
"""They change the process for whatever runs in it afterwards, so nothing that prints does."""


def executed(dsn: str, flow: str, input: bytes, **settings: Any) -> tuple[str, RunSummary]:
    request = RunRequest(Target.parse(str(HERE)), flow, input, settings={"workers": 2, **settings})
    summary = runner.execute(StateDatabase(dsn, "here", None), request)
    return summary.run_id, summary


def test_every_defect_has_its_error_and_everything_else_completes(
    dsn: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fine = [name for name in bad_flows.FINE if name not in LAST]
    names = [name for pair in zip([*ERRORS], fine * 3, strict=False) for name in pair]
    names += [f"plain {number}" for number in range(100)]
    names += [*LAST, *[f"after {number}" for number in range(20)]]
    run_id, summary = executed(dsn, "bad", str(names).replace("'", '"').encode())
    tasks = Tasks(dsn, run_id)
    assert summary.status == "completed"
    assert set(ERRORS) == set(bad_flows.DEFECTS)
    for row in tasks.rows:
        step, index, status, attempts, error, result = row
        if step == "survivors":
            continue
        name = names[index]
        if name in ERRORS:
            assert (status, attempts) == ("failed", 1), row
            for part in ERRORS[name]:
                assert part in error, (name, error)
            assert len(error) <= 8 * 1024
            assert "/pgflow_mp/flows/handlers.py" not in error, error
        else:
            expected = bad_flows.FINE[name][1] if name in bad_flows.FINE else name
            assert (status, attempts, result) == ("completed", 1, expected), (name, status, error)
    good = sum(name not in ERRORS and name != "none" for name in names)
    assert output(dsn, run_id) == {"survivors": good}
    with psycopg.connect(dsn) as conn:
        assert audit_run(conn, run_id) == []


def test_inputs_that_do_not_fit_fail_without_a_retry(dsn: str) -> None:
    run_id, summary = executed(dsn, "typed", b'[1, "two", 3, null, 4.5, {"a": 1}, [5], true]')
    tasks = Tasks(dsn, run_id)
    assert summary.status == "completed"
    assert tasks.statuses("double") == {"completed": 2, "failed": 6}
    for index in (1, 3, 4, 5, 6, 7):
        assert tasks.attempts("double", index) == 1
        assert 'InputMismatch: Input of step "double" does not fit parameter "number"' in tasks.error(
            "double", index
        )


def test_inline_runs_tell_the_same_errors(dsn: str) -> None:
    names = [name for name in ERRORS if name != "interrupt"]
    run = execute_inline(bad_flows.bad, names)
    for index, name in enumerate(names):
        for part in ERRORS[name]:
            assert part in run.steps["act"].errors[index], name


@pytest.mark.slow
def test_a_string_of_300_mb_is_refused_with_its_size_and_the_lane_goes_on(dsn: str) -> None:
    run_id, summary = executed(dsn, "big", b"[1, 300, 2]")
    tasks = Tasks(dsn, run_id)
    assert summary.status == "completed"
    assert tasks.statuses("blow") == {"completed": 2, "failed": 1}
    error = tasks.error("blow", 1)
    assert "OutputError" in error
    assert "300" in error or "MB" in error, error


def test_untrusted_payloads_stay_data(dsn: str, tmp_path: Path) -> None:
    """What looks like a pickle, a YAML tag or code is a string all the way."""
    import json

    proof = tmp_path / "proof"
    payloads = [
        f"cos\nsystem\n(S'touch {proof}'\ntR.",
        f"!!python/object/apply:os.system ['touch {proof}']",
        f"__import__('os').system('touch {proof}')",
        "'; drop schema pgflow cascade; --",
        "\\u0027); drop table pgflow.runs; --",
    ]
    run_id, summary = executed(dsn, "bad", json.dumps(payloads).encode())
    assert summary.status == "completed"
    assert Tasks(dsn, run_id).outputs("act") == payloads
    assert not os.path.exists(proof)
    with adapted(dsn) as conn:
        assert engine.run_status(conn, run_id) == "completed"
    assert [flow.slug for flow in load_flows(str(HERE))] == ["bad", "typed", "big"]
