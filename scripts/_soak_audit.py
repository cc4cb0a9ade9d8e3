"""Counting everything again after the soak."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from pathlib import Path

import _soak_flow
import psutil
import psycopg
from _soak_stage import MARK, Stage

from pgflow_mp.testing import audit_run


class Audit:
    """Adds what is wrong to the problems of ``stage``."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.problems = stage.problems
        self.failures: Counter[str] = Counter()
        self.items = 0

    def runs(self) -> None:
        """Count again."""
        with psycopg.connect(self.stage.server.dsn) as conn:
            known = conn.execute("select run_id::text, status, output from pgflow.runs").fetchall()
            inputs = dict(self.stage.runs)
            for run_id, status, output in known:
                for problem in audit_run(conn, run_id):
                    self.problems.append(f"run {run_id[:8]}: {problem}")
                if status != "completed":
                    self.problems.append(f"run {run_id[:8]} is {status}")
                    continue
                failed = conn.execute(
                    "select step_slug, task_index, error_message from pgflow.step_tasks "
                    "where run_id = %s and status = 'failed'",
                    (run_id,),
                ).fetchall()
                self.failures.update(error.partition("\n")[0][:60] for _, _, error in failed)
                if run_id in inputs and not failed and output != _soak_flow.expected(inputs[run_id]):
                    self.problems.append(f"run {run_id[:8]} has another output than a plain computation")
                self.check_outputs(conn, run_id, inputs.get(run_id))
            for run_id in inputs.keys() - {row[0] for row in known}:
                self.problems.append(f"run {run_id[:8]} was confirmed, but is not there")
            queued = conn.execute("select count(*) from pgmq.q_soak").fetchone()
            if queued != (0,):
                self.problems.append(f"{queued} messages are left in the queue")

    def check_outputs(
        self, conn: psycopg.Connection[tuple[object, ...]], run_id: str, numbers: list[int] | None
    ) -> None:
        rows = conn.execute(
            "select item_index, output, status from pgflow.items where run_id = %s and step_slug = 'square'",
            (run_id,),
        ).fetchall()
        self.items += len(rows)
        wrong = [
            index
            for index, output, status in rows
            if numbers is not None and status == "completed" and output != numbers[int(str(index))] ** 2
        ]
        if wrong:
            self.problems.append(f"run {run_id[:8]}: wrong outputs at {wrong[:5]}")

    def connections(self) -> None:
        """Nobody but us is connected once all workers have ended."""
        deadline = time.monotonic() + 10
        query = (
            "select application_name from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        while True:
            with psycopg.connect(self.stage.server.dsn, autocommit=True) as conn:
                left = [row[0] for row in conn.execute(query).fetchall() if row[0] != "pgflow_mp embedded"]
            if not left:
                return
            if time.monotonic() > deadline:
                self.problems.append(f"{len(left)} connections are left: {left[:3]}")
                return
            time.sleep(0.2)

    def leftovers(self, forkservers_killed: int) -> None:
        """No process of ours lives, no file of ours is left."""
        for process in self.processes():
            with contextlib.suppress(psutil.Error):  # what we stopped, and nobody is left to wake it
                process.resume()
        deadline = time.monotonic() + 10
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            with contextlib.suppress(psutil.Error):
                self.problems.append(f"process {process.pid} is left: {' '.join(process.cmdline())[:90]}")
                process.kill()
        files = [path.relative_to(self.stage.home / "tmp") for path in (self.stage.home / "tmp").rglob("*")]
        sockets = [path for path in files if path.parts[0].startswith("pymp-")]
        if len(files) > len(sockets):
            self.problems.append(f"temporary files are left: {sorted(set(files) - set(sockets))[:5]}")
        # Where forkserver and worker are both killed, nobody is left to remove the socket.
        if len({path.parts[0] for path in sockets}) > forkservers_killed:
            self.problems.append(f"sockets are left: {sockets[:5]}")
        deadline = time.monotonic() + 10
        shared = set(self.shared_memory())
        while shared and time.monotonic() < deadline:  # others on this machine make some and remove it
            time.sleep(0.5)
            shared &= set(self.shared_memory())
        self.problems += [f"shared memory is left: {path}" for path in sorted(shared)]

    def shared_memory(self) -> list[Path]:
        """Pieces made since the start that nobody uses any more."""
        found = []
        for path in Path("/dev/shm").glob("*"):
            with contextlib.suppress(OSError):
                if path.stat().st_mtime > self.stage.arguments.began and self.is_ours(path):
                    found.append(path)
        return found

    def is_ours(self, path: Path) -> bool:
        """Whether a piece of shared memory has the name of one of ours, and nobody maps it."""
        if not path.name.startswith(("pgflow_", "psm_", "sem.mp-")):
            return False
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if any(part.path == str(path) for part in process.memory_maps()):
                    return False
        return True

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                # Python's own helper of this process lives as long as it does.
                ours = process.pid == os.getpid() or process.ppid() == os.getpid()
                if not ours and process.environ().get(MARK) == self.stage.mark:
                    found.append(process)
        return found
