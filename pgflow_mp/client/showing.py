"""``progress=True``: whoever runs a flow from Python sees how it goes, as the command ``run`` shows it."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from pgflow_mp import logs
from pgflow_mp.errors import ConfigError
from pgflow_mp.observe.observer import Observer


@contextlib.contextmanager
def showing(
    observer: Observer | None, flow: str, run_id: str | None, *, progress: bool
) -> Iterator[Observer | None]:
    """The observer for a run: with ``progress`` a live picture on a terminal, else lines, now and then.

    ``run_id`` is the run's, if that is known: lines about others name theirs. The lines go to the log of
    ``pgflow_mp``, or to standard error where nobody has set up logging. Raises ConfigError for an observer
    besides.
    """
    if not progress:
        yield observer
        return
    if observer is not None:
        raise ConfigError(
            "progress and observer cannot be used together",
            hint="Leave one out: an observer shows the progress in its own way.",
        )
    if sys.stderr.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        from pgflow_mp.observe.live import LiveObserver

        live = LiveObserver(f"pgflow_mp run {flow}", own_run=run_id)
        try:
            yield live
        finally:
            live.close()
        return
    from pgflow_mp.observe.plain import PlainObserver

    with _heard():
        yield PlainObserver(opening=f"run of {flow}", own_run=run_id)


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """See to it that what we log is seen, where the program has not said what becomes of it."""
    logger = logging.getLogger("pgflow_mp")
    if logger.handlers or logging.getLogger().handlers:
        yield
        return
    level, passes = logger.level, logger.propagate
    logs.set_up("info", "text")
    try:
        yield
    finally:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = passes
