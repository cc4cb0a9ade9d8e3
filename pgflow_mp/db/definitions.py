"""Flows as the database has them: created, compared with the code, their options brought in line with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import psycopg

from pgflow_mp.db import connection, engine
from pgflow_mp.db.engine import Connection
from pgflow_mp.db.wire import RawJson
from pgflow_mp.errors import FlowDefinitionError, FlowNotFound, ShapeMismatch

_TAKE_OVER: Final = """
select r ->> 'status', array(select jsonb_array_elements_text(r -> 'differences')), r ->> 'mismatchKind',
  array(select jsonb_array_elements_text(r -> 'words')),
  array(select jsonb_array_elements_text(r -> 'changed')),
  array(select jsonb_array_elements_text(r -> 'added')),
  coalesce((r ->> 'conditionsOnly')::boolean, false)
from pgflow.take_over_flow(%s, %s, %s, %s) r
"""


class Definition(NamedTuple):
    """A flow in the database: compiled, verified, extended, recompiled, mismatch, or stored, not compared.

    ``notes`` are sentences for the log; ``kind`` of a mismatch is "shape", or "routing" where only the queues
    differ. Of a mismatch ``differences`` are the contract's texts, ``words`` say which side is which;
    ``conditions_only``: "extend" would take it over.
    """

    status: str
    differences: list[str]
    notes: list[str]
    kind: str | None = None
    words: Sequence[str] = ()
    conditions_only: bool = False


def ensure(
    conn: Connection, flow_slug: str, shape: bytes, *, queue_mode: str = "flow", how: str = "check"
) -> Definition:
    """Create the flow, or compare its shape, and where that is the same take over the code's options.

    ``how``: a flow that the code has only added steps to is extended with "check"; with "extend" also where
    conditions of stored steps changed. With "recreate" a flow that differs is deleted, with its runs, and
    created anew.

    A role that may not do that takes the flow as it is stored. Raises FlowNotFound where it knows that there
    is none, FlowDefinitionError where the database refuses a slug, and psycopg's error where the flow had to
    be replaced.
    """
    try:
        if how == "recreate":
            found = _recreated(conn, flow_slug, shape, queue_mode)
        else:
            found = _taken_over(conn, flow_slug, shape, queue_mode, conditions=how == "extend")
    except psycopg.errors.InsufficientPrivilege:
        if how == "recreate":
            raise
        if stored_options(conn, flow_slug) == []:
            raise _missing(conn, flow_slug) from None
        return Definition("stored", [], [])
    except psycopg.errors.RaiseException as error:  # the engine refuses what the flow says
        diag = error.diag
        hints = [text for text in (diag.message_detail, diag.message_hint) if text]
        raise FlowDefinitionError(diag.message_primary or str(error), hint=" ".join(hints)) from None
    if found.status not in ("verified", "extended"):
        return found
    return found._replace(notes=[*found.notes, *_apply_options(conn, flow_slug, shape)])


def mismatch(flow_slug: str, found: Definition, *, hint: str) -> ShapeMismatch:
    """The error about a flow that differs from the code's."""
    told = list(found.words) if found.words and found.kind == "shape" else found.differences
    if found.kind == "shape":  # other steps have other routes: that is no second difference
        told = [text for text in told if not text.startswith("Step routes differ")] or told
    if found.conditions_only:
        hint = f"Take the changed conditions over, for what is not decided yet: --compile extend. {hint}"
    listed = "\n".join(f"  - {text}" for text in told)
    if found.kind == "routing":
        text = (
            f"Flow '{flow_slug}' queue routing mismatch with database.\n"
            "Changing queue mode or step routes in production requires a new concrete flow slug.\n"
            f"Differences:\n{listed}"
        )
    else:
        text = f'Flow "{flow_slug}" in the database differs from the code:\n{listed}'
    return ShapeMismatch(text, found.differences, hint=hint)


def queues(conn: Connection, flow_slug: str) -> list[str]:
    """The queues of a flow, in the order of their steps where each has its own; none without the flow."""
    rows = conn.execute("select queue_name from pgflow.flow_queues(%s)", (flow_slug,)).fetchall()
    return [cast(str, row[0]) for row in rows]


def _taken_over(
    conn: Connection, flow_slug: str, shape: bytes, queue_mode: str, *, conditions: bool
) -> Definition:
    try:
        row = conn.execute(_TAKE_OVER, (flow_slug, RawJson(shape), queue_mode, conditions)).fetchone()
    except psycopg.errors.UndefinedFunction:  # the schema is older than this package
        return _of(engine.ensure_flow_compiled(conn, flow_slug, shape, queue_mode))
    status, differences, kind, words, notes, added, conditions_only = cast("tuple[Any, ...]", row)
    if added:
        names = ", ".join(f'"{slug}"' for slug in added)
        steps, them = ("step", "it") if len(added) == 1 else ("steps", "them")
        notes.insert(0, f"extended by {steps} {names}; runs that were started before go on without {them}")
    return Definition(status, differences, notes, kind, words, conditions_only)


def _recreated(conn: Connection, flow_slug: str, shape: bytes, queue_mode: str) -> Definition:
    found = engine.ensure_flow_compiled(conn, flow_slug, shape, queue_mode)
    if found.status != "mismatch":
        return _of(found)
    with conn.transaction():
        conn.execute("select pgflow.delete_flow_and_data(%s)", (flow_slug,))
        engine.ensure_flow_compiled(conn, flow_slug, shape, queue_mode)
    return Definition("recompiled", found.differences, [])


def _of(found: engine.Compiled) -> Definition:
    return Definition(found.status, found.differences, [], found.kind)


def stored_options(conn: Connection, flow_slug: str) -> list[tuple[str, int, int]] | None:
    """Slug, max_attempts and base_delay of each step, none without the flow; None where we may not ask."""
    try:
        return cast(
            "list[tuple[str, int, int]]",
            conn.execute(
                "select step_slug, max_attempts, base_delay from pgflow.flow_options(%s)", (flow_slug,)
            ).fetchall(),
        )
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction):
        return None


def added_steps(conn: Connection, flow_slug: str) -> list[str]:
    """Steps that the flow got when it was extended; none where we may not ask."""
    try:
        rows = conn.execute("select pgflow.steps_added(%s)", (flow_slug,)).fetchall()
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction):
        return []
    return [cast(str, row[0]) for row in rows]


def no_flow(conn: Connection, flow_slug: str) -> FlowNotFound:
    """The error about a flow that is not stored, for whoever starts a run of it from Python."""
    return FlowNotFound(
        f'There is no flow "{flow_slug}" in this database',
        hint="Give the Flow itself instead of its slug, which makes it known; or start a worker that serves "
        f"it, FLOW being its module or file: {connection.command_for(conn, 'work FLOW')}",
    )


def _missing(conn: Connection, flow_slug: str) -> FlowNotFound:
    row = conn.execute(
        "select pg_get_userbyid(nspowner)::text from pg_namespace where nspname = 'pgflow'"
    ).fetchone()
    (owner,) = cast("tuple[Any, ...]", row)
    return FlowNotFound(
        f'There is no flow "{flow_slug}" in this database, and role {conn.info.user} may not create it',
        hint=f"Have role {owner}, the owner of the schema pgflow, run, start or serve it once, or execute "
        "the SQL that this prints, FLOW being its module or file: python -m pgflow_mp compile FLOW",
    )


def _apply_options(conn: Connection, flow_slug: str, shape: bytes) -> list[str]:
    """Sentences about what changed."""
    try:
        row = conn.execute("select pgflow.apply_flow_options(%s, %s)", (flow_slug, RawJson(shape))).fetchone()
    except psycopg.errors.InsufficientPrivilege:
        return [f"its options stay as they are stored, role {conn.info.user} may not change them"]
    except psycopg.errors.UndefinedFunction:
        upgrade = connection.command_for(conn, "migrate")
        return [f"its options stay as they are stored until the schema is upgraded: {upgrade}"]
    return cast("list[str]", cast("tuple[Any, ...]", row)[0])
