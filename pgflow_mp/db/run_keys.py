"""Runs with keys: names of the caller's choosing, each once among the runs of a flow (sql/functions/0237).

Whoever starts a run with a key that is there gets the run of it, where both were given the same. What a run
was given is compared by a digest, 32 bytes that its starter makes of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, NamedTuple, cast

import psycopg

from pgflow_mp.db import connection, definitions, engine, rights, run_tags
from pgflow_mp.db.engine import Connection, RunRow
from pgflow_mp.db.loads import NO_LOAD
from pgflow_mp.db.pausing import When
from pgflow_mp.db.wire import RawJson
from pgflow_mp.errors import WHY_NO_RUN, InputError, RunNotFound

LONGEST: Final = 200
"""Characters of a key."""
_OTHER: Final = "PF007"


class KeyHolder(NamedTuple):
    """The run that has a key, and the digest of what it was given; None: only the database can compare."""

    run_id: str
    digest: bytes | None


class Keyed(NamedTuple):
    """The run of a key; ``is_new``: it was started for it just now."""

    run: RunRow
    is_new: bool


def check_key(key: str) -> str:
    """The key, if it can be one. Raises InputError."""
    hint = f"A key is a name of 1 to {LONGEST} printable characters, such as nightly-2026-11-26."
    if not isinstance(key, str):
        raise InputError(f"The key of a run is a text, not {type(key).__name__}", hint=hint)
    if not 0 < len(key) <= LONGEST:
        raise InputError(f"The key of a run cannot have {len(key)} characters", hint=hint)
    if key != key.strip():
        raise InputError(f"The key {key!r} of a run begins or ends with white space", hint=hint)
    if odd := [character for character in key if not character.isprintable()]:
        raise InputError(f"The key {key!r} of a run has the character {odd[0]!r}", hint=hint)
    return key


def holder(conn: Connection, flow_slug: str, key: str) -> KeyHolder | None:
    """The run that has the key among those of the flow, None without one."""
    row = conn.execute(
        "select run_id, input_hash from pgflow.run_of_key(%s, %s)", (flow_slug, key)
    ).fetchone()
    return None if row is None else KeyHolder(str(row[0]), row[1])


def start_keyed(
    conn: Connection,
    flow_slug: str,
    key: str,
    input: bytes,
    digest: bytes,
    *,
    priority: int = 0,
    tags: Sequence[str] = (),
    after: When | None = None,
) -> Keyed:
    """Start a run with this key and input (raw JSON), or find the one that has it and was given the same.

    Raises FlowNotFound, and InputError for another input and for one that the flow cannot take.
    """
    return _started(
        conn,
        flow_slug,
        "select run_id, is_new from pgflow.start_keyed_run(%s, %s, %s, %s, %s)",
        (flow_slug, key, RawJson(input), digest, priority),
        tags,
        after,
    )


def start_keyed_load(
    conn: Connection,
    flow_slug: str,
    key: str,
    load_id: str,
    digest: bytes,
    params: bytes,
    *,
    priority: int = 0,
    tags: Sequence[str] = (),
    after: When | None = None,
) -> Keyed:
    """The same of items that were loaded as ``load_id``, which are dropped if there is such a run already.

    It may be called again where it is not known whether the last call got through.
    """

    def is_started() -> bool:
        known = holder(conn, flow_slug, key)
        return known is not None and known.run_id == load_id

    if not is_started():
        try:
            return _started(
                conn,
                flow_slug,
                "select run_id, is_new from pgflow.start_keyed_load(%s::uuid, %s, %s, %s, %s)",
                (load_id, key, digest, RawJson(params), priority),
                tags,
                after,
            )
        except InputError as error:  # the last try may have got through while this one waited
            said = error.__context__  # which is not shown
            if not (isinstance(said, psycopg.Error) and said.sqlstate == NO_LOAD and is_started()):
                raise
    return Keyed(_run(conn, load_id), True)


def other_input(conn: Connection, flow_slug: str, key: str, known: KeyHolder) -> InputError:
    """The error about a key whose run was given something else."""
    status = _run(conn, known.run_id).status
    return InputError(
        f'Run {known.run_id} of flow "{flow_slug}" has the key "{key}", and was started with another input',
        hint=f"Give another key, or the input that it was started with. That run is {status}.",
    )


def keys_of(conn: Connection, run_ids: Collection[str]) -> dict[str, str]:
    """The keys of those runs that have one, by run."""

    def select(conn: Connection, source: str) -> list[tuple[Any, ...]]:
        return conn.execute(f"select run_id, key from {source}", ([*map(str, run_ids)],)).fetchall()  # noqa: S608

    rows = rights.read(
        conn,
        lambda conn: select(conn, "pgflow.run_keys where run_id = any (%s::uuid[])"),
        lambda conn: select(conn, "pgflow.keys_of_runs(%s::uuid[])"),
    )
    return {str(run_id): cast(str, key) for run_id, key in rows}


def _run(conn: Connection, run_id: str) -> RunRow:
    row = engine.get_run(conn, run_id)
    if row is None:
        raise RunNotFound(f"There is no run {run_id} in this database", hint=WHY_NO_RUN)
    return row


def _started(
    conn: Connection,
    flow_slug: str,
    query: str,
    arguments: tuple[Any, ...],
    tags: Sequence[str],
    after: When | None,
) -> Keyed:
    try:
        with run_tags.marking(conn, tags, after) as tag:
            row = conn.execute(query.encode(), arguments).fetchone()
            run_id, is_new = cast("tuple[Any, ...]", row)
            if is_new:
                tag(run_id)
    except psycopg.errors.ForeignKeyViolation:
        raise definitions.no_flow(conn, flow_slug) from None
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.Error as error:
        if connection.is_transient(error):
            raise
        text = (error.diag.message_primary or str(error)).strip()
        if error.sqlstate == _OTHER:
            raise InputError(text, hint=error.diag.message_hint or "") from None
        raise InputError(f'Flow "{flow_slug}" cannot be started: {text}') from None
    return Keyed(_run(conn, str(run_id)), bool(is_new))
