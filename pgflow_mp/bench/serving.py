"""One worker in a process of its own, as in production: python -m pgflow_mp.bench.serving JSON.

JSON is the fields of WorkerSettings. Prints "running" once it serves, answers every line it reads with the
CPU seconds of its threads so far, stops in order when its standard input ends (as it does when the
benchmark dies), and prints its counters as the last line.

Threads: the worker runs in the main one; another reads standard input, and asks the worker to stop.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from pathlib import Path
from typing import Final

from pgflow_mp.observe.observer import NullObserver
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.worker import Worker

_PURPOSES: Final = {
    "MainThread": "main loop",
    "pgflow-claim": "claiming",
    "pgflow-settle": "settling",
    "Thread-": "executors of the lanes",
    "QueueFeederThread": "executors of the lanes",
}


class _Announcer(NullObserver):
    def on_state(self, state: str) -> None:
        print(state, flush=True)

    def on_message(self, level: str, text: str) -> None:
        if level in ("warn", "error"):
            print(f"{level}: {text}", file=sys.stderr, flush=True)


def cpu_of_threads() -> dict[str, float]:
    """CPU seconds by what this process's threads are for; those that have ended count as "rest"."""
    found = dict.fromkeys((*_PURPOSES.values(), "rest"), 0.0)
    for thread in threading.enumerate():
        purpose = next((_PURPOSES[name] for name in _PURPOSES if thread.name.startswith(name)), None)
        if purpose is not None:
            with contextlib.suppress(OSError):  # it has just ended, or this system does not tell
                text = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text(encoding="ascii")
                found[purpose] += int(text.split()[0]) / 1e9
    found["rest"] = time.process_time() - sum(found.values())
    return found


def main() -> None:
    """Serve."""
    fields = json.loads(sys.argv[1])
    fields["targets"], fields["flows"] = tuple(fields["targets"]), tuple(fields["flows"])
    worker = Worker(WorkerSettings(**fields), observer=_Announcer())

    def answer_parent() -> None:
        for _ in sys.stdin:
            print(json.dumps(cpu_of_threads()), flush=True)
        worker.request_stop()

    threading.Thread(target=answer_parent, daemon=True).start()
    stats = worker.run().stats
    counters = {
        "done": stats.done,
        "claims": stats.claims,
        "batches": stats.batches,
        "busy": stats.busy,
        "cpu": time.process_time(),
    }
    print(json.dumps(counters), flush=True)


if __name__ == "__main__":
    main()
