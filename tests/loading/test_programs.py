"""Scripts that another program runs (profilers, debuggers, archives): lanes find their flows all the same."""

from __future__ import annotations

import subprocess
import sys
import zipapp
from pathlib import Path

import pytest

SCRIPT = """
import queue, sys
from pgflow_mp import Flow, loading
from pgflow_mp.executors.lanes.pool import LanePool
from pgflow_mp.executors.messages import Setup
from pgflow_mp.loading.finding import target_for

flow = Flow("found", max_attempts=int(sys.argv[1]))

@flow.map
def same(n: int) -> int:
    return n

if __name__ == "__main__":
    target = target_for(flow)
    setup = Setup(target=str(target), sys_path=target.sys_path, main_path=target.main_path)
    pool = LanePool(setup, 1, queue.SimpleQueue().put)
    (info,) = pool.start()
    print("lanes have", info.slug, b'"maxAttempts":7' in info.shape)
    pool.abort()
"""
RUNNERS = {
    "python": [],
    "cProfile": ["-m", "cProfile", "-o", "profile"],
    "profile": ["-m", "profile", "-o", "profile"],
    "trace": ["-m", "trace", "--count", "-C", "counts"],
    "pdb": ["-m", "pdb", "-c", "continue", "-c", "quit"],
    "timed": ["-X", "importtime", "-W", "error::SyntaxWarning"],
}


def said(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments, "7"],
        cwd=directory,
        input="",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "runner",
    [name if name in ("cProfile", "pdb") else pytest.param(name, marks=pytest.mark.slow) for name in RUNNERS],
)
def test_a_script_is_found_whatever_program_runs_it(tmp_path: Path, runner: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    assert "lanes have found True" in said(tmp_path, *RUNNERS[runner], "script.py")


@pytest.mark.parametrize(
    "runner", ["python", *(pytest.param(name, marks=pytest.mark.slow) for name in ("runpy", "cProfile"))]
)
def test_a_module_is_found_whatever_program_runs_it(tmp_path: Path, runner: str) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__main__.py").write_text(SCRIPT)
    (tmp_path / "pack" / "__init__.py").touch()
    before = {"python": [], "runpy": ["-m", "runpy"], "cProfile": ["-m", "cProfile", "-o", "profile", "-m"]}
    module = ["-m", "pack"] if runner == "python" else ["pack.__main__"]
    assert "lanes have found True" in said(tmp_path, *before[runner], *module)


@pytest.mark.parametrize("archived", [True, False])
def test_an_archive_or_a_directory_that_is_run_is_found(tmp_path: Path, archived: bool) -> None:
    app = tmp_path / "app"
    app.mkdir()
    script = SCRIPT.replace('Flow("found"', "Flow(inside.NAME").replace(
        "import queue", "import inside, queue"
    )
    (app / "__main__.py").write_text(script)
    (app / "inside.py").write_text('NAME = "found"\n')
    if archived:
        zipapp.create_archive(app, tmp_path / "app.pyz")
        (app / "__main__.py").unlink()
    assert "lanes have found True" in said(tmp_path, "app.pyz" if archived else "app")


def test_a_flow_in_a_module_of_an_archive_is_found(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "inside.py").write_text(SCRIPT.partition("if __name__")[0])
    (app / "__main__.py").write_text("from inside import *\nif __name__" + SCRIPT.partition("if __name__")[2])
    zipapp.create_archive(app, tmp_path / "app.pyz")
    assert "lanes have found True" in said(tmp_path, "app.pyz")


def test_code_that_no_file_holds_is_refused_for_what_it_is(tmp_path: Path) -> None:
    assert "is defined in a notebook, at a prompt or on standard input" in said(tmp_path, "-c", SCRIPT)
