"""The Celery application: what its worker imports."""

from __future__ import annotations

import importlib
import os
from typing import Any

from pgflow_mp.bench import burning

_URL = os.environ.get("PGFLOW_BENCH_REDIS", "")
app: Any = importlib.import_module("celery").Celery(
    "bench", broker=f"redis+socket://{_URL}", backend=f"redis+socket://{_URL}"
)
app.conf.update(
    worker_prefetch_multiplier=64,  # what the docs advise for many short tasks
    task_track_started=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
noop = app.task(name="noop")(burning.noop)
burn = app.task(name="burn")(burning.burn)
