"""What the database refuses from Python is an error of ours that says all: none of the driver above it."""

from __future__ import annotations

import traceback
import uuid
from collections.abc import Callable

import psycopg
import pytest
from database_roles import role_with
from worker_flows import chain
from worker_harness import compiled

from pgflow_mp import Client, Flow, PgflowError, run
from pgflow_mp.db import schema
from pgflow_mp.db.connection import connect

STRANGER = str(uuid.uuid4())


def test_refusals_show_nothing_of_the_driver(dsn: str) -> None:
    compiled(dsn, "chain")
    compiled(dsn, "single")
    too_long = Flow("chain")
    too_long.step("of_another_shape", lambda x: x)
    with Client(dsn) as client, role_with(dsn, "reader") as reader, Client(reader) as limited:
        run_id = client.start_flow("chain", [1, 2], key="one").run_id
        client.start("chain", [1], key="two")
        ways: list[Callable[[], object]] = [
            lambda: client.start("nosuch", [1]),
            lambda: client.start_flow("nosuch", [1]),
            lambda: client.start("single", [1]),
            lambda: client.start_flow("chain", {"no": "array"}),
            lambda: client.start_flow("chain", {"no": "array"}, key="three"),
            lambda: client.start_flow("chain", [3], key="one"),
            lambda: client.start("chain", [3], key="two"),
            lambda: client.start_flow("single", 1, run_id=run_id),
            lambda: client.start_flow("chain", "\0"),
            lambda: client.start("chain", ["\0"]),
            lambda: client.start_flow("chain", [1], tags=["x" * 5000]),
            lambda: client.start_flow("chain", [1], priority=2**40),
            lambda: client.start("chain", [1], from_run=STRANGER, reuse=["double"]),
            lambda: client.run(STRANGER),
            lambda: client.cancel(STRANGER),
            lambda: client.retry(STRANGER),
            lambda: client.retry(run_id, steps=["nosuch"]),
            lambda: client.pause(flow="nosuch"),
            lambda: client.pause(STRANGER),
            lambda: client.drain(flow="nosuch"),
            lambda: client.delete(flow="nosuch"),
            lambda: client.delete(run_id),
            lambda: client.prune(1, flow="nosuch"),
            lambda: client.schedule("nosuch", "@daily", [1]),
            lambda: client.schedule("chain", "61 * * * *", [1]),
            lambda: client.schedule("chain", "@daily", [1], time_zone="Mars"),
            lambda: client.pause_schedule("nosuch"),
            lambda: client.enqueue("chain", 1),
            lambda: [*client.results(run_id, "nosuch")],
            lambda: run(chain, [1], dsn=dsn, run_id="no-uuid"),
            lambda: limited.start("chain", [1]),
            lambda: limited.start_flow("chain", [1]),
            lambda: limited.cancel(run_id),
            lambda: limited.pause(flow="chain"),
        ]
        shown: list[str] = []
        for number, way in enumerate(ways):
            with pytest.raises(PgflowError) as caught:
                way()
            text = "".join(traceback.format_exception(caught.value))
            if (
                "psycopg" in text.partition("pgflow_mp.")[0]
                or "direct cause" in text
                or "During handling" in text
            ):
                shown.append(f"{number}: {text}")
        assert not shown, "\n".join(shown)


def test_a_role_that_may_not_install_is_told_so_and_no_more(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as admin:
        name = f"poor_{uuid.uuid4().hex[:8]}"
        admin.execute(f"create role {name}".encode())
        try:
            with connect(empty_dsn) as conn:
                conn.execute(f"set role {name}".encode())
                with pytest.raises(PgflowError, match="may not install") as caught:
                    schema.install(conn)
        finally:
            admin.execute(f"drop role {name}".encode())
    assert "direct cause" not in "".join(traceback.format_exception(caught.value))
