"""For commands about workers that are alive: finding those that are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow_mp.cli.parser import command
from pgflow_mp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pgflow_mp.db.engine import Connection
    from pgflow_mp.observe.worker_reports import WorkerInfo


def live_workers(conn: Connection, wanted: str | None, options: Iterable[str]) -> list[WorkerInfo]:
    """Those that are alive, or of them those whose name or id begins so, or that have this process id.

    Raises InputError where somebody is wanted who is not there; ``options`` name the database in what that
    advises.
    """
    from pgflow_mp.observe.read_reports import read_workers

    alive = [worker for worker in read_workers(conn) if worker.state not in ("stopped", "dead")]
    alive.sort(key=lambda worker: (worker.name, worker.started_at))
    if wanted is None:
        return alive
    found = [worker for worker in alive if _is_meant(worker, wanted)]
    if not found:
        names = ", ".join(worker.name for worker in alive[:10]) or "none"
        raise InputError(
            f"There is no worker {wanted!r} that is alive in this database",
            hint=f"Alive are: {names}. All there were: {command('workers', '--all', *options)}",
        )
    return found


def start_one(options: Iterable[str]) -> str:
    """How to get a worker where there is none."""
    return f"Start one: {command('FLOW', *options)}"


def _is_meant(worker: WorkerInfo, wanted: str) -> bool:
    names = (worker.name, *worker.worker_ids)
    return any(name.startswith(wanted) for name in names) or wanted == str(worker.pid)
