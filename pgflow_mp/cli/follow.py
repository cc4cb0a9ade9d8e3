"""results --follow: a line for each item of a step as it ends, until the run has ended."""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Final

from pgflow_mp.cli.asked import Asked, open_file, open_target
from pgflow_mp.cli.complaints import OK
from pgflow_mp.cli.parser import command
from pgflow_mp.cli.wanted_items import WantedItems, tell_unmet
from pgflow_mp.errors import RunFailed

if TYPE_CHECKING:
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.client.following import Follower
    from pgflow_mp.db.engine import Connection

_TOLD: Final = "waiting for the database: "


def follow(database: OpenDatabase, run_id: str, asked: Asked, wanted: WantedItems, results: IO[str]) -> int:
    """Write what ends of the step; returns when the run has completed. Raises RunFailed when it has failed.

    Standard output and pipes get each line at once. A file takes its name once the run has completed.
    """
    from pgflow_mp.client.following import Follower
    from pgflow_mp.db import schema
    from pgflow_mp.db.keeper import Keeper
    from pgflow_mp.observe.text import plural

    step = str(asked.step)
    again = command("results", run_id, step, *database.options)
    hint = f"Follow it again: {again} --follow"
    with (
        Keeper(database.dsn, prepare=schema.check, on_state=_Trouble()) as keeper,
        open_target(asked.name, results, hint) as target,
        open_file(target, hint) as file,
    ):
        follower = Follower(keeper, run_id, step, inputs=wanted.needs_input, to_the_end=True)
        count = write_ended(follower, wanted, file)
        tell_unmet(wanted, count)
        if follower.run.status == "failed":
            lost = f"{asked.name} was not written. " if asked.name != "-" else ""
            hint = f"{lost}What has ended of it: {again} --status completed,failed"
            words = keeper.call(lambda conn: _failure(conn, run_id))
            raise RunFailed(
                f"Run {run_id} of {follower.run.flow_slug} failed: {words}", run_id=run_id, hint=hint
            )
    if asked.name != "-":
        print(f"{plural(count, 'item')} of {step} in {asked.name}", file=sys.stderr)
    return OK


def _failure(conn: Connection, run_id: str) -> str:
    from pgflow_mp.db.reads import runs
    from pgflow_mp.observe import grouping
    from pgflow_mp.observe.text import essence

    failed, count = grouping.earliest(conn, run_id, 1)
    if failed:
        first, more = failed[0], f" ({count:,} items failed)" if count > 1 else ""
        what = essence(first.error, beside=(first.step, first.index))
        return f"{first.step}[{first.index}] {first.shown()}".rstrip() + f": {what}{more}"
    view = runs.run_view(conn, run_id)
    errors = [step.error_message for step in view[1] if step.error_message] if view else []
    return errors[0] if errors else "Unknown error"


def write_ended(follower: Follower, wanted: WantedItems, file: IO[bytes]) -> int:
    """Write a line for each item that is wanted, as they end; how many they were."""
    from pgflow_mp.db.reads.records import records_of

    count = 0
    for stretches in follower:
        for stretch in stretches:
            if wanted.statuses is not None and stretch.status not in wanted.statuses:
                continue
            for record in records_of(stretch):
                file.write(wanted.write(record) + b"\n")
                count += 1
        file.flush()
    return count


class _Trouble:
    """Says once that the database is away, and once that it is back."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, state: str) -> None:
        if state and not self._told:
            print(f"{_TOLD}{state}", file=sys.stderr)
        elif not state and self._told:
            print("connected to the database again", file=sys.stderr)
        self._told = bool(state)
