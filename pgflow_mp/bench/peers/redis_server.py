"""A throw-away Redis on a socket."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pgflow_mp.errors import PgflowError


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Start one with its usual settings; the path of its socket."""
    program = shutil.which("redis-server")
    if program is None:
        raise PgflowError("The program redis-server is not installed")
    with tempfile.TemporaryDirectory(prefix="pgflow-bench-") as home:
        socket = Path(home) / "redis.sock"
        process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", str(socket), "--dir", home],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + 10
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PgflowError("The program redis-server does not start")
                time.sleep(0.02)
            yield str(socket)
        finally:
            process.terminate()
            process.wait(10)
