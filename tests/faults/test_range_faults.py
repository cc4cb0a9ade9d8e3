"""Killing what works on maps in ranges, and cutting its connections: each item is recorded exactly once."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from range_harness import Ranges, problems, start_in_ranges
from tcp_proxy import TcpProxy
from worker_harness import eventually, kill, output, process, serve, settings, threaded

from pgflow_mp.observe.observer import Level, NullObserver
from pgflow_mp.worker.settings import WorkerState
from pgflow_mp.worker.worker import Worker

QUICK: dict[str, Any] = {"heartbeat_interval": 0.2, "dead_after": 1.0}


def indexes(log: Path, word: str) -> Counter[int]:
    return Counter(int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith(word))


def recorded(found: Ranges) -> set[int]:
    return {index for first, items, *_ in found.pages for index in range(first, first + items)}


def test_the_ranges_of_a_killed_worker_are_taken_over_and_nothing_recorded_runs_again(
    dsn: str, log: Path
) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.02] * 200)
    first = process(dsn, "naps", run_id, **QUICK)
    eventually(lambda: len(recorded(Ranges(dsn, run_id, "nap"))) >= 40)
    kill(first)
    done, before = recorded(Ranges(dsn, run_id, "nap")), len(log.read_text())
    killed = time.monotonic()
    _, report = serve(dsn, "naps", run_id, **QUICK)
    assert output(dsn, run_id) == {"count": 200}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(200))
    assert time.monotonic() - killed < 12
    again = {int(line.split()[1]) for line in log.read_text()[before:].splitlines() if "start" in line}
    assert not again & done
    assert Ranges(dsn, run_id, "nap").tasks == {}  # nobody was charged for the kill
    assert report.stats.late == 0
    assert problems(dsn, run_id) == []


def test_results_of_ranges_survive_lost_connections_and_lost_answers(dsn: str, log: Path) -> None:
    """What was recorded before an answer was lost is known again: late are only those that others took."""
    run_id = start_in_ranges(dsn, "naps", [0.005] * 600)
    with TcpProxy(dsn) as proxy:
        worker = Worker(settings(proxy.dsn, "naps", **QUICK))
        with threaded(worker, run_id=run_id) as running:
            eventually(lambda: worker.state is WorkerState.RUNNING)
            cuts = 0
            while running.report is None and running.error is None and cuts < 60:
                time.sleep(0.25)
                if cuts % 2:
                    proxy.mode = "lose answers"
                else:
                    proxy.cut()
                cuts += 1
                time.sleep(0.1)
                proxy.mode = "pass"
            report = running.join()
    assert cuts >= 4
    assert output(dsn, run_id) == {"count": 600}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(600))
    assert report.unsettled == 0
    assert indexes(log, "end").keys() == set(range(600))
    assert problems(dsn, run_id) == []


@pytest.mark.slow
def test_a_worker_that_was_taken_for_dead_records_nothing_twice(dsn: str, log: Path) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.05] * 60)
    with threaded(Worker(settings(dsn, "naps")), run_id=run_id) as running:
        eventually(lambda: len(recorded(Ranges(dsn, run_id, "nap"))) >= 10)
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pgflow.stop_workers(array_agg(worker_id)) from pgflow.workers")
        running.join()
    assert output(dsn, run_id) == {"count": 60}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(60))
    assert problems(dsn, run_id) == []


@pytest.mark.slow
def test_a_worker_that_was_asleep_records_nothing_that_others_took_over(dsn: str, log: Path) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.03] * 300)
    sleeper = process(dsn, "naps", run_id, **QUICK)
    eventually(lambda: len(recorded(Ranges(dsn, run_id, "nap"))) >= 20)
    sleeper.send_signal(signal.SIGSTOP)
    with threaded(Worker(settings(dsn, "naps", **QUICK)), run_id=run_id) as other:
        eventually(lambda: not leased_by_others(dsn, run_id, other.worker), timeout=20)
        sleeper.send_signal(signal.SIGCONT)
        other.join(60)
    sleeper.communicate(timeout=20)
    assert output(dsn, run_id) == {"count": 300}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(300))
    assert problems(dsn, run_id) == []


def leased_by_others(dsn: str, run_id: str, worker: Worker) -> bool:
    """Whether others than this worker hold any item; True before it is there."""
    ours = worker._loop.identities.beating if worker._loop is not None else ()
    return not ours or any(row[2] not in (None, *ours) for row in Ranges(dsn, run_id, "nap").leases)


class Listener(NullObserver):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_message(self, level: Level, text: str) -> None:
        self.said.append(text)


@pytest.mark.slow
def test_a_worker_whose_main_loop_stands_still_gives_no_sign_of_life_and_says_so(dsn: str) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.05] * 400)
    listener = Listener()
    last: list[Any] = []

    def until() -> bool:
        found = Ranges(dsn, run_id, "nap")
        if len(recorded(found)) < 10:
            return False
        with psycopg.connect(dsn, autocommit=True) as conn:
            for pause in (1.5, 1.0):
                time.sleep(pause)
                last.append(conn.execute("select max(last_heartbeat_at) from pgflow.workers").fetchone())
        return True

    began = time.monotonic()
    worker = Worker(settings(dsn, "naps", heartbeat_interval=0.2, dead_after=1.5), observer=listener)
    worker.run(until=until, run_id=run_id)
    assert last[0] == last[1], "it was given a sign of life while it stood still"
    texts = [text for text in listener.said if "stands still" in text or "goes on" in text]
    assert texts[0].startswith("the main loop stands still")
    assert len(texts) <= 2
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_worker_whose_recording_stands_still_gives_no_sign_of_life_and_says_so(dsn: str) -> None:
    run_id = start_in_ranges(dsn, "naps", [0.01] * 100)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "create function wait() returns trigger language plpgsql as "
            "$$begin if new.is_result and new.first_index > 40 then perform pg_sleep(4); end if; "
            "return new; end$$"
        )
        conn.execute("create trigger wait before insert on pgflow.pages for each row execute function wait()")
    listener = Listener()
    worker = Worker(settings(dsn, "naps", heartbeat_interval=0.2, dead_after=0.9), observer=listener)
    worker.run(run_id=run_id)
    texts = [text for text in listener.said if "stands still" in text or "goes on" in text]
    assert [text.split(" ")[0] for text in texts[:2]] == ["recording", "the"]
    assert output(dsn, run_id) == {"count": 100}
    assert Ranges(dsn, run_id, "nap").outputs == list(range(100))
