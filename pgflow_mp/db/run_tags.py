"""Tags of runs: labels of the caller's choosing, to find runs by (sql/functions/0660_list_runs.sql)."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.errors import InputError

MOST: Final = 20
"""Tags of a run."""
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/=@+-]{0,63}")
_HINT: Final = (
    "A tag has 1 to 64 letters, digits and ._:/=@+-, and begins with a letter or a digit: "
    "nightly, or team=search."
)


def check_tag(tag: str) -> str:
    """The tag, if it can be one. Raises InputError."""
    if not isinstance(tag, str) or _TAG.fullmatch(tag) is None:
        shown = tag if not isinstance(tag, str) or len(tag) <= 64 else f"{tag[:64]}..."
        raise InputError(f"A run cannot have the tag {shown!r}", hint=_HINT)
    return tag


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """These tags, each once. Raises InputError."""
    if isinstance(tags, str):
        raise InputError(f"The tags of a run are a list, not the text {tags!r}", hint=f"tags=[{tags!r}]")
    found = tuple(dict.fromkeys(check_tag(tag) for tag in tags))
    if len(found) > MOST:
        raise InputError(f"A run can have {MOST} tags, not {len(found)}")
    return found


@contextlib.contextmanager
def tagging(conn: Connection, tags: Iterable[str]) -> Iterator[Callable[[str], None]]:
    """What gives the run that this block starts these tags, by its id: both are done, or nothing is."""
    wanted = list(tags)
    if not wanted:
        yield lambda _run_id: None
        return

    def tag(run_id: str) -> None:
        conn.execute("select pgflow.tag_run(%s::uuid, %s::text[])", (str(run_id), wanted))

    with conn.transaction():
        yield tag
