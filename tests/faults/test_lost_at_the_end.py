"""A server that is lost once all the work is done: its end is told all the same, or how to go on with it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_harness import FLOWS, Cli, environment, finish
from database_server import DatabaseServer
from tcp_proxy import TcpProxy
from worker_harness import eventually

pytestmark = pytest.mark.slow

_KILLING = """
import contextlib, os, signal, sys
from pathlib import Path
from pgflow_mp.cli import main, run, summary

home = Path(sys.argv[1])

def killing(module, name):
    ours = getattr(module, name)
    def wrapped(*given, **more):
        (found,) = home.glob("pgflow_mp/**/postmaster.pid")
        os.kill(int(found.read_text().split()[0]), signal.SIGKILL)
        print("killed before", name, file=sys.stderr)
        return ours(*given, **more)
    setattr(module, name, wrapped)

for module, name in ((run, "_last_picture"), (summary, "look"), (run, "_write")):
    killing(module, name)
sys.exit(main.main(sys.argv[2:]))
"""
"""The command line, with a server that is killed at three moments after the run's end."""


def test_an_embedded_server_that_is_killed_after_the_end_is_waited_for(tmp_path: Path) -> None:
    output = tmp_path / "out.json"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            _KILLING,
            str(tmp_path),
            *("run", f"{FLOWS}:square", "--input", "[1, 2, 3]", "--output", str(output)),
        ],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stderr.count("killed before") == 3
    assert json.loads(output.read_text())


_WAITING = """
import sys, time
from pathlib import Path
from pgflow_mp.cli import main, run, summary
from pgflow_mp.db import keeper

keeper._PATIENCE = 0.2
module = {"_last_picture": run, "look": summary, "_write": run}[sys.argv[2]]
ours = getattr(module, sys.argv[2])

def waiting(*given, **more):
    Path(sys.argv[1], "ready").touch()
    while not Path(sys.argv[1], "go").exists():
        time.sleep(0.01)
    return ours(*given, **more)

setattr(module, sys.argv[2], waiting)
sys.exit(main.main(sys.argv[3:]))
"""
"""The command line, which stops at one of those moments until it is told to go on."""


@pytest.mark.parametrize("moment", ["_last_picture", "look", "_write"])
def test_one_that_stays_away_is_told_of_with_the_command_that_goes_on(
    server: DatabaseServer, template: str, tmp_path: Path, moment: str
) -> None:
    with server.database(template) as dsn, TcpProxy(dsn) as proxy:
        target, output = f"{FLOWS}:square", str(tmp_path / "out.json")
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _WAITING, str(tmp_path), moment),
                *("run", target, "--input", "[1, 2, 3]", "--output", output, "--dsn", proxy.dsn),
            ],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            eventually((tmp_path / "ready").exists, 30)
            proxy.mode = "refuse"
            proxy.cut()
            (tmp_path / "go").touch()
            done = finish(process)
        finally:
            process.kill()
            process.communicate()
        said = " ".join(done.err.split())
        assert done.code == 3, done
        assert "Traceback" not in said
        resumed = re.search(rf"run {re.escape(target)} --resume ([0-9a-f-]{{36}}) --dsn", said)
        assert resumed, said
        again = Cli(tmp_path, dsn)("run", target, "--resume", resumed[1], "--output", output)
        assert again.code == 0, again


@pytest.mark.parametrize("moment", ["_last_picture", "look", "_write"])
def test_who_does_not_wait_for_it_is_told_how_to_go_on(
    server: DatabaseServer, template: str, tmp_path: Path, moment: str
) -> None:
    target, output, said = f"{FLOWS}:square", str(tmp_path / "out.json"), tmp_path / "said"
    code = _WAITING.replace("_PATIENCE = 0.2", "_PATIENCE = 60.0")
    with server.database(template) as dsn, TcpProxy(dsn) as proxy, said.open("w") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", code, str(tmp_path), moment),
                *("run", target, "--input", "[1, 2, 3]", "--output", output, "--dsn", proxy.dsn),
            ],
            cwd=tmp_path,
            env=environment(tmp_path),
            stdin=subprocess.DEVNULL,
            stderr=stderr,
        )
        try:
            eventually((tmp_path / "ready").exists, 30)
            proxy.mode = "refuse"
            proxy.cut()
            (tmp_path / "go").touch()
            eventually(lambda: "waiting for the database" in said.read_text(), 30)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
            process.wait()
    *_, goes_on, last = said.read_text().splitlines()
    assert last == "Interrupted."
    assert re.search(rf"^Go on with it: .* run {re.escape(target)} --resume [0-9a-f-]{{36}} --dsn", goes_on)
