"""A box that is cut off in the midst of a transaction: its locks are gone some time later."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import psycopg
import pytest
from boxes import Site, reason_for_none
from worker_harness import eventually

pytestmark = pytest.mark.slow

WITHIN = 45.0
"""Seconds until the server notices: thirty, and what it takes to look."""
BUSY = """
import sys, time
from pgflow_mp.db import connection
one, two = (connection.connect(sys.argv[1], application_name=name) for name in ("idle", "sending"))
one.execute("begin")
one.execute("select pg_advisory_xact_lock(1)")
two.pgconn.send_query(b"select pg_advisory_xact_lock(2), repeat('x', 10000) from generate_series(1, 20000)")
two.pgconn.flush()
print("ready", flush=True)
time.sleep(600)
"""
LOCKS = "select count(*) from pg_locks where locktype = 'advisory' and granted"


def test_locks_of_a_box_that_is_cut_off_are_released(site: Site, site_dsn: str) -> None:
    if (why := reason_for_none()) is not None or os.environ.get("PGFLOW_TEST_BOXES") == "plain":
        pytest.skip(why or "a proxy answers for a box that is cut off")
    with contextlib.ExitStack() as stack, psycopg.connect(site_dsn, autocommit=True) as conn:
        cable = site.cable(site_dsn, stack)
        command = [*cable.within, sys.executable, "-c", BUSY, cable.dsn]
        box = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert box.stdout is not None
            assert box.stdout.readline() == "ready\n"
            eventually(lambda: conn.execute(LOCKS).fetchone() == (2,))
            cable.cut()
            began = time.monotonic()
            eventually(lambda: conn.execute(LOCKS).fetchone() == (0,), WITHIN)
            assert time.monotonic() - began > 5  # it was the cable, and not the box
        finally:
            box.kill()
            box.communicate()
