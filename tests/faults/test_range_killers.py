"""Items of maps in ranges that take more down than their own process: nobody else pays for it."""

from __future__ import annotations

from typing import Any

import pytest
from range_harness import Ranges, problems, start_in_ranges
from worker_harness import output, process, run_row, settings, threaded

from pgflow_mp.observe.observer import Level, NullObserver
from pgflow_mp.worker.worker import Worker

QUICK: Any = {"heartbeat_interval": 0.2, "dead_after": 1.0}


def settled(dsn: str, run_id: str, items: int, culprits: set[int], begins: str) -> None:
    """The run completed, without the culprits, and nobody else was charged."""
    assert output(dsn, run_id) == {"strike": [None if i in culprits else i for i in range(items)]}
    found = Ranges(dsn, run_id, "strike")
    assert found.outputs == [None if i in culprits else i for i in range(items)]
    assert {index for index, row in found.tasks.items() if row[0] == "failed"} == culprits
    assert all((found.tasks[index][2] or "").startswith(begins) for index in culprits)
    assert {row[1] for row in found.tasks.values()} == {1}
    assert problems(dsn, run_id) == []


@pytest.mark.slow
@pytest.mark.parametrize("culprits", [{3}, {20, 700}], ids=["one", "two"])
def test_an_item_that_kills_its_worker_is_cornered_by_halving_its_range(dsn: str, culprits: set[int]) -> None:
    items = 1000
    run_id = start_in_ranges(dsn, "killers", ["worker" if i in culprits else None for i in range(items)])
    deaths = 0
    while run_row(dsn, run_id).status == "started":
        worker = process(dsn, "killers", run_id, **QUICK)
        worker.communicate(timeout=90)
        deaths += worker.returncode != 0
        assert deaths <= 6 * len(culprits)
    settled(dsn, run_id, items, culprits, "quarantined, it took")


@pytest.mark.slow
def test_an_item_that_kills_the_lanes_parent_is_put_aside_after_three_deaths(dsn: str) -> None:
    said: list[str] = []

    class Listener(NullObserver):
        def on_message(self, level: Level, text: str) -> None:
            said.append(text)

    run_id = start_in_ranges(dsn, "killers", ["parent" if i == 3 else None for i in range(200)])
    with threaded(Worker(settings(dsn, "killers"), observer=Listener()), run_id=run_id) as running:
        running.join(40)
    settled(dsn, run_id, 200, {3}, "quarantined after 3 deaths of the lanes' parent process")
    assert sum("parent process is gone" in text for text in said) == 3
