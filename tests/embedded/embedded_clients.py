"""Processes that use an embedded server, and a look at the processes of the server itself."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

SCRIPT = """
import json, os, sys
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import EmbeddedServerError
import psycopg
options = json.loads(sys.argv[1])
try:
    with EmbeddedServer(options.get("data_dir"), throwaway=options.get("throwaway", False)) as server:
        with psycopg.connect(server.dsn) as conn:
            row = conn.execute("select system_identifier::text from pg_control_system()").fetchone()
        report = {"dsn": server.dsn, "attached": server.attached, "home": str(server.data_dir), "id": row[0]}
        print(json.dumps(report | {"pid": os.getpid()}), flush=True)
        sys.stdin.readline()
except EmbeddedServerError as error:
    print(json.dumps({"error": str(error), "hint": error.hint}), flush=True)
"""


class Client:
    """A process of its own that holds an EmbeddedServer until told to go on."""

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        throwaway: bool = False,
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        umask: int = -1,
    ) -> None:
        options = {"data_dir": str(data_dir) if data_dir else None, "throwaway": throwaway}
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-c", SCRIPT, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(env or {})},
            umask=umask,
            text=True,
        )
        self._report: dict[str, Any] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """What the process said when its server answered, or the error it got."""
        if self._report is None:
            assert self.process.stdout is not None
            self._report = json.loads(self.process.stdout.readline() or '{"error": "no answer"}')
        return self._report

    def leave(self) -> None:
        """Let it stop its server and end."""
        with contextlib.suppress(ValueError):
            self.process.communicate("\n", timeout=60)

    def kill(self) -> None:
        """SIGKILL it."""
        self.process.kill()
        self.process.communicate()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.leave()
        else:
            self.kill()


def supervisors(home: Path) -> list[psutil.Process]:
    """The supervisor of a data directory (at most one, unless a start is on its way)."""
    return _processes(lambda line: "-I" in line and line[-1] == str(home))


def postmasters(home: Path) -> list[psutil.Process]:
    """The PostgreSQL server on a data directory, without the children that it has just forked."""
    found = _processes(lambda line: line[1:3] == ["-D", str(home / "data")] and line[0].endswith("/postgres"))
    servers = {process.pid for process in found}
    return [process for process in found if _parent(process) not in servers]


def _parent(process: psutil.Process) -> int | None:
    with contextlib.suppress(psutil.Error):
        return int(process.ppid())
    return None


def _processes(wanted: Callable[[list[str]], bool]) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if len(line) > 3 and wanted(line) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def wait_until(condition: Callable[[], object], timeout: float = 15.0) -> None:
    """Wait for a condition; AssertionError if it does not come."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_quiet(home: Path) -> bool:
    """True if neither a supervisor nor a server is left."""
    return not supervisors(home) and not postmasters(home)
