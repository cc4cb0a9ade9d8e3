"""Standard output for results alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

from pgflow_mp import streams


@contextlib.contextmanager
def stdout_for_results() -> Iterator[IO[str]]:
    """Standard output for us alone: what handlers print in lanes goes to standard error meanwhile."""
    streams.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with streams.forgiving(saved, encoding=getattr(sys.stdout, "encoding", "utf-8"), reports=1) as own:
            yield own
    finally:
        streams.flush()
        os.dup2(saved, 1)
        os.close(saved)
