"""The command line on engines: what an example makes of it, wrong names, an engine that is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import engine_clusters
import psutil
import pytest
from cli_harness import Cli, environment, finish

from pgflow_mp.installed import pip_install

PACKAGE = Path(__file__).parents[2] / "pgflow_mp"
NAPS = """\
import time
from pgflow_mp import Flow

flow = Flow("naps")


@flow.map
def nap(seconds: float) -> None:
    with open({!r}, "a") as file:
        print(seconds, file=file)
    time.sleep(seconds)
"""
REQUEST = json.dumps({"paths": [str(PACKAGE / "executors")]})


@pytest.fixture
def cli(tmp_path: Path, dsn: str) -> Iterator[Cli]:
    found = Cli(tmp_path, dsn)
    yield found
    found.kill_all()


def on_all(kind: str) -> str:
    """The word for a cluster of several processes: that of the tests, or one started for the command."""
    if kind == "dask":
        return str(engine_clusters.dask_cluster().scheduler_address).replace("tcp", "dask")
    return kind.removeprefix("own ")


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=engine_clusters.needs(kind.removeprefix("own ")))
        for kind in ("dask", "own dask", "ray", "mpi")
    ],
)
def test_an_example_comes_to_the_same_on_an_engine(cli: Cli, kind: str) -> None:
    outputs = []
    for executor in ("lanes", on_all(kind)):
        command = ["run", "code_metrics", "--input", REQUEST, "--workers", "2", "--executor", executor]
        done = cli(*command, "--output", "-", "--output-format", "json", "--progress", "plain")
        assert done.code == 0, done
        outputs.append(done.json)
    assert outputs[0] == outputs[1]
    assert f"executor {kind.removeprefix('own ')}" in done.err
    assert "results are recorded when a whole chunk has ended" in done.err


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("dask://host", ["Executor 'dask://host': 'host' is not HOST:PORT", "For example: dask://host:8786"]),
        ("ray://host:x", ["is not HOST:PORT", "For example: ray://host:10001"]),
        ("dask://", ["Executor 'dask://' lacks its address"]),
        ("dask+tls", ["lacks its address"]),
        ("mpi://host:1", ["There is no executor 'mpi://host:1'", "ray://HOST:PORT, mpi"]),
        ("tcp://host:8786", ["There is no executor 'tcp://host:8786'"]),
        ("dask://u:p@host:8786", ["is not HOST:PORT"]),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_starts(
    cli: Cli, word: str, parts: list[str]
) -> None:
    done = cli("run", "simple", "--executor", word)
    assert done.code == 2, done
    for part in parts:
        assert part in " ".join(done.err.split()), done.err


@pytest.mark.parametrize("engine", engine_clusters.ENGINES)
def test_an_engine_that_is_not_installed_is_named_with_its_extra(
    cli: Cli, engine: str, tmp_path: Path
) -> None:
    """In a process that finds no such package, whether it is there or not."""
    package = engine_clusters.ENGINES[engine]
    hide = "import importlib.util as u\nfind = u.find_spec\n"
    hide += "u.find_spec = lambda name, *others: None if name == NAME else find(name, *others)\n"
    (tmp_path / "sitecustomize.py").write_text(hide.replace("NAME", repr(package)))
    done = cli("run", "simple", "--executor", engine, PYTHONPATH=str(tmp_path))
    assert done.code == 2, done
    text = " ".join(done.err.split())
    assert f"Executor {engine} needs the package {package}, which is not installed here" in text
    assert pip_install(engine) in text


@pytest.mark.slow
@engine_clusters.needs("dask")
def test_a_scheduler_that_is_not_there_is_said_to_be_missing(cli: Cli) -> None:
    done = cli("run", "simple", "--executor", "dask://127.0.0.1:1")
    assert done.code == 2, done
    text = " ".join(done.err.split())
    assert "Executor dask: no scheduler answers at tcp://127.0.0.1:1: " in text
    assert "Look whether it runs (dask scheduler)" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", [pytest.param(engine, marks=engine_clusters.needs(engine)) for engine in ("dask", "ray")]
)
def test_ctrl_c_lets_what_runs_on_a_cluster_of_its_own_finish(cli: Cli, engine: str) -> None:
    notes, deadline = cli.cwd / "naps", time.monotonic() + 60
    (cli.cwd / "naps_flow.py").write_text(NAPS.format(str(notes)))
    command = ["run", "naps_flow.py", "--input", json.dumps([1] * 20), "--executor", engine, "--workers", "2"]
    with subprocess.Popen(
        cli.command(*command),
        cwd=cli.cwd,
        env=environment(cli.cwd),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C goes to all of it
    ) as process:
        cli.started.append(process)
        while not notes.exists():
            assert process.poll() is None, finish(process)
            assert time.monotonic() < deadline, "nothing happens"
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        done = finish(process, 29.0)
    assert done.code == 130, done
    assert "Traceback" not in done.err
    assert done.out.startswith("interrupted  naps  run ")
    begun = len(notes.read_text().splitlines())
    assert f"so far    {begun} of 20 items" in done.out


@pytest.mark.slow
@engine_clusters.needs("ray")
def test_a_run_whose_cluster_is_lost_ends_with_words_and_goes_on_with_resume(cli: Cli) -> None:
    notes, deadline = cli.cwd / "naps", time.monotonic() + 60
    (cli.cwd / "naps_flow.py").write_text(NAPS.format(str(notes)))
    command = ["run", "naps_flow.py", "--input", "[0.2, 60]", "--executor", "ray", "--workers", "2"]
    process = cli.start(*command)
    while not notes.exists() or len(notes.read_text().splitlines()) < 2:
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.1)
    time.sleep(1.0)
    (head,) = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.name() == "gcs_server"
    ]
    head.kill()
    done = finish(process, 90.0)
    assert done.code == 75, done
    text = " ".join(done.err.split())
    assert "Executor ray is broken: its head node has not answered for 1" in text
    assert "What ran was handed back: start it again, then run --resume goes on" in text
