"""A worker in a process of its own, seen from the benchmark."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

import psutil

from pgflow_mp.errors import PgflowError

FLOWS: Final = "pgflow_mp.bench.bench_flows"


@dataclass(slots=True)
class Memory:
    """Largest resident sizes in bytes: the worker's parent, and the largest of its children."""

    parent: int = 0
    child: int = 0


class ServedWorker:
    """A worker in a process of its own."""

    def __init__(self, dsn: str, flows: tuple[str, ...], **settings: Any) -> None:
        fields = {"dsn": dsn, "targets": [FLOWS], "flows": list(flows), **settings}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pgflow_mp.bench.serving", json.dumps(fields)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.stats: dict[str, float] = {}
        for line in self._process.stdout or ():
            if line.strip() == "running":
                break
        else:
            self._process.wait()
            raise PgflowError("The worker of the benchmark did not start", hint="Its message is above.")
        self.process = psutil.Process(self._process.pid)

    def check(self) -> None:
        """Raises PgflowError if it has ended."""
        if (status := self._process.poll()) is not None:
            raise PgflowError(f"A worker of the benchmark ended with {status}", hint="Its message is above.")

    def cpu(self) -> float:
        """CPU seconds of the parent so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def threads(self) -> dict[str, float]:
        """CPU seconds of the parent so far, by what its threads are for."""
        if self._process.stdin is None or self._process.stdout is None:
            return {}
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer

    def look(self, memory: Memory) -> None:
        """Update the largest sizes."""
        with contextlib.suppress(psutil.Error):
            memory.parent = max(memory.parent, self.process.memory_info().rss)
            for child in self.process.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    memory.child = max(memory.child, child.memory_info().rss)

    def stop(self) -> None:
        """Stop in order; its counters are in ``stats`` then."""
        try:
            text, _ = self._process.communicate(timeout=60)  # closes its standard input
            lines = text.splitlines()
            self.stats = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
