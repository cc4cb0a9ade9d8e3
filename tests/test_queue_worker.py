"""Plain background jobs: a queue, a function, retries; no job pays for another (contract: worker 1.2)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import DatabaseServer
from queue_jobs import note, typed
from worker_harness import compiled, eventually

from pgflow_mp import Client, ConfigError, Exponential, Fixed, FlowNotFound, PgflowError, QueueWorker
from pgflow_mp.client.job_retries import retry_of
from pgflow_mp.worker.settings import WorkerState
from pgflow_mp.worker.stats import Ending


@pytest.fixture(scope="module")
def dsn(server: DatabaseServer, template: str) -> Iterator[str]:
    """One database for all tests here: each has a queue of its own."""
    with server.database(template) as found:
        yield found


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    with Client(dsn) as found:
        yield found


def lines(log: Path) -> Counter[tuple[str, str]]:
    """(job, attempt): how often it was begun."""
    found = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    return Counter((name, attempt) for name, attempt, _ in map(str.split, found))


def messages(dsn: str, queue: str, kind: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(
            f"select message ->> 'name', read_ct from pgmq.{kind}_{queue} order by msg_id"
        ).fetchall()


def worker(dsn: str, queue: str, **options: Any) -> QueueWorker:
    return QueueWorker(
        note, queue, **{"dsn": dsn, "workers": 2, "poll_interval_ms": 20, "grace": 5.0, **options}
    )


def test_each_job_pays_for_itself_and_for_no_other(
    client: Client, dsn: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "log"
    jobs = [
        {"name": name, "do": do, "log": str(log)}
        for name, do in (
            ("plain", ""),
            ("unlucky", "raise once"),
            ("hopeless", "raise"),
            ("final", "give up"),
            ("fatal", "die once"),
            ("deadly", "die"),
            ("seen", "look"),
        )
    ]
    jobs += [{"name": f"n{n}", "log": str(log)} for n in range(30)]
    assert client.enqueue_many("chores", iter(())) == []  # as a filter may leave nothing
    ids = client.enqueue_many("chores", jobs)
    assert len(ids) == len(jobs) == len(set(ids))
    done = worker(dsn, "chores", retry=Fixed(limit=2, base=1), visibility_timeout=60)
    report = done.run(lambda: not messages(dsn, "chores", "q"))
    assert done.state is WorkerState.STOPPED
    assert (report.done, report.retried, report.failed) == (34, 1 + 2 + 1 + 2, 3)
    begun = lines(log)
    assert begun["plain", "1"] == 1
    assert {attempt for name, attempt in begun if name == "unlucky"} == {"1", "2"}
    assert {attempt for name, attempt in begun if name in ("hopeless", "deadly")} == {"1", "2", "3"}
    assert {attempt for name, attempt in begun if name == "final"} == {"1"}
    assert {attempt for name, attempt in begun if name == "fatal"} == {"1", "2"}
    assert all(begun[f"n{n}", "1"] == 1 for n in range(30))
    assert set(begun.values()) == {1}
    archived = dict(messages(dsn, "chores", "a"))
    assert len(archived) == len(jobs)
    assert archived["hopeless"] == archived["deadly"] == 3
    assert {count for name, count in archived.items() if name.startswith("n")} == {1}
    assert log.with_suffix(".seen").read_text() == "2"
    told = caplog.text
    assert "failed at attempt 1, tried again in 1 s: Traceback" in told or "tried again in 1 s" in told
    assert re.search(r"job \d+ of queue chores failed at attempt 3, given up: Crashed: ", told)


def test_what_waits_for_its_time_is_tried_as_the_retry_says(client: Client, dsn: str, tmp_path: Path) -> None:
    client.enqueue("later", {"name": "x", "do": "raise", "log": str(tmp_path / "log")})
    worker(dsn, "later", retry=Exponential(limit=3, base=7, cap=10)).run(
        lambda: bool(lines(tmp_path / "log")), idle_exit=True
    )
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select read_ct, extract(epoch from vt - now()) from pgmq.q_later").fetchone()
        assert row is not None
        assert row[0] == 1
        assert 5 < row[1] <= 7
        conn.execute("update pgmq.q_later set vt = now()")
    worker(dsn, "later", retry=Exponential(limit=3, base=7, cap=10)).run(idle_exit=True)
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select read_ct, extract(epoch from vt - now()) from pgmq.q_later").fetchone()
        assert row is not None
        assert row[0] == 2
        assert 8 < row[1] <= 10  # 14, capped


def test_it_is_drained_and_stopped_in_order(client: Client, dsn: str, tmp_path: Path) -> None:
    job = {"name": "long", "do": "sleep", "seconds": 1.0, "log": str(tmp_path / "log")}
    client.enqueue("naps", job)
    found = worker(dsn, "naps", name="napper", visibility_timeout=60)
    assert QueueWorker(typed, dsn=dsn).queue == "tasks"
    thread = threading.Thread(target=found.run)
    thread.start()
    eventually(lambda: lines(tmp_path / "log"))
    (known,) = [each for each in client.workers() if each.name == "napper"]
    assert (known.queues, known.flows) == (["naps"], [])
    assert [each.queue for each in client.drain(worker="napper")] == ["naps"]
    thread.join(30)
    assert not thread.is_alive()
    assert (found.report.ending, found.report.done) == (Ending.DEPRECATED, 1)
    with pytest.raises(PgflowError, match="A worker can only be started once"):
        found.run()
    assert [each for each in client.workers() if each.name == "napper"] == []
    with psycopg.connect(dsn) as conn:
        names = conn.execute("select function_name, start_mode from pgflow.worker_functions").fetchall()
    assert names == [("napper", "process")]  # that of a worker that was given none is not to be kept alive


def test_a_second_request_stops_at_once_and_the_job_is_seen_again_after_its_time(
    client: Client, dsn: str, tmp_path: Path
) -> None:
    client.enqueue("stuck", {"name": "long", "do": "sleep", "seconds": 60, "log": str(tmp_path / "log")})
    found = worker(dsn, "stuck", visibility_timeout=30, grace=60.0)
    thread = threading.Thread(target=found.run)
    thread.start()
    eventually(lambda: lines(tmp_path / "log"))
    found.request_stop()
    found.request_stop()
    thread.join(20)
    assert not thread.is_alive()
    assert found.report.ending is Ending.FORCED
    assert messages(dsn, "stuck", "q") == [("long", 1)]
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select vt > now() + interval '5 seconds' from pgmq.q_stuck").fetchone()
    assert row == (True,)


@pytest.mark.slow
def test_what_took_too_long_is_settled_only_where_nobody_has_it(
    client: Client, dsn: str, tmp_path: Path
) -> None:
    """The visibility is not extended: another worker may have the job by then."""
    log = str(tmp_path / "log")
    client.enqueue("slow", {"name": "slow", "do": "sleep", "seconds": 1.5, "log": log})
    found = worker(dsn, "slow", visibility_timeout=1, workers=1)
    thread = threading.Thread(target=found.run)
    thread.start()
    eventually(lambda: lines(Path(log)))
    time.sleep(1.1)
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert len(conn.execute("select * from pgmq.read('slow', 60, 1)").fetchall()) == 1  # the other one
        eventually(lambda: found.report.done == 1)
        found.request_stop()
        thread.join(20)
        assert conn.execute("select count(*) from pgmq.q_slow").fetchone() == (0,)  # done is done
    client.enqueue("slow", {"name": "bad", "do": "raise", "log": log})
    again = worker(dsn, "slow", visibility_timeout=60, retry=Fixed(limit=0))
    with psycopg.connect(dsn, autocommit=True) as conn:

        def read_again() -> bool:
            conn.execute("update pgmq.q_slow set read_ct = read_ct + 1 where read_ct = 1")
            return bool(again.report.failed)

        again.run(read_again)
        assert messages(dsn, "slow", "q") in ([("bad", 2)], [])  # given up only where it was still ours


def test_queues_of_flows_are_left_alone_and_nonsense_is_refused(client: Client, dsn: str) -> None:
    compiled(dsn, "chain")
    with pytest.raises(ConfigError, match='Queue chain belongs to flow "chain"'):
        client.enqueue("chain", 1)
    with pytest.raises(ConfigError, match='Queue chain belongs to flow "chain"'):
        worker(dsn, "Chain").run(idle_exit=True)
    for name in ("", "a b", "x" * 48, "ä", 'x";'):
        with pytest.raises(ConfigError, match="cannot be the name of a queue"):
            QueueWorker(typed, name)
        with pytest.raises(ConfigError, match="cannot be the name of a queue"):
            client.enqueue(name, 1)
    with pytest.raises(FlowNotFound, match="is not a function at the top level of a module"):
        QueueWorker(lambda job: job)
    with pytest.raises(ConfigError, match="visibility_timeout must be at least 1"):
        QueueWorker(typed, visibility_timeout=0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"strategy": "linear"}, 'The strategy of a retry must be "exponential" or "fixed", not \'linear\''),
        ({"strategy": "fixed", "cap": 5}, "cap is not allowed with the strategy fixed"),
        ({"strategy": "fixed", "maxDelay": 5}, 'retry has no option "maxDelay"'),
        ({"strategy": "fixed", "limit": -1}, "limit must be a whole number, at least 0, not -1"),
        ({"strategy": "exponential", "limit": 51}, "limit must be at most 50, not 51"),
        ({"strategy": "fixed", "limit": 2**31}, f"limit must be at most {2**31 - 1}"),
        ({"strategy": "fixed", "limit": True}, "limit must be a whole number, at least 0, not True"),
        ({"strategy": "fixed", "base": 0}, "base must be a whole number of seconds, more than 0, not 0"),
        ({"strategy": "fixed", "base": 2**31}, f"base must be at most {2**31 - 1}"),
        (
            {"strategy": "exponential", "cap": 2},
            "cap must be a whole number of seconds, at least base, not 2",
        ),
        ({"strategy": "exponential", "cap": 2**31}, f"cap must be at most {2**31 - 1}"),
        ("soon", "retry must be Exponential"),
    ],
)
def test_each_mistake_in_a_retry_has_its_own_words(given: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        retry_of(given)


def test_the_delays_and_former_options_are_the_contracts() -> None:
    exponential = retry_of(None)
    assert exponential == Exponential(limit=5, base=3, cap=300)
    assert [exponential.delay(n) for n in (1, 2, 3, 7, 8, 50)] == [3, 6, 12, 192, 300, 300]
    assert retry_of({"strategy": "fixed", "limit": 51, "base": 9}) == Fixed(51, 9)
    assert [Fixed(base=9).delay(n) for n in (1, 5)] == [9, 9]
    with pytest.warns(DeprecationWarning, match="retry=Fixed"):
        assert retry_of(None, retry_delay=8) == Fixed(limit=5, base=8)
    with pytest.warns(DeprecationWarning, match="are ignored where retry is given"):
        assert retry_of(Fixed(1, 1), retry_limit=8) == Fixed(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        retry_of(Fixed())


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_jobs_an_attempt_and_no_more(
    client: Client, dsn: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    client.enqueue_many(
        "lost", [{"name": f"n{n}", "do": "sleep", "seconds": 0.3, "log": str(log)} for n in range(4)]
    )
    script = tmp_path / "job_worker.py"
    script.write_text(
        "import sys\nfrom queue_jobs import note\nfrom pgflow_mp import QueueWorker\n"
        "if __name__ == '__main__':\n"
        "    worker = QueueWorker(note, 'lost', dsn=sys.argv[1], workers=2, visibility_timeout=2)\n"
        "    worker.run(idle_exit=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    running = subprocess.Popen([sys.executable, str(script), dsn], env=environment)
    eventually(lambda: len(lines(log)) == 2, 30)
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    time.sleep(2.1)
    subprocess.run([sys.executable, str(script), dsn], env=environment, timeout=60, check=True)
    assert sorted(count for _, count in messages(dsn, "lost", "a")) == [1, 1, 2, 2]
    assert messages(dsn, "lost", "q") == []
