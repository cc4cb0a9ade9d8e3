"""Functions for background jobs, for the tests of queue workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from pgflow_mp import Context, PermanentError


def note(job: dict[str, Any], ctx: Context) -> str:
    """Do what the job says, and note it in a file: the job's name, its attempt and this process."""
    with Path(job["log"]).open("a", encoding="utf-8") as log:
        log.write(f"{job['name']} {ctx.attempt} {os.getpid()}\n")
    do = job.get("do", "")
    if do == "raise" or (do == "raise once" and ctx.attempt == 1):
        raise ValueError("no")
    if do == "give up":
        raise PermanentError("never")
    if do == "die" or (do == "die once" and ctx.attempt == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "sleep":
        time.sleep(job["seconds"])
    if do == "look":
        message = ctx.raw_message
        assert message.message == job
        assert (message.msg_id, message.read_ct) == (ctx.msg_id, 1)
        assert message.vt > message.enqueued_at
        Path(job["log"]).with_suffix(".seen").write_text(str(ctx.worker_config["workers"]), encoding="utf-8")
    return "done"


def typed(number: int) -> int:
    return number + 1
