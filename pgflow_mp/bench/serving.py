"""One worker in a process of its own, as in production: python -m pgflow_mp.bench.serving JSON.

JSON is the fields of WorkerSettings. Prints "running" once it serves, stops in order when its standard
input ends (as it does when the benchmark dies), and prints its counters as the last line.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from pgflow_mp.observe.events import NullObserver
from pgflow_mp.worker.settings import WorkerSettings
from pgflow_mp.worker.worker import Worker


class _Announcer(NullObserver):
    def on_state(self, state: str) -> None:
        print(state, flush=True)

    def on_message(self, level: str, text: str) -> None:
        if level in ("warn", "error"):
            print(f"{level}: {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Serve."""
    fields = json.loads(sys.argv[1])
    fields["targets"], fields["flows"] = tuple(fields["targets"]), tuple(fields["flows"])
    worker = Worker(WorkerSettings(**fields), observer=_Announcer())

    def stop_with_parent() -> None:
        sys.stdin.read()
        worker.request_stop()

    threading.Thread(target=stop_with_parent, daemon=True).start()
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
