"""Runs that are named by a key: started with it, or found again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgflow_mp.cli.feeding import Feed
from pgflow_mp.errors import InputError

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.command_line import DatabaseChoice
    from pgflow_mp.cli.input_options import InputChoice
    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.db.pausing import When
    from pgflow_mp.db.run_keys import Keyed
    from pgflow_mp.io.source import ItemSource
    from pgflow_mp.loading.targets import Target
    from pgflow_mp.values.inputs import RunInput


@dataclass(frozen=True, slots=True)
class KeyedStart:
    """What is to be started with a key, unless that has a run.

    ``given``: the input, also one that holds where nobody gave one, or why there can be no run without one.
    Where none ``was_given`` there is nothing to compare. ``compile`` makes the flow known before a run of it
    is started; ``compile_anyway`` also where there is one.
    """

    flow_slug: str
    key: str
    given: RunInput | Feed | InputError
    was_given: bool
    priority: int
    tags: tuple[str, ...]
    compile: Callable[[], None]
    compile_anyway: bool = False
    after: When | None = None

    def start(self, conn: psycopg.Connection[tuple[Any, ...]], dsn: str) -> Keyed:
        """The run of the key. Raises InputError for one that was given something else."""
        from pgflow_mp.client import keyed_runs
        from pgflow_mp.db import engine, run_keys

        if self.compile_anyway:
            self.compile()
        known = run_keys.holder(conn, self.flow_slug, self.key)
        if known is not None and not self.was_given:
            run = engine.get_run(conn, known.run_id)
            if run is not None:
                return run_keys.Keyed(run, False)
        if isinstance(self.given, InputError):
            raise self.given
        if known is None and not self.compile_anyway:
            self.compile()
        if isinstance(self.given, Feed):
            return self.given.start(
                dsn, self.flow_slug, priority=self.priority, tags=self.tags, after=self.after, key=self.key
            )
        json = self.given.json
        return keyed_runs.start_value(
            conn, self.flow_slug, json, self.key, priority=self.priority, tags=self.tags, after=self.after
        )


def prepare(
    targets: list[Target],
    name: str,
    choice: InputChoice,
    given: RunInput | ItemSource | None,
    key: str | None,
    database: DatabaseChoice,
) -> tuple[list[FlowFacts], FlowFacts, RunInput | Feed | InputError]:
    """Like feeding.prepare; why there is no input, where none was given and a run may have the key."""
    from pgflow_mp.cli import feeding, preflight
    from pgflow_mp.cli.connecting import never_used

    if key is not None:
        from pgflow_mp.db.run_keys import check_key

        check_key(key)
    try:
        return feeding.prepare(targets, name, choice, given)
    except InputError as error:
        if key is None or is_given(choice) or never_used(database):
            raise
        flows = preflight.look_at(targets)
        return flows, preflight.choose(flows, name), error


def is_given(choice: InputChoice) -> bool:
    """Whether there is an input to be compared with that of a run."""
    return choice.given or choice.params is not None
