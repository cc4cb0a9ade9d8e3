"""Standard output for results alone."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import IO, Any

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


def json_object(plain: Mapping[str, Any], **structs: object) -> str:
    """One line of JSON: what ``json`` can write, times as ISO 8601, and then what are structs of ours.

    What is raw JSON in these stays as it is, with all of its digits.
    """
    import json

    import msgspec

    text = json.dumps(plain, ensure_ascii=False, default=_json_value)
    parts = [f', "{name}": {msgspec.json.encode(value).decode()}' for name, value in structs.items()]
    return f"{text[:-1]}{''.join(parts)}}}"


def encoded(structs: object) -> str:
    """One line of JSON of structs of ours, or a list of them: their fields, times as ISO 8601."""
    import msgspec

    return msgspec.json.encode(structs).decode()


def _json_value(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
