"""A dump of a database with a run under way, restored elsewhere: the run goes on there (docs/server.md)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest

from pgflow_mp import Client
from pgflow_mp.embedded.binaries import bundled_bin_dir, server_version

FLOW = """
import time
from pgflow_mp import Flow

flow = Flow("doubling")

@flow.map
def double(number: int) -> int:
    time.sleep(0.05)
    with open("ran", "a") as file:
        file.write(f"{number}\\n")
    return 2 * number
"""
RUN = [sys.executable, "-m", "pgflow_mp", "run", "doubling.py", "--workers", "1", "--progress", "off"]
ITEMS = list(range(100))


@pytest.mark.slow
def test_a_run_goes_on_where_a_dump_of_it_is_restored(dsn: str, empty_dsn: str, tmp_path: Path) -> None:
    tools, dump = bundled_bin_dir(), tmp_path / "jobs.dump"
    with psycopg.connect(dsn) as conn:
        if conn.info.server_version // 10_000 > server_version(tools):
            pytest.skip("pg_dump is older than the server")
    (tmp_path / "doubling.py").write_text(FLOW)
    with Client(dsn) as client:
        worker = subprocess.Popen([*RUN, "--input", json.dumps(ITEMS), "--dsn", dsn], cwd=tmp_path)
        try:
            deadline = time.monotonic() + 60
            while not (found := client.runs()) or found[0].done < 5:
                assert time.monotonic() < deadline, found
                time.sleep(0.05)
            subprocess.run([tools / "pg_dump", "-Fc", "-f", dump, "-d", dsn], check=True, timeout=60)
        finally:
            worker.kill()
            worker.wait()
    subprocess.run([tools / "pg_restore", "-d", empty_dsn, dump], check=True, timeout=60)
    with Client(empty_dsn) as client:
        (copy,) = client.runs()
        assert copy.status == "started"
        assert 5 <= copy.done < len(ITEMS)
        (tmp_path / "ran").unlink()
        resume = [*RUN, "--resume", copy.run_id, "--dsn", empty_dsn, "--output", "-"]
        done = subprocess.run(resume, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
        assert json.loads(done.stdout) == {"double": [2 * number for number in ITEMS]}
        ran = (tmp_path / "ran").read_text().split()
        assert len(ran) == len(ITEMS) - copy.done  # what was recorded has not run again
