"""The public tools for testing flows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
import testing_flows
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from pgflow_mp import Context, Flow, InputError, PermanentError, RunFailed, runner
from pgflow_mp.client import Client
from pgflow_mp.testing import (
    FakeClock,
    Fault,
    FaultInjected,
    Faults,
    database_fixture,
    execute_inline,
    run_inline,
    temporary_database,
)
from pgflow_mp.testing.patterns import contains

HERE = Path(__file__).parent

CASES: list[tuple[Flow, Any]] = [
    (testing_flows.words, ["a b", "c", ""]),
    (testing_flows.words, []),
    (testing_flows.choices, {"kind": "a"}),
    (testing_flows.choices, {"kind": "b", "more": [1]}),
    (testing_flows.tolerant, [1, 2, 3, 4]),
    (testing_flows.tolerant, [2, 2, 2]),
    (testing_flows.alike, [1, 2, 3, 4]),
    (testing_flows.alike, []),
    (testing_flows.starved, 1),
    (testing_flows.lazy, None),
    (testing_flows.lazy, {}),
    (testing_flows.leafless, 1),
    (testing_flows.batched, [1, 2, 5, 3, 7, 13, 4]),
    (testing_flows.batched, []),
]


def test_inline_and_worker_agree_on_every_step(dsn: str) -> None:
    client = Client(dsn)
    for flow, input in CASES:
        inline = execute_inline(flow, input)
        try:
            output = runner.run(flow, input, dsn=dsn, workers=1)
        except RunFailed:
            output = None
        with psycopg.connect(dsn) as conn:
            row = conn.execute("select run_id from pgflow.runs order by started_at desc limit 1").fetchone()
        assert row is not None
        run = client.get_run(str(row[0]))
        assert run is not None
        assert (inline.status, inline.output) == (run.status, output), (flow, input)
        for slug, step in inline.steps.items():
            stored = run.steps[slug]
            context = (flow.slug, input, slug)
            if run.status == "completed" or step.status == "failed":
                assert (step.status, step.skip_reason) == (stored.status, stored.skip_reason), context
                assert first_line(step.error) == first_line(stored.error), context
            if step.status == "completed" and run.status == "completed":
                assert step.output == stored.output, context
        del run
    client.close()


def first_line(text: str | None) -> str | None:
    return None if text is None else text.partition("\n")[0]


def test_the_output_is_typed_and_the_first_failure_is_raised() -> None:
    assert run_inline(testing_flows.words, ["a b", "c"]) == {
        "report": {"labels": ["0:2", "1:1"], "sum": 6, "lines": 2}
    }
    with pytest.raises(RunFailed, match=r'Flow "tolerant" failed: step "odd" task 0: .*PermanentError: 2 is'):
        run_inline(testing_flows.tolerant, [2, 2, 2])
    with pytest.raises(InputError, match="Flow words has root map steps but input is not an array"):
        run_inline(testing_flows.words, {"a": 1})


def test_input_that_a_run_could_not_store_is_refused_and_what_it_could_is_taken() -> None:
    flow = Flow("same")
    flow.map("same", lambda x: x)
    for value, error in ((float("nan"), "NaN"), (1j, "complex"), ("\0", "NUL")):
        with pytest.raises(InputError, match=rf"{error}.* \(at \$\[0\]\)"):
            run_inline(flow, [value])
    assert run_inline(flow, range(2)) == {"same": [0, 1]}
    assert run_inline(flow, [b"x"]) == {"same": ["eA=="]}
    assert run_inline(flow, iter([Path("/a")])) == {"same": ["/a"]}


def test_an_input_that_is_not_given_is_an_empty_object_and_none_is_null() -> None:
    assert run_inline(testing_flows.lazy) == {"strings": ["[[{}, 'a']]"]}
    assert run_inline(testing_flows.lazy, None) == {"strings": ["[[None, 'a']]"]}


def test_without_a_completed_leaf_there_is_no_output() -> None:
    assert run_inline(testing_flows.leafless, 1) is None


def test_retries_take_fake_time_only() -> None:
    clock = FakeClock()
    run = execute_inline(testing_flows.flaky, [0, 2, 1], clock=clock)
    assert run.output == {"twice": [1, 3, 2]}
    assert run.steps["twice"].attempts == [1, 3, 2]
    assert clock.slept == [2.0, 4.0]
    assert run.seconds == clock.elapsed == 6.0
    assert execute_inline(testing_flows.flaky, [3]).status == "failed"


def test_a_start_delay_passes_on_the_clock() -> None:
    flow = Flow("late")
    flow.step("now", lambda x: x)
    flow.step("soon", lambda now: now, depends_on=["now"], start_delay=3600)
    assert execute_inline(flow, 1).seconds == 3600


def test_simulated_crashes_and_timeouts_are_charged_as_real_ones() -> None:
    faults = Faults(at={1: "segfault", 2: Fault.HANG_IN_C, 3: "exit"}, attempts=2)
    flow = Flow("struck", base_delay=1)

    def work(x: int, ctx: Context) -> int:
        faults.strike(ctx)
        return x

    flow.map("work", work, tolerate=1.0, timeout=5)
    run = execute_inline(flow, [0, 1, 2, 3])
    step = run.steps["work"]
    assert run.output == {"work": [0, None, 2, None]}
    assert step.failed == {1, 3}
    assert step.attempts == [1, 2, 3, 2]
    assert step.errors[1].startswith("quarantined after 2 crashes: Crashed: ")
    assert "exceeded its timeout of 5 s" in step.errors[2]


def test_the_same_seed_chooses_the_same_faults() -> None:
    one, two = Faults(7, raise_once=0.2, segfault=0.1), Faults(7, raise_once=0.2, segfault=0.1)
    chosen = [one.chosen("work", index) for index in range(1000)]
    assert chosen == [two.chosen("work", index) for index in range(1000)]
    assert chosen != [Faults(8, raise_once=0.2, segfault=0.1).chosen("work", i) for i in range(1000)]
    assert 150 < chosen.count(Fault.RAISE_ONCE) < 250
    assert 60 < chosen.count(Fault.SEGFAULT) < 140
    with pytest.raises(ValueError, match="add up to at most 1"):
        Faults(exit=0.7, hang=0.4)


def test_exceptions_are_raised_for_what_they_are() -> None:
    faults = Faults()
    with pytest.raises(FaultInjected):
        Faults.raise_once(Context(attempt=1))
    Faults.raise_once(Context(attempt=2))
    with pytest.raises(PermanentError):
        faults.inflict("permanent", Context())


@pytest.mark.parametrize(
    ("call", "status"),
    [
        ("kill_self()", -signal.SIGKILL),
        ("segfault()", -signal.SIGSEGV),
        ("abort()", -signal.SIGABRT),
        ("exit(7)", 7),
    ],
)
def test_deadly_faults_are_deadly(call: str, status: int) -> None:
    code = f"from pgflow_mp.testing import Faults; Faults.{call}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == status


@pytest.mark.parametrize(
    "call", ["hang_in_c()", *(pytest.param(call, marks=pytest.mark.slow) for call in ("hang()", "stop()"))]
)
def test_endless_faults_do_not_end(call: str) -> None:
    code = f"from pgflow_mp.testing import Faults; Faults.{call}"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.7)
        process.kill()


def test_handlers_that_use_faults_import_no_database_driver() -> None:
    code = "import sys, pgflow_mp.testing; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_temporary_database_is_gone_afterwards() -> None:
    with temporary_database() as dsn:
        report = runner.run(testing_flows.words, ["a"], dsn=dsn, workers=1, output="report")
        assert isinstance(report, dict)
        assert report["sum"] == 2
        directory = psycopg.conninfo.conninfo_to_dict(dsn)["host"]
        assert os.path.isdir(str(directory))
    assert not os.path.exists(str(directory))


lent = database_fixture(scope="function", name="lent", schema=False)


def test_a_fixture_lends_a_database(lent: str) -> None:
    with psycopg.connect(lent) as conn:
        assert conn.execute("select to_regnamespace('pgflow')").fetchone() == (None,)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


def test_containment_is_that_of_postgresql(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:

        @hypothesis_settings(max_examples=150, deadline=None, database=None)
        @given(cases=st.lists(st.tuples(JSON, JSON), min_size=1, max_size=20))
        def check(cases: list[tuple[Any, Any]]) -> None:
            pairs = [Jsonb(part) for case in cases for part in case]
            columns = ", ".join("%s::jsonb @> %s::jsonb" for _ in cases)
            row = conn.execute(f"select {columns}", pairs).fetchone()
            assert row is not None
            assert [contains(value, pattern) for value, pattern in cases] == list(row)

        check()
