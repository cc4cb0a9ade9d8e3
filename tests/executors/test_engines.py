"""Engines that run on their own: workers that die, come and go, other code there, an engine that is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import engine_clusters
import executor_owner
import pytest
from executor_owner import Owner, kinds

from pgflow_mp.executors import code_identity
from pgflow_mp.executors.choosing import over
from pgflow_mp.executors.engines.dask_engine import DaskEngine
from pgflow_mp.executors.messages import Kind

pytestmark = pytest.mark.slow
FAR = [pytest.param(kind, marks=engine_clusters.needs(kind)) for kind in ("dask", "ray")]


@contextmanager
def started(kind: str, **options: Any) -> Iterator[Owner]:
    owner = Owner(kind, **options)
    try:
        owner.executor.start()
        yield owner
    finally:
        owner.executor.abort()


@pytest.mark.parametrize("kind", FAR)
def test_a_worker_that_is_killed_costs_its_chunks_once_more_and_no_attempt(kind: str) -> None:
    with started(kind) as owner:
        pids = {int(owner.run(["pid", 0])[0].body) for _ in range(20)}
        seqs = [owner.submit(["sleep", 1.0], ["pid", 0]) for _ in range(2)]
        time.sleep(0.4)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        owner.until(lambda: owner.done >= set(seqs))
        assert [kinds(owner.of(seq)) for seq in seqs] in (
            [[Kind.COMPLETED, Kind.COMPLETED]] * 2,
            [[Kind.COMPLETED, Kind.NOT_RUN]] * 2,
        )
        assert not owner.deaths


@pytest.mark.parametrize("kind", FAR)
def test_large_items_go_there_and_back(kind: str) -> None:
    with started(kind) as owner:
        (outcome,) = owner.run(["echo", "x" * 16_000_000])
        assert (outcome.kind, len(outcome.body)) == (Kind.COMPLETED, 16_000_002)


@pytest.mark.parametrize("kind", FAR)
def test_handlers_see_the_stop_there_too(kind: str) -> None:
    with started(kind) as owner:
        assert kinds(owner.run(["echo", 1])) == [Kind.COMPLETED]
        time.sleep(0.5)  # its processes listen by now
        seq = owner.submit(30.0, step="wait_for_shutdown")
        time.sleep(0.5)
        assert owner.executor.stop(20.0) is True
        owner.collect()
        assert owner.of(seq)[0].body == b"true"


@pytest.mark.parametrize("kind", FAR)
def test_memory_over_the_limit_is_charged_to_its_item(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_owner, "MEMORY", 400 << 20)
    with started(kind) as owner:
        outcomes = owner.run(["echo", 1], ["allocate", 600], ["echo", 2])
        assert kinds(outcomes) == [Kind.COMPLETED, Kind.FAILED, Kind.NOT_RUN]
        assert outcomes[1].body.startswith(b'MemoryError: step "act" task 1 used ')
        assert kinds(owner.run(["echo", 5])) == [Kind.COMPLETED]


@engine_clusters.needs("dask")
def test_capacity_follows_workers_that_join_and_leave() -> None:
    cluster = engine_clusters.dask_cluster()
    with started("dask") as owner:
        try:
            assert owner.executor.capacity == 2
            cluster.scale(3)
            owner.until(lambda: owner.executor.capacity == 3)
            assert len(owner.executor.rooms()) == 3
            cluster.scale(1)
            owner.until(lambda: owner.executor.capacity == 1)
            assert kinds(owner.run(["echo", 1])) == [Kind.COMPLETED]
        finally:
            cluster.scale(2)
            owner.until(lambda: owner.executor.capacity == 2)


@pytest.mark.parametrize("kind", FAR)
def test_other_code_there_is_an_error_that_names_both(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "edited_flows.py"
    code = (
        "from pgflow_mp import Flow\nflow = Flow('edited')\n@flow.map\ndef act(x: int) -> int:\n    return x"
    )
    file.write_text(code)
    with started(kind, target=str(file)) as owner:
        seqs = [owner.submit(n, flow="edited") for n in range(12)]
        owner.until(lambda: owner.done >= set(seqs))
        assert {outcome.kind for seq in seqs for outcome in owner.of(seq)} == {Kind.COMPLETED}
    file.write_text(f"{code} + 1\n")
    words = r"module \w+ is another one on .*: .*edited_flows.py has sha256 \w{12} there, \w{12} here"
    with (
        pytest.raises(code_identity.DifferentCode, match=words) as caught,
        started(kind, target=str(file)),
    ):
        pass
    assert "restart those workers" in caught.value.hint
    monkeypatch.setattr(code_identity, "own_version", lambda: "9.9 (sha256 beef)")
    with (
        pytest.raises(
            code_identity.DifferentCode, match=r"pgflow_mp is 0\..* on .*, and 9\.9 \(sha256 beef\) here"
        ),
        started(kind),
    ):
        pass


def dask_processes(directory: Path, count: int) -> tuple[str, list[subprocess.Popen[bytes]]]:
    """A scheduler and workers of its command line: its address, and all of them."""
    note = directory / "scheduler.json"
    command = [sys.executable, "-m", "dask"]
    options = ["--no-dashboard", "--scheduler-file", str(note)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": directory}
    scheduler = subprocess.Popen(
        [*command, "scheduler", "--host", "127.0.0.1", "--port", "0", *options], **quiet
    )
    workers = [
        subprocess.Popen([*command, "worker", "--nthreads", "1", *options], **quiet) for _ in range(count)
    ]
    deadline = time.monotonic() + 60
    while not (note.exists() and b"tcp://" in note.read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return note.read_text().partition('"address": "')[2].partition('"')[0], [scheduler, *workers]


@engine_clusters.needs("dask")
def test_a_scheduler_that_is_gone_ends_the_work_and_hands_back_what_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, processes = dask_processes(tmp_path, 2)
    try:
        make = over(lambda: DaskEngine(address, None, patience=3.0))
        monkeypatch.setitem(executor_owner.MAKERS, "dask", lambda: make)
        with started("dask") as owner:
            assert kinds(owner.run(["echo", 1])) == [Kind.COMPLETED]
            seq = owner.submit(["sleep", 30])
            processes[0].kill()
            owner.until(lambda: owner.lost and seq in owner.done)
            assert kinds(owner.of(seq)) == [Kind.NOT_RUN]
            assert owner.executor.rooms() == []
            (lost,) = owner.lost
            assert f"Executor dask at {address} is broken: its scheduler has not answered for " in lost.error
            assert "run --resume" in lost.hint
            said = " ".join(event.text for event in owner.said)
            assert "its scheduler does not answer; waiting for up to 3 s" in said
    finally:
        for process in processes:
            process.kill()
            process.wait()
