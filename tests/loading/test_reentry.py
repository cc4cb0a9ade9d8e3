"""Flows are not executed where they would be again and again: while one is imported, and in handlers."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lane_harness import kinds, lanes, text

from pgflow_mp import Flow, FlowDefinitionError, RunFailed
from pgflow_mp.loading import reentry
from pgflow_mp.loading.finding import load_flows
from pgflow_mp.testing import run_inline

CALLS = {
    "run()": "run(flow, [1])",
    "resume()": "runner.resume(flow, 'id')",
    "execute()": "runner.execute(None, None)",
    "Worker()": "Worker(WorkerSettings(dsn='', targets=('a.py',)))",
    "start_flow()": "Client.start_flow(None, 'same', [1])",
    "the command line of pgflow_mp": "main(['run', __file__, '--input', '[1]'])",
}
MODULE = """
    from pgflow_mp import Client, Flow, run, runner
    from pgflow_mp.cli.main import main
    from pgflow_mp.worker.settings import WorkerSettings
    from pgflow_mp.worker.worker import Worker

    flow = Flow("same").map("same", lambda n: n)
    def call():
        return {call}  # here
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory; what is imported in a test is forgotten after it."""
    modules, path = set(sys.modules), list(sys.path)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back what a module puts there
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def write(name: str, body: str) -> Path:
    file = Path(name).absolute()
    file.write_text(textwrap.dedent(body))
    return file


@pytest.mark.parametrize("call", CALLS)
def test_a_module_that_executes_its_flow_when_it_is_imported_is_refused_with_its_line(call: str) -> None:
    file = write("nog.py", MODULE.format(call=CALLS[call]) + "    call()\n")
    line = 1 + file.read_text().splitlines().index(f"    return {CALLS[call]}  # here")
    with pytest.raises(FlowDefinitionError) as caught:
        load_flows(str(file))
    assert str(caught.value).startswith(
        f"{file}, line {line} calls {call} while the file is imported: return "
    )
    assert "if __name__ == '__main__':" in caught.value.hint
    assert "Defined at" not in caught.value.hint


def test_a_module_that_another_one_imports_is_named_itself(place: Path) -> None:
    helper = write("nog_helper.py", MODULE.format(call="run(flow, [1])") + "    call()\n")
    file = write("nog_target.py", "from nog_helper import flow\n")
    with pytest.raises(FlowDefinitionError, match=f"^{helper}, line 9 calls run"):
        load_flows(str(file))


def test_calls_are_allowed_again_after_the_import() -> None:
    file = write("fine.py", MODULE.format(call="runner.execute(None, None)"))
    (flow,) = load_flows(str(file))
    with pytest.raises(AttributeError):  # nothing of ours refuses: the call fails for lack of a database
        sys.modules["fine"].call()
    assert run_inline(flow, [1]) == {"same": [1]}


def test_a_command_that_a_module_starts_when_it_is_imported_is_refused() -> None:
    """Each would import the module, and start the next one."""
    command = [sys.executable, "-m", "pgflow_mp", "run", "bomb.py", "--input", "[1]"]
    write(
        "bomb.py",
        f"""
        import subprocess
        from pgflow_mp import Flow
        flow = Flow("same").map("same", lambda n: n)
        done = subprocess.run({command!r}, capture_output=True, text=True)
        with open("said", "a") as file:
            print(done.returncode, done.stderr, file=file)
        """,
    )
    load_flows("bomb.py")
    said = " ".join(Path("said").read_text().split())
    assert said.startswith("2 error: ")
    assert f"started by importing file {Path('bomb.py').absolute()}" in said


def test_a_handler_cannot_execute_a_run_wherever_it_is() -> None:
    file = write("nested_run.py", MODULE.format(call="run(flow, [1])") + NESTED)
    with lanes(1, target=str(file)) as harness:
        seq = harness.submit([1], flow="nested", step="same")
        harness.until(lambda: seq in harness.done)
        assert kinds(harness.of(seq)) == [2]  # for good: trying again is of no use
        assert f"{file}, line 9 calls run() in a handler" in text(harness.of(seq)[0])
    (flow,) = [flow for flow in load_flows(str(file)) if flow.slug == "nested"]
    with pytest.raises(RunFailed, match=r"calls run\(\) in a handler"):
        run_inline(flow, [1])


NESTED = """
    nested = Flow("nested")
    @nested.map(slug="same")
    def nested_same(n: int) -> int:
        return call()
"""


def test_what_a_spawned_process_imports_executes_nothing() -> None:
    """multiprocessing imports the script in every process that is not forked."""
    script = write(
        "spawning.py",
        """
        import multiprocessing
        from pgflow_mp import Flow, FlowDefinitionError, run
        flow = Flow("same").map("same", lambda n: n)
        if __name__ == "__main__":
            process = multiprocessing.get_context("spawn").Process(target=print, args=("ran",))
            process.start()
            process.join()
            raise SystemExit(process.exitcode)
        run(flow, [1])
        """,
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 1
    assert f"{script}, line 10 calls run() while the file is imported: run(flow, [1])" in done.stderr
    assert "ran" not in done.stdout


def test_a_flow_that_is_only_made_in_a_handler_is_no_business_of_ours() -> None:
    flow = Flow("outer").map("same", lambda n: run_inline(Flow("inner").map("same", lambda m: m + 1), [n]))
    assert run_inline(flow, [1]) == {"same": [{"same": [2]}]}


@pytest.mark.parametrize(
    "start",
    [
        "threading.Thread(target=call)",
        "threading.Thread(target=run, args=(flow, [1]))",
        "threading.Timer(0, call)",
        "threading.Thread(target=lambda: begin(threading.Thread(target=call)))",
    ],
)
def test_a_thread_that_a_module_starts_when_it_is_imported_is_refused(start: str) -> None:
    """A thread of its own, or one that such a one starts: a depth kept by thread does not see them."""
    module = MODULE.format(call="run(flow, [1])") + THREADS + f"    begin({start})\n"
    write("threading_target.py", module)
    load_flows("threading_target.py")
    (said,) = sys.modules["threading_target"].said
    assert isinstance(said, FlowDefinitionError)
    where = f"file {Path('threading_target.py').absolute()}"
    assert str(said) == f"run() was called in a thread that was started by importing {where}"
    assert "if __name__ == '__main__':" in said.hint


def test_a_pool_that_a_module_makes_when_it_is_imported_is_refused_while_it_is() -> None:
    module = (
        MODULE.format(call="run(flow, [1])")
        + """
    from concurrent.futures import ThreadPoolExecutor
    pool = ThreadPoolExecutor(1)
    error = pool.submit(call).exception(10)
"""
    )
    (flow,) = load_flows(str(write("pool_target.py", module)))
    assert "was started by importing" in str(sys.modules["pool_target"].error)
    with sys.modules["pool_target"].pool as pool:
        assert pool.submit(run_inline, flow, [1]).result(10) == {"same": [1]}


def test_other_threads_have_business_of_their_own_while_a_target_is_imported() -> None:
    """Also those that are started meanwhile, by whoever does not import it."""
    with ThreadPoolExecutor(1) as others, ThreadPoolExecutor(1) as ours:
        others.submit(int).result()
        with reentry.importing("file a.py"):
            with pytest.raises(FlowDefinitionError, match=r"started by importing file a\.py"):
                ours.submit(reentry.refuse, "run()").result(10)
            thread = threading.Thread(target=others.submit(reentry.refuse, "run()").result)
            others.submit(thread.start).result(10)
            others.submit(lambda: ThreadPoolExecutor(1).submit(reentry.refuse, "run()").result()).result(10)
            thread.join(10)
        ours.submit(reentry.refuse, "run()").result(10)


def test_what_hears_of_threads_that_are_started_is_gone_after_it() -> None:
    before = threading.Thread.start
    with reentry.importing("file a.py"), reentry.executing():
        assert threading.Thread.start is not before
    assert threading.Thread.start is before


def test_a_patch_that_the_target_makes_of_threads_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def patched(thread: threading.Thread) -> None:
        started.append(thread.name)
        original(thread)

    with monkeypatch.context() as patch:
        with reentry.importing("file a.py"):
            original = threading.Thread.start
            patch.setattr(threading.Thread, "start", patched)
        assert threading.Thread.start is patched
        with reentry.importing("file a.py"):
            pass
        assert threading.Thread.start is patched
        (thread := threading.Thread(target=int, name="theirs")).start()
        thread.join()
        assert started == ["theirs"]
    assert threading.Thread.start is not patched


def test_a_thread_that_a_handler_starts_cannot_execute_a_run_either() -> None:
    file = write("thread_in_handler.py", MODULE.format(call="run(flow, [1])") + THREADS + IN_HANDLER)
    (nested,) = [flow for flow in load_flows(str(file)) if flow.slug == "nested"]
    run_inline(nested, [1])
    (said,) = sys.modules["thread_in_handler"].said
    assert str(said).startswith("A thread that was started by a handler calls run() in a handler: ")


THREADS = """
    import threading
    said = []
    threading.excepthook = lambda args: said.append(args.exc_value)
    def begin(thread):
        thread.start()
        thread.join()
"""
IN_HANDLER = """
    nested = Flow("nested")
    @nested.map(slug="same")
    def nested_same(n: int) -> int:
        begin(threading.Thread(target=call))
        return n
"""
