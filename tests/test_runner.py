"""run(), resume() and execute(): one call from input to result, on the embedded server or another."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import psycopg
import pytest
from database_server import DatabaseServer
from worker_harness import FLOWS, Tasks, eventually, kill, output, start

from pgflow_mp.client.state import open_state
from pgflow_mp.errors import FlowNotFound, InputError, RunFailed, RunNotFound, WaitTimeout
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.results import typed_output
from pgflow_mp.loading.finding import Target, load_flows
from pgflow_mp.observe.observer import NullObserver
from pgflow_mp.run_request import RunRequest
from pgflow_mp.runner import execute, resume, run


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has runs of its own."""
    with server.database(template) as found:
        yield found


def flow_of(slug: str) -> Flow:
    (found,) = [flow for flow in load_flows(str(FLOWS)) if flow.slug == slug]
    return found


class Said(NullObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_message(self, level: str, text: str) -> None:
        self.texts.append(text)


SCRIPT = """
from __future__ import annotations
import sys
from dataclasses import dataclass
from pgflow_mp import Flow
from pgflow_mp.runner import resume, run

@dataclass
class Total:
    count: int
    words: list[str]

flow = Flow("scripted")

@flow.map
def upper(word: str) -> str:
    return word.upper()

@flow.step(depends_on=[upper])
def total(upper: list[str]) -> Total:
    return Total(len(upper), upper)

if __name__ == "__main__":
    print(run(flow, ["a", "b"], workers=2, data_dir=sys.argv[1]))
"""


def test_a_script_runs_its_own_flow_on_the_embedded_server_and_leaves_nothing_running(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path / "state")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'total': Total(count=2, words=['A', 'B'])}\n"
    assert done.stderr == ""
    here = [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]
    assert here == []


def test_the_result_is_typed_by_the_leaf_handlers(dsn: str) -> None:
    assert run(flow_of("chain"), [1, 2, 3], dsn=dsn, workers=2) == {"joined": "#2 #4 #6"}


def test_outputs_of_map_leaves_are_lists_of_their_type() -> None:
    flow = Flow("typed")

    @flow.map
    def numbers(x: int) -> float:
        return x

    @flow.step
    def odd(x: int) -> range:  # JSON does not lead back to it
        return range(x)

    @flow.step
    def place(x: int) -> Path:
        return Path(str(x))

    found = typed_output(flow, b'{"numbers": [1, 2], "odd": [0, 1], "place": "x"}')
    assert found == {"numbers": [1.0, 2.0], "odd": [0, 1], "place": Path("x")}
    assert found is not None
    assert [type(number) for number in found["numbers"]] == [float, float]  # type: ignore[attr-defined]
    assert typed_output(flow, None) is None


def test_a_failed_run_raises_step_index_and_the_handlers_error(dsn: str) -> None:
    with pytest.raises(RunFailed) as caught:
        run(flow_of("mischief"), [["echo", 1], ["permanent", "no such page"]], dsn=dsn, workers=1)
    text = str(caught.value)
    assert 'step "act" task 1' in text
    assert "PermanentError: no such page" in text
    assert f"Run {caught.value.run_id} of flow" in text


def test_input_that_json_cannot_hold_is_refused_before_anything_starts(dsn: str) -> None:
    with pytest.raises(InputError, match="cannot be stored as JSON"):
        run(flow_of("chain"), [object()], dsn=dsn)
    with pytest.raises(InputError, match=r"NaN and Infinity are not JSON \(at \$\[1\]\)"):
        run(flow_of("chain"), [1, float("nan")], dsn=dsn)
    with pytest.raises(InputError, match=r"NUL character \(at \$\[0\]\)"):
        run(flow_of("chain"), ["\0"], dsn=dsn)


def test_input_may_be_whatever_a_handler_may_return(dsn: str) -> None:
    assert run(flow_of("chain"), range(1, 4), dsn=dsn, workers=1) == {"joined": "#2 #4 #6"}
    assert run(flow_of("chain"), (n for n in (1, 2, 3)), dsn=dsn, workers=1) == {"joined": "#2 #4 #6"}


def test_a_flow_without_a_file_is_refused() -> None:
    with pytest.raises(FlowNotFound):
        run(Flow("nowhere"), [])


@pytest.mark.slow
def test_time_runs_out_and_the_run_can_be_resumed(dsn: str) -> None:
    flow = flow_of("naps")
    with pytest.raises(WaitTimeout, match="Timeout waiting for run") as caught:
        run(flow, [0.2] * 20, dsn=dsn, workers=1, timeout=2.5)
    run_id = str(caught.value).split()[4]
    before = Tasks(dsn, run_id).statuses("nap")
    assert before["completed"] > 0
    assert before["started"] == 0
    assert resume(flow, run_id, dsn=dsn, workers=4) == {"count": 20}


def test_a_finished_run_is_only_read(dsn: str) -> None:
    flow = flow_of("chain")
    with open_state(dsn) as database:
        target = Target.parse(str(FLOWS))
        first = execute(database, RunRequest(target, "chain", b"[1]", settings={"workers": 1}))
    assert (first.status, first.items, first.failure_count, first.interrupted) == ("completed", 3, 0, False)
    no_worker = pytest.fail  # what would make its executor
    assert resume(flow, first.run_id, dsn=dsn, executor=no_worker) == {"joined": "#2"}


def test_what_failed_is_tried_again_where_that_is_asked_for(dsn: str, tmp_path: Path) -> None:
    target, settings = Target.parse(str(FLOWS)), {"workers": 1}
    with open_state(dsn) as database:
        asked = RunRequest(target, "mischief", b'[["permanent", "bad"], ["echo", 1]]', settings=settings)
        first = execute(database, asked)
        again = replace(asked, input=None, run_id=first.run_id, resume=True)
        assert execute(database, again).retried == 0
        observer = Said()
        second = execute(database, replace(again, retry=True), observer=observer)
    assert (first.status, second.status) == ("failed", "failed")
    assert f"trying 1 item of run {first.run_id} again" in observer.texts


def test_the_summary_lists_failures_and_where_the_state_lives(dsn: str) -> None:
    items = [["echo", i] for i in range(5)] + [["permanent", "bad"]]
    secret = dsn + " password=hunter22"
    with open_state(secret) as database:
        assert "hunter22" not in database.place
        target = Target.parse(str(FLOWS))
        request = RunRequest(target, "mischief", msgspec.json.encode(items), settings={"workers": 1})
        summary = execute(database, request)
    assert (summary.status, summary.failure_count) == ("failed", 1)
    (failure,) = summary.failures
    assert (failure.step, failure.index, failure.attempts) == ("act", 5, 1)
    assert summary.error == failure.error
    assert (failure.glimpse, failure.input) == ('["permanent", "bad"]', None)
    assert [(group.error, group.items) for group in summary.failed.groups] == [("PermanentError: bad", 1)]
    assert "hunter22" not in summary.place
    assert summary.data_dir is None


@pytest.mark.parametrize("run_id", ["nonsense", "11111111-1111-4111-8111-111111111111"])
def test_resuming_an_unknown_run_is_refused(dsn: str, run_id: str) -> None:
    with pytest.raises(RunNotFound):
        resume(flow_of("chain"), run_id, dsn=dsn)


def test_resuming_a_run_of_another_flow_is_refused(dsn: str) -> None:
    run_id = start(dsn, "single", "x")
    with pytest.raises(InputError, match='one of flow "single", not of "chain"'):
        resume(flow_of("chain"), run_id, dsn=dsn)


def test_ctrl_c_leaves_the_run_in_order_and_says_how_to_go_on(dsn: str) -> None:
    def interrupt() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            done = (
                "select exists (select from pgflow.items i join pgflow.runs r using (run_id)"
                " where r.status = 'started' and r.flow_slug = 'naps' and i.status = 'completed')"
            )
            eventually(lambda: conn.execute(done).fetchone() == (True,), 30)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt, match=r"was interrupted. Go on with it: resume\(naps, "):
            run(flow_of("naps"), [0.1] * 1000, dsn=dsn, workers=2)
    finally:
        thread.join()


@pytest.mark.slow
def test_after_a_kill_of_everything_the_next_start_takes_over_at_once(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import sys
            from pgflow_mp.loading.finding import Target
            from pgflow_mp.observe.observer import NullObserver
            from pgflow_mp.run_request import RunRequest
            from pgflow_mp.client.state import open_state
            from pgflow_mp.runner import execute
            if __name__ == "__main__":
                with open_state(None, sys.argv[1]) as database:
                    print(database.dsn, flush=True)
                    execute(database, RunRequest(Target.parse({str(FLOWS)!r}), "naps", sys.argv[2].encode(),
                            run_id=sys.argv[3], settings={{"workers": 2}}))
            """
        )
    )
    state, run_id = str(tmp_path / "state"), "11111111-1111-4111-8111-111111111111"
    command = [sys.executable, str(script), state, str([0.05] * 60), run_id]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    dsn = running.stdout.readline().strip()
    eventually(lambda: _completed(dsn, run_id) >= 10, 30)
    kill(running)
    began = time.monotonic()
    with open_state(None, state) as database:
        recorded = Tasks(database.dsn, run_id).statuses("nap")
        assert recorded["completed"] >= 10
        assert recorded["started"] == 0  # freed as soon as the server was ours
        target, settings = Target.parse(str(FLOWS)), {"workers": 2}
        request = RunRequest(target, "naps", run_id=run_id, resume=True, settings=settings)
        summary = execute(database, request)
        assert summary.status == "completed"
        assert summary.items == 61 - recorded["completed"]
        assert output(database.dsn, run_id) == {"count": 60}
    assert time.monotonic() - began < 20


def _completed(dsn: str, run_id: str) -> int:
    return Tasks(dsn, run_id).statuses("nap")["completed"]
