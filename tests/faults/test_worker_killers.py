"""Items that take more down than their own process: cornered, put aside, and nobody else pays for it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from worker_flows import LOG
from worker_harness import Tasks, kill, output, process, run_row, settings, start, threaded

from pgflow_mp.observe.observer import Level, NullObserver
from pgflow_mp.worker.worker import Worker

QUICK: Any = {"heartbeat_interval": 0.2, "dead_after": 1.0}


def settled(dsn: str, run_id: str, items: int, culprits: set[int]) -> None:
    """The run completed, without the culprits, and nobody else was charged."""
    assert output(dsn, run_id) == {"strike": [None if i in culprits else i for i in range(items)]}
    tasks = Tasks(dsn, run_id)
    assert {row[3] for row in tasks.rows} == {1}
    for index in culprits:
        assert tasks.error("strike", index).startswith("quarantined, it took 3 workers down: each")


@pytest.mark.slow
@pytest.mark.parametrize("culprits", [{3}, {2, 15}], ids=["one", "two"])
def test_an_item_that_kills_its_worker_is_put_aside_after_three_deaths(
    dsn: str, culprits: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    run_id = start(dsn, "killers", ["worker" if i in culprits else None for i in range(20)])
    deaths = 0
    while run_row(dsn, run_id).status == "started":
        worker = process(dsn, "killers", run_id, **QUICK)
        worker.communicate(timeout=60)
        deaths += worker.returncode != 0
        assert deaths <= 3 * len(culprits)
    settled(dsn, run_id, 20, culprits)


@pytest.mark.slow
def test_several_workers_at_once_corner_it_together(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    run_id = start(dsn, "killers", ["worker" if i == 5 else None for i in range(30)])
    alive = [process(dsn, "killers", run_id, **QUICK) for _ in range(3)]
    deaths, until = 0, time.monotonic() + 60
    try:
        while run_row(dsn, run_id).status == "started":
            assert time.monotonic() < until
            for worker in [worker for worker in alive if worker.poll() is not None]:
                alive.remove(worker)
                if worker.communicate() and worker.returncode != 0:
                    deaths += 1
                    alive.append(process(dsn, "killers", run_id, **QUICK))
            time.sleep(0.1)
    finally:
        for worker in alive:
            kill(worker)
    assert deaths == 3
    settled(dsn, run_id, 30, {5})


@pytest.mark.slow
def test_an_item_that_kills_the_lanes_parent_is_put_aside_after_three_deaths(dsn: str) -> None:
    said: list[str] = []

    class Listener(NullObserver):
        def on_message(self, level: Level, text: str) -> None:
            said.append(text)

    run_id = start(dsn, "killers", ["parent" if i == 3 else None for i in range(20)])
    worker = Worker(settings(dsn, "killers"), observer=Listener())
    with threaded(worker, run_id=run_id) as running:
        running.join(30)
    assert output(dsn, run_id) == {"strike": [None if i == 3 else i for i in range(20)]}
    tasks = Tasks(dsn, run_id)
    assert {row[3] for row in tasks.rows} == {1}
    assert tasks.error("strike", 3).startswith("quarantined after 3 deaths of the lanes' parent process")
    assert sum("parent process is gone" in text for text in said) == 3
    assert not any("lane" in text and "ended" in text for text in said)
