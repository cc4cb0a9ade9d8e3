"""Logging of a worker process: one line a record, as text or as JSON (contract: worker section 5)."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

VERBOSE: Final = 15
LEVELS: Final = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "verbose": VERBOSE,
    "debug": logging.DEBUG,
}
_NAMES: Final = {logging.WARNING: "warn", VERBOSE: "verbose", logging.CRITICAL: "error"}


def set_up(level: str = "info", form: Literal["text", "json"] | str = "text") -> None:
    """Send what this package logs to standard error. Raises KeyError for an unknown level.

    With ``json`` a line is an object: time, level, logger, message, error if there is one, and the
    record's ``fields``. Calling it again replaces what an earlier call did.
    """
    logger = logging.getLogger("pgflow_mp")
    logger.setLevel(LEVELS[level])
    logger.propagate = False
    handler = _StandardError()
    handler.setFormatter(_Json() if form == "json" else _Text())
    logger.handlers[:] = [handler]


class _StandardError(logging.Handler):
    """Writes to what sys.stderr is at that moment: a live view stands in for it while it is up."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is None:
            return
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody listens any more
            pass
        except Exception:  # noqa: BLE001 - a record that cannot be formatted must not stop the work
            self.handleError(record)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone()
        when = f"{time:%H:%M:%S}" if sys.stderr.isatty() else f"{time:%Y-%m-%d %H:%M:%S}"
        text = f"{when} {_level(record):<5} {_task(record)}{_shown(record.getMessage())}"
        if record.exc_info and record.exc_info[0]:
            text += "\n" + _shown(self.formatException(record.exc_info))
        return text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": _level(record),
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        if record.exc_info and record.exc_info[0]:
            entry["error"] = _clean(self.formatException(record.exc_info))
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            entry |= {name: _clean(each) if isinstance(each, str) else each for name, each in fields.items()}
        return json.dumps(entry, ensure_ascii=False, default=str)


def _task(record: logging.LogRecord) -> str:
    """Which task it is, in front of what a handler logs."""
    fields = getattr(record, "fields", None)
    if not isinstance(fields, dict) or not record.name.startswith("pgflow_mp.task."):
        return ""
    return "{step}[{index}] attempt {attempt} of run {run}: ".format_map(fields)


def _level(record: logging.LogRecord) -> str:
    return _NAMES.get(record.levelno, record.levelname.lower())


def _shown(text: str) -> str:
    """What a terminal gets to see. Further lines are set in, so that none passes for a record of its own."""
    text = _clean(text)
    if text.isprintable():
        return text
    from pgflow_mp.redaction import printable

    return printable(text.rstrip().replace("\r\n", "\n")).replace("\n", "\n    ")


def _clean(text: str) -> str:
    """Without the password of a connection string."""
    if "://" not in text and "password" not in text.lower():
        return text
    from pgflow_mp.redaction import redact

    return redact(text)
