"""``run(..., progress=True)``: a live picture on a terminal, lines elsewhere."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from worker_flows import chain

from pgflow_mp import ConfigError, run
from pgflow_mp.observe.observer import NullObserver


def test_elsewhere_it_is_lines_of_the_log(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "pgflow_mp"):
        run(chain, [1, 2], dsn=dsn, executor="inline", progress=True)
    assert "run of chain" in caplog.text
    with pytest.raises(ConfigError, match="progress and observer cannot be used together"):
        run(chain, [1], dsn=dsn, executor="inline", progress=True, observer=NullObserver())


@pytest.mark.slow
def test_on_a_terminal_it_is_a_picture_and_where_nobody_logs_it_is_seen(tmp_path: Path, dsn: str) -> None:
    (tmp_path / "shown.py").write_text(
        textwrap.dedent("""
        import time
        from pgflow_mp import Flow, run
        flow = Flow("shown")
        @flow.map
        def nap(seconds: float) -> float:
            time.sleep(seconds)
            return seconds
        if __name__ == "__main__":
            print("got", len(run(flow, [0.2] * 8, workers=2, progress=True)["nap"]))
        """)
    )
    command = [sys.executable, "shown.py"]
    environment = {**os.environ, "PGFLOW_DATABASE_URL": dsn, "TERM": "xterm"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=60, check=True
    )
    assert done.stdout == "got 8\n"
    assert "run of shown" in done.stderr
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, cwd=tmp_path, env=environment
    )
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(master)
    assert process.wait(30) == 0
    assert b"nap" in seen
    assert b"\x1b[" in seen
    assert seen.rstrip().endswith(b"got 8")
