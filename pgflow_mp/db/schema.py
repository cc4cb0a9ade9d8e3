"""Installing and upgrading the ``pgflow`` schema from the files under ``sql/``.

``sql/migrations/NNNN/*.sql`` change tables and types and run once each, in order;
``sql/functions/*.sql`` are idempotent and run whenever they differ from what is installed. A fresh
installation runs all of both, so it equals every upgrade path.
"""

from __future__ import annotations

import functools
import hashlib
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import LiteralString, NamedTuple, cast

import psycopg
from psycopg.pq import TransactionStatus

from pgflow_mp.db import adoption, connection, fitness, online, queue, turns
from pgflow_mp.errors import SchemaError

# Any constant will do; all installers of one database must agree on it.
_LOCK_KEY = 0x7067666C6F77  # "pgflow"

_VERSION_TABLE = """\
create table if not exists pgflow.schema_version (
  version int primary key,
  package_version text not null,
  functions_digest text not null,
  applied_at timestamptz not null default now()
)"""


_REFUSE_SECOND = """\
do $$ begin
  if exists (select from pg_namespace where nspname = 'pgflow') then
    raise exception 'this database has a schema named pgflow already'
      using hint = format('This script is for a first installation. Upgrade: '
        'python -m pgflow_mp migrate --dsn %L', 'dbname=' || current_database());
  end if;
end $$;"""


class Installed(NamedTuple):
    """What a database has: schema version, the package version that wrote it, digest of the functions."""

    version: int
    package_version: str
    functions_digest: str


class InstallResult(NamedTuple):
    """What ``install`` did: versions before (0 = nothing there) and after, and where the queue came from."""

    before: int
    after: int
    changed: bool
    queue: str


def _sql_root() -> Traversable:
    packaged = resources.files("pgflow_mp") / "_sql"
    if packaged.is_dir():
        return packaged
    checkout = Path(__file__).resolve().parents[2] / "sql"
    if checkout.is_dir():
        return checkout
    raise SchemaError(
        "The SQL files of pgflow_mp are missing from this installation",
        hint="Reinstall the package: pip install --force-reinstall pgflow-mp",
    )


def _sql_files(folder: Traversable) -> list[Traversable]:
    return sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)


def migrations() -> dict[int, list[Traversable]]:
    """The migration steps by version, each a list of files in order."""
    folders = [f for f in (_sql_root() / "migrations").iterdir() if f.is_dir() and f.name.isdigit()]
    return {int(f.name): _sql_files(f) for f in sorted(folders, key=lambda f: f.name)}


def function_files() -> list[Traversable]:
    """The files that define functions, in load order."""
    return _sql_files(_sql_root() / "functions")


def latest_version() -> int:
    """The schema version that this package installs."""
    return max(migrations())


def functions_digest() -> str:
    """A digest of all function files; differs when any of them differs."""
    digest = hashlib.sha256()
    for file in function_files():
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def sql_text(*, bundled_queue: bool = False) -> str:
    """The whole installation as one script for psql, for a DBA to read and run.

    The queue is the server's extension pgmq where it offers one, else, or with ``bundled_queue`` in any case,
    the SQL of the pgmq package. In a database that has pgflow already the script fails at once.
    """
    from pgflow_mp import __version__

    parts = [
        (
            f"-- pgflow schema, version {latest_version()}, and its queue, from pgflow_mp {__version__}.\n"
            "-- For a database without that schema: psql -X -f FILE DATABASE\n"
            f"\\set ON_ERROR_STOP on\nbegin isolation level read committed;\n{adoption.SETTINGS}\n"
            f"{adoption.SCRIPT}\n{_REFUSE_SECOND}"
        ),
        queue.script(bundled=bundled_queue),
    ]
    for files in migrations().values():
        parts += [f"-- {file.name}\n{file.read_text(encoding='utf-8')}" for file in files]
    parts += [f"-- {file.name}\n{file.read_text(encoding='utf-8')}" for file in function_files()]
    parts.append(_VERSION_TABLE + ";")
    parts += [
        "insert into pgflow.schema_version (version, package_version, functions_digest) "  # noqa: S608
        f"values ({version}, '{__version__}', '{functions_digest()}');"
        for version in migrations()
    ]
    parts.append(f"{adoption.SCRIPT}\ncommit;\n")
    return "\n\n".join(parts)


def installed(conn: psycopg.Connection[tuple[object, ...]]) -> Installed | None:
    """What this database has, or None where there is no pgflow schema.

    Raises ``SchemaError`` where a schema of that name exists that this package did not install.
    """
    # The catalogs themselves: to_regclass may answer from a cache that is older than a lock just won.
    has_schema, has_version = _one_row(
        conn,
        "select exists (select from pg_namespace where nspname = 'pgflow'), exists (select from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace "
        # A view, or a table with policies, would run its owner's code with our rights.
        "where n.nspname = 'pgflow' and c.relname = 'schema_version' and c.relkind = 'r' "
        "and not c.relrowsecurity)",
    )
    if not has_schema:
        return None
    if not has_version:
        raise SchemaError(
            "The database has a schema named pgflow that pgflow_mp did not install",
            hint="Use another database, or rename that schema first: alter schema pgflow rename to ...;",
        )
    found = conn.execute(
        "select version, package_version, functions_digest "
        "from pgflow.schema_version order by version desc limit 1"
    ).fetchone()
    if found is None:
        return None
    return Installed(*cast("tuple[int, str, str]", found))


def check(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """Raise ``SchemaError`` unless the database has exactly the schema version that we need, and the queue.

    Its functions must be ours, too, or those of a later package, which go on serving us.
    A role that was granted functions only (``pgflow.grant_access``) cannot look: then it is taken to fit.
    """
    fitness.check_encoding(conn)
    try:
        found = installed(conn)
    except psycopg.errors.InsufficientPrivilege:
        if _one_row(conn, "select has_schema_privilege('pgflow', 'usage')") == (True,):
            _check_queue(conn)
            return
        raise
    latest = latest_version()
    if found is None:
        raise SchemaError(
            f"The database {conn.info.dbname!r} has no pgflow schema",
            hint=f"Install it: {connection.command_for(conn, 'install')}",
        )
    if found.version < latest:
        raise SchemaError(
            f"The pgflow schema in database {conn.info.dbname!r} has version {found.version}, "
            f"this pgflow_mp needs {latest}",
            hint=f"Upgrade it: {connection.command_for(conn, 'migrate')}",
        )
    if found.version > latest:
        raise _newer(conn, found, latest)
    if found.functions_digest != functions_digest() and not _is_later(found):
        raise SchemaError(
            f"The functions of the pgflow schema in database {conn.info.dbname!r} were written by "
            f"pgflow_mp {found.package_version}, and are not those that this one needs",
            hint=f"Upgrade them: {connection.command_for(conn, 'migrate')}",
        )
    _check_queue(conn)


def _check_queue(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    if not queue.is_there(conn):
        raise SchemaError(
            f"The database {conn.info.dbname!r} has the pgflow schema, but not its queue (schema pgmq)",
            hint=f"Add it: {connection.command_for(conn, 'install')}",
        )
    queue.refuse_too_old(conn)


def install(conn: psycopg.Connection[tuple[object, ...]]) -> InstallResult:
    """Install or upgrade schema and queue in one transaction; does nothing where they are current.

    An upgrade of a large database works ahead (``online.prepare``) so that this transaction is short.
    Safe to call from many processes at once. Raises ``SchemaError`` for a database that is newer than this
    package, holds a schema of somebody else's that we would use, or does not let this role create what is
    needed.
    """
    from pgflow_mp import __version__

    latest, digest = latest_version(), functions_digest()

    def is_current(found: Installed | None) -> bool:
        return (
            found is not None
            and found.version == latest
            and found.functions_digest == digest
            and queue.is_there(conn)
        )

    fitness.check_encoding(conn)
    with conn.transaction():
        conn.execute(adoption.SETTINGS)
        adoption.refuse_foreign(conn)
        found = _not_newer(conn, latest)
        if is_current(found):
            queue.refuse_too_old(conn)
            return InstallResult(latest, latest, False, "unchanged")
    outermost = conn.info.transaction_status == TransactionStatus.IDLE

    def upgrade() -> InstallResult:
        if outermost:  # what others installed while we waited for the lock is to be seen
            conn.execute("set transaction isolation level read committed")
        _lock_installation(conn)
        conn.execute(adoption.SETTINGS)
        adoption.refuse_foreign(conn)
        found = _not_newer(conn, latest)
        before = found.version if found else 0
        if is_current(found):
            return InstallResult(before, latest, False, "unchanged")
        if 0 < before < latest:
            online.lock_tables(conn)
        origin = queue.install(conn)
        for version in migrations():
            if before < version <= latest:
                _run_migration(conn, version)
        for file in function_files():
            _run_file(conn, file)
        conn.execute(_VERSION_TABLE)
        conn.execute(
            "insert into pgflow.schema_version (version, package_version, functions_digest) "
            "select v, %s, %s from generate_series(%s::int, %s::int) v "
            "on conflict (version) do update set package_version = excluded.package_version, "
            "functions_digest = excluded.functions_digest, applied_at = now()",
            (__version__, digest, min(before + 1, latest), latest),
        )
        adoption.refuse_foreign(conn)  # what somebody made in the meantime
        return InstallResult(before, latest, True, origin)

    try:
        if found is not None:
            online.prepare(conn, found.version, functools.partial(_run_migration, conn))
        return online.briefly(conn, upgrade)
    except psycopg.errors.InsufficientPrivilege as exc:
        raise SchemaError(
            f"Role {conn.info.user!r} may not install pgflow into database {conn.info.dbname!r}: "
            f"{str(exc).splitlines()[0]}",
            hint=f"As the database's owner: {connection.command_for(conn, 'install', user='OWNER')}\n"
            "Or give a DBA the script: python -m pgflow_mp install --print",
        ) from None


def _lock_installation(conn: psycopg.Connection[tuple[object, ...]]) -> None:
    """Wait for other installers, however long they take."""
    turns.take(conn, _LOCK_KEY, transaction=True)
    if _one_row(conn, "select to_regclass('pgflow.schema_version') is not null") == (True,):
        (limit,) = _one_row(conn, "select current_setting('lock_timeout')")
        conn.execute("set local lock_timeout = 0")
        conn.execute("lock table pgflow.schema_version in exclusive mode")  # nobody else can have it
        conn.execute("select set_config('lock_timeout', %s, true)", (limit,))


def _not_newer(conn: psycopg.Connection[tuple[object, ...]], latest: int) -> Installed | None:
    """What the database has. Raises SchemaError if that is newer than this package."""
    found = installed(conn)
    if found is not None and (found.version > latest or _is_later(found)):
        raise _newer(conn, found, latest)
    return found


def _run_migration(conn: psycopg.Connection[tuple[object, ...]], version: int, prefix: str = "") -> None:
    for file in migrations()[version]:
        if file.name.startswith(prefix):
            _run_file(conn, file)


def _one_row(conn: psycopg.Connection[tuple[object, ...]], query: LiteralString) -> tuple[object, ...]:
    row = conn.execute(query).fetchone()
    return row if row is not None else ()


def _newer(conn: psycopg.Connection[tuple[object, ...]], found: Installed, latest: int) -> SchemaError:
    from pgflow_mp import __version__

    return SchemaError(
        f"The pgflow schema in database {conn.info.dbname!r} (version {found.version}, written by pgflow_mp "
        f"{found.package_version}) is newer than this pgflow_mp {__version__} (version {latest})",
        hint="Upgrade this installation: pip install --upgrade pgflow-mp",
    )


def _is_later(found: Installed) -> bool:
    """Whether a later version of this package has written it."""
    from pgflow_mp import __version__

    return _as_tuple(found.package_version) > _as_tuple(__version__)


def _as_tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _run_file(conn: psycopg.Connection[tuple[object, ...]], file: Traversable) -> None:
    try:
        conn.execute(file.read_text(encoding="utf-8"))
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
        raise
    except psycopg.Error as exc:
        if isinstance(exc, psycopg.errors.DeadlockDetected) or connection.is_connection_lost(exc):
            raise
        if advice := exc.diag.message_hint:
            raise SchemaError(
                f"The upgrade is not possible yet: {exc.diag.message_primary}",
                hint=f"{advice} Nothing was changed.",
            ) from None
        raise SchemaError(
            f"SQL file {file.name} failed: {str(exc).strip()}",
            hint="Nothing was changed: the installation is one transaction.",
        ) from exc
