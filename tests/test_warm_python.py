"""Commands that tests run in processes forked from one that is warm are processes like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm_python

PROGRAM = """
import os, sys
if sys.argv[1:] == ["sleep"]:
    import time; time.sleep(60)
print(sys.argv[1:], os.getcwd(), os.environ.get("MARK"), sys.stdin.read().upper(), sys.path[0])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"psycopg", "pgflow_mp"}))
print(__name__, sys.modules["__main__"].__dict__ is globals(), os.listdir("/dev/fd") and "fds")
print("to stderr", file=sys.stderr)
sys.exit(7)
"""


def test_it_has_its_own_streams_directory_environment_and_status(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    env = {**os.environ, "MARK": "mine"}
    warm = warm_python.run("program", ["a", "b c"], cwd=tmp_path, env=env, input=b"x" * 100_000)
    cold = subprocess.run(
        [sys.executable, "-m", "program", "a", "b c"],
        cwd=tmp_path,
        env=env,
        input=b"x" * 100_000,
        capture_output=True,
        check=False,
    )
    assert warm.returncode == cold.returncode == 7
    assert warm.stdout.replace(b"['psycopg']", b"[]") == cold.stdout  # nothing of ours is there before
    assert warm.stderr == cold.stderr == b"to stderr\n"
    assert "MARK" not in os.environ


def test_one_that_goes_on_for_too_long_is_killed_and_what_is_told_at_the_start_is_not_for_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with pytest.raises(subprocess.TimeoutExpired):
        warm_python.run("program", ["sleep"], cwd=tmp_path, env=os.environ, timeout=0.3)
    assert warm_python.run("program", [], cwd=tmp_path, env=os.environ).returncode == 7
    assert warm_python.can_run({**os.environ, "MARK": "mine"})
    assert not warm_python.can_run({**os.environ, "PYTHONUTF8": "0"})
    assert not warm_python.can_run({**os.environ, "LC_ALL": "C"})


@pytest.mark.parametrize(
    "last", ["sys.exit(3)", "sys.exit()", "sys.exit('why')", "pass", "1 / 0", "os.close(1); sys.exit(3)"]
)
def test_it_ends_as_an_interpreter_does(tmp_path: Path, last: str) -> None:
    """Threads are waited for, functions for the end are called, and streams that take nothing are told of."""
    text = (
        "import atexit, os, sys, threading, time\n"
        "atexit.register(lambda: print('at exit', file=sys.stderr))\n"
        "late = lambda: (time.sleep(0.05), print('thread', file=sys.stderr))\n"
        f"threading.Thread(target=late).start()\nprint('not flushed', end='')\n{last}\n"
    )
    (tmp_path / "ending.py").write_text(text)
    warm = warm_python.run("ending", [], cwd=tmp_path, env=os.environ)
    cold = subprocess.run(
        [sys.executable, "-m", "ending"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    assert (warm.returncode, warm.stdout) == (cold.returncode, cold.stdout)
    assert warm.stderr.splitlines()[-3:] == cold.stderr.splitlines()[-3:]
    assert b"thread" in warm.stderr
    assert b"at exit" in warm.stderr


def test_our_own_program_finds_our_modules_there_and_reads_its_own_environment(tmp_path: Path) -> None:
    module = {"PGFLOW_MP_IMPORTING": "the target of another process"}
    for extra in ({}, module):
        env = {**os.environ, "XDG_DATA_HOME": str(tmp_path), **extra}
        warm = warm_python.run("pgflow_mp", ["run", "nowhere.py", "--workers", "x"], cwd=tmp_path, env=env)
        cold = subprocess.run(
            [sys.executable, "-m", "pgflow_mp", "run", "nowhere.py", "--workers", "x"],
            cwd=tmp_path,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def test_one_that_goes_on_is_as_one_of_popen(tmp_path: Path) -> None:
    text = (
        "import os, sys\nprint('err', file=sys.stderr, flush=True)\n"
        "print(os.getsid(0) == os.getpid(), flush=True)\n"
        "print(sys.stdin.read())\nsys.exit(int(sys.argv[1]))\n"
    )
    (tmp_path / "going.py").write_text(text)
    for kind in (warm_python.Process, subprocess.Popen):
        for session in (True, False):
            process = kind(
                [sys.executable, "-m", "going", "9"],
                cwd=tmp_path,
                env={**os.environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=session,
            )
            assert process.stdout is not None
            assert process.stdout.readline() == f"{session}\n"
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
            if session:
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == -signal.SIGTERM
            assert process.communicate("in", timeout=10) == ("" if session else "in\n", "err\n")
            assert process.returncode == process.poll() == (-signal.SIGTERM if session else 9)
            process.kill()  # of no process any more
