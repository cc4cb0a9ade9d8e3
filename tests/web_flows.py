"""Runs to look at: of all kinds, with texts that attack pages wherever texts can be."""

from __future__ import annotations

import contextlib
import uuid
from typing import NamedTuple

import psycopg

from pgflow_mp import Flow, PermanentError, RunFailed, run
from pgflow_mp.db import engine, wire

ATTACK = "<script>document.title='attacked'</script><img src=x onerror=\"document.title='attacked'\">"
BIDI = "ab\u202egnp.exe\u2066"
KEY = '"><svg onload=document.title=`attacked`>'

shown = Flow("shown", max_attempts=2, base_delay=1, timeout=20)


@shown.map(tolerate=0.9, max_attempts=1)
def measure(text: str) -> dict[str, str]:
    if text == "permanent":
        raise PermanentError(f"no such thing: {ATTACK}")
    if text.startswith("bad"):
        raise ValueError(f"{text} is bad {ATTACK}")
    return {"text": text, "more": ATTACK + BIDI}


@shown.map(over=measure)
def double(measure: dict[str, str] | None) -> int:
    return 0 if measure is None else 2 * len(measure["text"])


@shown.step(depends_on=[double])
def total(double: list[int]) -> int:
    return sum(double)


broken = Flow("broken", max_attempts=1)


@broken.map(storage="tasks")
def crack(number: int) -> int:
    return 1 // number


@broken.step(depends_on=[crack])
def after(crack: list[int]) -> int:
    return sum(crack)


class Shown(NamedTuple):
    """A database and the ids of its runs."""

    dsn: str
    completed: str
    failed: str
    queued: str
    waiting: str


def fill(dsn: str) -> Shown:
    """Make the runs."""
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(0xA1, 0xA5)]
    inputs = ["one", ATTACK, "permanent", *[f"bad {n}" for n in range(12)], *map(str, range(120))]
    run(shown, inputs, dsn=dsn, key=KEY, executor="inline")
    with contextlib.suppress(RunFailed):
        run(broken, [1, 0, 2], dsn=dsn, run_id=ids[1], executor="inline")
    with psycopg.connect(dsn, autocommit=True) as conn:
        wire.adapt(conn)
        conn.execute("select pgflow.create_flow('lonely')")
        conn.execute("select pgflow.add_step('lonely', 'encode', step_type => 'map')")
        row = conn.execute("select run_id::text from pgflow.run_keys").fetchone()
        ids[0] = row[0] if row else ""
        engine.start_flow(conn, "lonely", b"[1, 2, 3]", ids[2])
        wait_for_retry(conn, "patient", ids[3])
    return Shown(dsn, *ids)


def wait_for_retry(conn: engine.Connection, flow: str, run_id: str) -> None:
    """A run of one item that has failed once, and is due again in an hour."""
    conn.execute("select pgflow.create_flow(%s, max_attempts => 3, base_delay => 3600)", (flow,))
    conn.execute("select pgflow.add_step(%s, 'only')", (flow,))
    worker = str(uuid.uuid4())
    engine.register_worker(conn, worker, flow, "somebody")
    engine.start_flow(conn, flow, b"{}", run_id)
    claimed = engine.claim_tasks(conn, flow, worker, 1)
    engine.fail_tasks(conn, run_id, "only", [0], [ATTACK], worker, [claimed[0].attempt], [False])
    conn.execute("select pgflow.stop_workers(array[%s]::uuid[])", (worker,))
