"""What goes wrong in the soak."""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable

import psutil
import psycopg
from _soak_stage import DEAD_AFTER, Stage


class Striker:
    """Lets one thing after the other go wrong; counts them."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.chance = stage.chance
        self.faults: Counter[str] = Counter()
        self.last_server_fault = 0.0

    def strike(self) -> None:
        """Let one thing go wrong."""
        kinds: list[tuple[int, Callable[[], str]]] = [
            (3, self.kill_parent),
            (2, self.stop_parent),
            (1, self.end_parent),
            (6, self.kill_child),
            (4, self.cut_connections),
            (1, self.kill_backend),
            (2, self.kill_server),
            (1, self.cut_off_server),
            (1, self.fill_disk),
        ]
        chosen = self.chance.choices([fault for _, fault in kinds], [weight for weight, _ in kinds])[0]
        with contextlib.suppress(psutil.Error, psycopg.Error, OSError, IndexError):
            self.faults[chosen()] += 1

    def parent(self) -> psutil.Process:
        return psutil.Process(self.chance.choice(self.stage.workers).pid)

    def kill_parent(self) -> str:
        self.parent().kill()
        return "worker killed"

    def stop_parent(self) -> str:
        process = self.parent()
        process.suspend()
        self.stage.paused.append((time.monotonic() + self.chance.uniform(0.5, 6.0), process))
        return "worker stopped for seconds"

    def end_parent(self) -> str:
        self.parent().terminate()
        return "worker asked to end"

    def kill_child(self) -> str:
        # Python's resource tracker is spared: it is what clears up after a killed process.
        children = self.parent().children(recursive=True)
        child = self.chance.choice([c for c in children if "resource_tracker" not in " ".join(c.cmdline())])
        number = self.chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGSTOP])
        kind = "forkserver" if "forkserver" in " ".join(child.cmdline()) and child.children() else "child"
        child.send_signal(number)
        return f"{kind} {number.name}"

    def cut_connections(self) -> str:
        with psycopg.connect(self.stage.server.dsn, autocommit=True, connect_timeout=2) as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where backend_type = 'client backend' and pid <> pg_backend_pid() and random() < %s",
                (self.chance.choice([0.3, 1.0]),),
            )
        return "connections cut"

    def postmaster(self) -> psutil.Process:
        text = (self.stage.server.data_dir / "data" / "postmaster.pid").read_text()
        return psutil.Process(int(text.split()[0]))

    def may_strike_server(self) -> None:
        if time.monotonic() - self.last_server_fault < 13:  # it is revived five times a minute at most
            raise OSError("the server needs a rest")
        self.last_server_fault = time.monotonic()

    def kill_backend(self) -> str:
        self.may_strike_server()
        self.chance.choice(self.postmaster().children()).kill()
        return "a server process killed"

    def cut_off_server(self) -> str:
        """Nobody gets an answer for longer than a worker may be silent (--dead-after)."""
        self.may_strike_server()
        postmaster = self.postmaster()
        due = time.monotonic() + self.chance.uniform(2.0, 3.0) * DEAD_AFTER
        for process in [postmaster, *postmaster.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                process.suspend()
                self.stage.paused.append((due, process))
        return "server cut off for seconds"

    def fill_disk(self) -> str:
        """There is no room left where the database is, for seconds; the server mostly dies of it."""
        if self.stage.disk is None:
            raise OSError("the server's disk is everybody's")
        self.may_strike_server()
        filler = self.stage.disk / "filler"
        self.stage.full.append((time.monotonic() + self.chance.uniform(2.0, 6.0), filler))
        with open(filler, "wb", buffering=0) as file:
            size = 1 << 26
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2
        return "disk full for seconds"

    def kill_server(self) -> str:
        self.may_strike_server()
        number = self.chance.choice([signal.SIGKILL, signal.SIGQUIT, signal.SIGINT])
        self.postmaster().send_signal(number)
        return f"server {number.name}"
