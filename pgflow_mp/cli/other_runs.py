"""What `run` says of other runs of its flow, which it works on after its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgflow_mp.cli.parser import command

if TYPE_CHECKING:
    from pgflow_mp.db.engine import Connection
    from pgflow_mp.observe.observer import Observer


class OtherRuns:
    """Says once what becomes of other runs of the flow, where there are any."""

    def __init__(
        self, flow_slug: str, run_id: str, observer: Observer, options: list[str], *, only: bool
    ) -> None:
        self._only = only
        self._flow_slug = flow_slug
        self._run_id = run_id
        self._observer: Observer | None = observer
        self._options = options

    def mention(self, conn: Connection) -> None:
        """Look for other runs, and name the first ones."""
        from pgflow_mp.db.reads import runs
        from pgflow_mp.observe.text import plural

        ids, count = runs.unfinished_runs(conn, self._flow_slug, self._run_id)
        if ids and self._observer is not None:
            have = "has" if count == 1 else "have"
            names = ", ".join(ids) + (", ..." if count > len(ids) else "")
            others = f"{plural(count, 'other run')} of {self._flow_slug} that {have} not ended ({names})"
            text = (
                f"leaving {others} to other workers"
                if self._only
                else f"also working on {others}, after this one; --only leaves them; "
                f"to end one: {command('cancel', ids[0], *self._options)}"
            )
            self._observer.on_message("info", text)
        self._observer = None
