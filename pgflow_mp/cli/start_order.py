"""A run that start puts into the database: what was asked for, its flow and input, and the start itself."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pgflow_mp.cli.flow_targets import flow_target
from pgflow_mp.cli.taking import check_steps, find_reuse
from pgflow_mp.errors import FlowNotFound, InputError

if TYPE_CHECKING:
    import psycopg

    from pgflow_mp.cli.command_line import DatabaseChoice
    from pgflow_mp.cli.connecting import OpenDatabase
    from pgflow_mp.cli.feeding import Feed
    from pgflow_mp.cli.input_options import InputChoice
    from pgflow_mp.cli.preflight import FlowFacts
    from pgflow_mp.cli.reuse_options import ReuseChoice
    from pgflow_mp.db.pausing import When
    from pgflow_mp.db.reusing import Reuse
    from pgflow_mp.values.inputs import RunInput


class WantedRun(NamedTuple):
    """A run that is to be started, as the command line says it; ``flow`` is a file, a module or a slug."""

    flow: str
    handlers: Sequence[str]
    key: str | None
    priority: int
    tags: tuple[str, ...]
    after: When | None
    compile: str


class StartOrder(NamedTuple):
    """The same with its input, of a flow that was loaded; without ``facts`` of one the database may know."""

    wanted: WantedRun
    slug: str
    facts: FlowFacts | None
    missing: Exception | None
    """Why the flow was not loaded."""
    feed: RunInput | Feed | InputError


class StartedRun(NamedTuple):
    """A run, which may be one that its key had already."""

    run_id: str
    is_new: bool = True
    status: str = "started"


def ordered(
    wanted: WantedRun, choice: InputChoice, database: DatabaseChoice, taken: ReuseChoice | None
) -> StartOrder:
    """The flow loaded and the input read. Raises what that raises."""
    from pgflow_mp.cli import feeding, keyed
    from pgflow_mp.values.inputs import RunInput

    facts: FlowFacts | None = None
    feed: RunInput | Feed | InputError | None = None
    missing: Exception | None = None
    given, target = feeding.read(choice, database), flow_target(wanted.flow, wanted.handlers)
    try:
        _, facts, feed = keyed.prepare([target], wanted.flow, choice, given, wanted.key, database)
        check_steps(taken, facts)
    except FlowNotFound as error:
        if facts is not None or not wanted.flow.isidentifier():
            raise
        missing = error  # perhaps the database knows a flow of this name
        feed = feeding.for_unknown(choice, given)
    slug = wanted.flow if facts is None else facts.slug
    return StartOrder(wanted, slug, facts, missing, feed or RunInput(b"{}", ""))


def _make_known(order: StartOrder, conn: psycopg.Connection[tuple[Any, ...]], database: OpenDatabase) -> None:
    """Have the database know the flow. Raises FlowNotFound for one that neither it nor we know."""
    from pgflow_mp.cli.compiling import check_known, compile_flow

    if order.facts is None:
        check_known(conn, order.slug, order.missing, database.place)
    else:
        compile_flow(conn, order.facts, order.wanted.compile)


def start_keyed_run(
    order: StartOrder,
    key: str,
    conn: psycopg.Connection[tuple[Any, ...]],
    database: OpenDatabase,
    *,
    was_given: bool,
) -> StartedRun:
    """The run of the key, started if there is none; what is compared is an input that ``was_given``."""
    from pgflow_mp.cli.keyed import KeyedStart

    wanted = order.wanted
    found = KeyedStart(
        *(order.slug, key, order.feed, was_given, wanted.priority, wanted.tags),
        compile=lambda: _make_known(order, conn, database),
        compile_anyway=wanted.compile == "recreate" or order.facts is None,
        after=wanted.after,
    ).start(conn, database.dsn)
    return StartedRun(str(found.run.run_id), found.is_new, found.run.status)


def start_anew(
    order: StartOrder,
    conn: psycopg.Connection[tuple[Any, ...]],
    database: OpenDatabase,
    taken: ReuseChoice | None,
) -> str:
    """The id of a new run."""
    from pgflow_mp.cli.feeding import Feed

    _make_known(order, conn, database)
    reuse, feed = find_reuse(conn, taken, order.facts, database.options), order.feed
    if isinstance(feed, Feed):
        found = feed.start(
            *(database.dsn, order.slug),
            priority=order.wanted.priority,
            tags=order.wanted.tags,
            after=order.wanted.after,
            key=None,
            reuse=reuse,
        )
        return str(found.run.run_id)
    assert not isinstance(feed, InputError)  # noqa: S101 - errors are for runs with a key
    return _start_value(order, feed.json, conn, database.place, reuse)


def _start_value(
    order: StartOrder,
    input: bytes,
    conn: psycopg.Connection[tuple[Any, ...]],
    place: str,
    reuse: Reuse | None,
) -> str:
    """The id of a new run whose input is one JSON value."""
    import psycopg

    from pgflow_mp.db import engine, run_tags
    from pgflow_mp.db.starting import start_once

    wanted = order.wanted
    if reuse is not None:
        run_id = str(uuid.uuid4())
        start_once(
            *(conn, order.slug, input, run_id),
            priority=wanted.priority,
            tags=wanted.tags,
            after=wanted.after,
            reuse=reuse,
        )
        return run_id
    try:
        with run_tags.marking(conn, wanted.tags, wanted.after) as tag:
            run_id = engine.start_flow(conn, order.slug, input, priority=wanted.priority)
            tag(run_id)
        return run_id
    except psycopg.errors.ForeignKeyViolation:
        raise FlowNotFound(
            f'There is no flow "{order.slug}" in {place}',
            hint="Have a role that may create flows start it, or a worker that serves it.",
        ) from None
