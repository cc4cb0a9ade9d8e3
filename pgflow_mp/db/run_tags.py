"""What a run is given when it is started: tags, to find it by, and a time before which it is held.

Tags are labels of the caller's choosing (sql/functions/0660_list_runs.sql).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from pgflow_mp.db.engine import Connection
from pgflow_mp.db.pausing import When, hold
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
        raise InputError(
            f"The tags of a run are a list, not the text {tags!r}",
            hint=f"Give a list of one: tags=[{tags!r}]",
        )
    found = tuple(dict.fromkeys(check_tag(tag) for tag in tags))
    if len(found) > MOST:
        raise InputError(f"A run can have {MOST} tags, not {len(found)}")
    return found


@contextlib.contextmanager
def marking(conn: Connection, tags: Iterable[str], after: When | None) -> Iterator[Callable[[str], None]]:
    """What gives the run that this block starts these tags, by its id: both are done, or nothing is.

    Of a run that is started ``after`` some time nothing is claimed before.
    """
    wanted = list(tags)
    if not wanted and after is None:
        yield lambda _run_id: None
        return

    def tag(run_id: str) -> None:
        if wanted:
            conn.execute("select pgflow.tag_run(%s::uuid, %s::text[])", (str(run_id), wanted))

    with conn.transaction():
        if after is not None:
            hold(conn, after)
        yield tag
