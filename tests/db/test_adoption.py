"""Schemas that lie in wait: what somebody else made before us is not adopted, and never runs as us."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from database_server import DatabaseServer
from psycopg.conninfo import make_conninfo

from pgflow_mp.db import queue, schema
from pgflow_mp.errors import SchemaError

Connection = psycopg.Connection[Any]

EVIL = """
create table if not exists public.loot (who text, what text);
grant all on public.loot to public;
create or replace function public.note(what text) returns bool language plpgsql as $$
begin
  if current_user <> {attacker} then insert into public.loot values (current_user, what); end if;
  return true;
end $$;
grant execute on function public.note to public;
"""

PGMQ = """
create schema pgmq; grant usage on schema pgmq to public;
create table pgmq.meta (queue_name varchar, is_partitioned bool, is_unlogged bool, created_at timestamptz);
create type pgmq.message_record as (msg_id bigint, read_ct int, enqueued_at timestamptz, vt timestamptz,
  message jsonb, headers jsonb);
create function pgmq.send_batch(text, jsonb[], integer) returns setof bigint language sql as
  $$ select 1::bigint where public.note('send_batch') $$;
create function pgmq.archive(text, bigint[]) returns setof bigint language sql as $$ select 1::bigint $$;
create function pgmq.delete(text, bigint[]) returns setof bigint language sql as $$ select 1::bigint $$;
create function pgmq."create"(text) returns void language plpgsql as
  $$ begin perform public.note('create'); end $$;
create function pgmq.drop_queue(text) returns bool language sql as $$ select public.note('drop_queue') $$;
create function pgmq.list_queues() returns setof pgmq.meta language sql as
  $$ select * from pgmq.meta where public.note('list_queues') $$;
create function pgmq.format_table_name(text, text) returns text language sql as
  $$ select 'q' where public.note('format_table_name') $$;
"""
REALTIME = """
create schema realtime; grant usage on schema realtime to public;
create function realtime.send(jsonb, text, text, boolean) returns void language plpgsql as
  $$ begin perform public.note('realtime.send'); end $$;
"""
CRON = """
create schema cron; grant usage on schema cron to public;
create table cron.job (jobname text);
insert into cron.job values ('pgflow_requeue_stalled_tasks');
grant select on cron.job to public;
create function cron.unschedule(text) returns bool language sql as $$ select public.note('unschedule') $$;
create function cron.schedule(text, text, text) returns bigint language plpgsql as
  $$ begin perform public.note('schedule'); return 1; end $$;
"""
NET = """
create schema net; create schema vault; grant usage on schema net, vault to public;
create function net.http_post(url text, headers jsonb, body jsonb) returns bigint language sql as
  $$ select 1::bigint where public.note('http_post') $$;
create view vault.decrypted_secrets as select n as name, 'x' as decrypted_secret
from (values ('supabase_project_id'), ('pgflow_auth_secret')) v (n) where public.note('secrets');
grant select on vault.decrypted_secrets to public;
"""
PGFLOW = """
create schema pgflow; grant usage, create on schema pgflow to public;
create view pgflow.schema_version as select 1 as version, '0.0.1' as package_version, 'x' as functions_digest
where public.note('schema_version');
grant select on pgflow.schema_version to public;
"""
PGFLOW_TABLE = """
create schema pgflow; grant usage, create on schema pgflow to public;
create table pgflow.schema_version (version int, package_version text, functions_digest text);
insert into pgflow.schema_version values (1, '0.0.1', 'x');
grant all on pgflow.schema_version to public;
alter table pgflow.schema_version enable row level security;
create policy evil on pgflow.schema_version using (public.note('policy'));
"""


class Place(NamedTuple):
    """A database, and three roles with rights to create schemas in it: its superuser, and two others."""

    admin: Connection
    owner: Connection
    attacker: Connection
    names: tuple[str, str]

    def loot(self) -> list[Any]:
        """What of the attacker's ran as somebody else."""
        return self.admin.execute("select distinct who, what from public.loot").fetchall()


@pytest.fixture
def place(empty_dsn: str) -> Iterator[Place]:
    names = (f"owner_{uuid.uuid4().hex[:8]}", f"attacker_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(empty_dsn, autocommit=True) as admin:
        for name in names:
            admin.execute(f"create role {name} login".encode())
            admin.execute(f"grant create on database {admin.info.dbname} to {name}".encode())
        admin.execute(EVIL.format(attacker=f"'{names[1]}'").encode())
        with (
            psycopg.connect(make_conninfo(empty_dsn, user=names[0]), autocommit=True) as owner,
            psycopg.connect(make_conninfo(empty_dsn, user=names[1]), autocommit=True) as attacker,
        ):
            yield Place(admin, owner, attacker, names)
        for name in names:
            admin.execute(f"drop owned by {name} cascade".encode())
            admin.execute(f"drop role {name}".encode())


def psql(conn: Connection, script: str) -> subprocess.CompletedProcess[str]:
    info = conn.info
    dsn = make_conninfo(host=info.host, port=info.port, user=info.user, dbname=info.dbname)
    command = ["psql", "-X", "-q", "-f", "-", dsn]
    return subprocess.run(command, input=script, capture_output=True, text=True, check=False)


def installations(place: Place) -> dict[str, Callable[[], str]]:
    """Each way to install, by each role; each answers the words with which it refuses."""

    def by_program(conn: Connection) -> str:
        with pytest.raises(SchemaError) as caught:
            schema.install(conn)
        assert caught.value.hint
        return str(caught.value)

    def by_script(conn: Connection) -> str:
        done = psql(conn, schema.sql_text())
        assert done.returncode == 3
        assert "HINT:" in done.stderr
        return done.stderr

    return {
        "superuser": lambda: by_program(place.admin),
        "owner": lambda: by_program(place.owner),
        "script, superuser": lambda: by_script(place.admin),
        "script, owner": lambda: by_script(place.owner),
    }


@pytest.mark.parametrize(
    ("made", "name"),
    [(PGMQ, "pgmq"), (REALTIME, "realtime"), (CRON, "cron"), (PGFLOW, "pgflow"), (PGFLOW_TABLE, "pgflow")],
    ids=["pgmq", "realtime", "cron", "pgflow as a view", "pgflow as a table"],
)
def test_a_schema_that_somebody_else_made_before_is_refused_by_name(
    place: Place, made: str, name: str
) -> None:
    place.attacker.execute(made.encode())
    for how, refuse in installations(place).items():
        words = refuse()
        assert f"schema {name}" in words, how
        assert f"belongs to role {place.names[1]}" in words, how
    assert place.loot() == []
    if name == "pgflow":
        with pytest.raises(SchemaError, match="that pgflow_mp did not install"):
            schema.check(place.admin)
    assert place.loot() == []


@pytest.mark.parametrize("name", ["pgmq", "pgflow"])
def test_a_schema_in_which_others_may_create_is_refused(place: Place, name: str) -> None:
    schema.install(place.owner)
    place.owner.execute("update pgflow.schema_version set functions_digest = 'older'")
    for grantee in (place.names[1], "public"):
        place.owner.execute(f"grant create on schema {name} to {grantee}".encode())
        for how, refuse in installations(place).items():
            if "owner" in how:
                assert f"Role {grantee} may create in schema {name}" in refuse(), how
        place.owner.execute(f"revoke create on schema {name} from {grantee}".encode())
    assert schema.install(place.owner).changed


@pytest.mark.parametrize(
    "left",
    [
        "function pgmq.send_batch(text, jsonb[], text, timestamptz) returns text language sql as 'select $1'",
        "table pgmq.message_log (n int)",
        "domain pgmq.kind as text",
        "function pgflow.start_run(text, text) returns uuid language sql as 'select null::uuid'",
    ],
)
def test_what_somebody_left_in_our_schemas_while_it_was_allowed_is_refused(place: Place, left: str) -> None:
    schema.install(place.owner)
    place.owner.execute(f"grant create, usage on schema pgmq, pgflow to {place.names[1]}".encode())
    place.attacker.execute(f"create {left}".encode())
    place.owner.execute(f"revoke create on schema pgmq, pgflow from {place.names[1]}".encode())
    with pytest.raises(SchemaError, match=f"belongs to role {place.names[1]}"):
        schema.install(place.owner)


def test_what_a_superuser_or_a_member_of_the_installing_role_made_is_adopted(place: Place) -> None:
    place.admin.execute(queue._bundled().encode())
    place.admin.execute(
        "grant usage on schema pgmq to public; grant all on all tables in schema pgmq to public"
    )
    place.attacker.execute(REALTIME.encode())
    place.admin.execute(f"grant {place.names[0]} to {place.names[1]}".encode())  # no attacker any more
    assert schema.install(place.owner).queue == "present"


def test_others_may_have_queues_of_their_own_but_not_those_of_our_flows(place: Place) -> None:
    schema.install(place.owner)
    name = place.names[1]
    place.owner.execute(f"grant usage, create on schema pgmq to {name}".encode())
    place.owner.execute(f"grant all on all tables in schema pgmq to {name}".encode())
    place.attacker.execute(
        "select pgmq.create(n) from unnest('{mine,listed,unlisted,unlisted__s}'::text[]) n"
    )
    place.attacker.execute("delete from pgmq.meta where queue_name like 'unlisted%'")
    place.owner.execute(f"revoke create on schema pgmq from {name}".encode())
    place.owner.execute("update pgflow.schema_version set functions_digest = 'older'")
    assert schema.install(place.owner).changed
    shape = '{"steps": [{"slug": "s"}]}'
    with pytest.raises(psycopg.errors.UniqueViolation, match='queue "listed" is already in use'):
        place.admin.execute("select pgflow.create_flow('listed')")
    for call in (
        "create_flow('unlisted')",
        f"ensure_flow_compiled('unlisted', '{shape}', 'step')",
    ):
        with pytest.raises(
            psycopg.errors.InsufficientPrivilege, match=f"belongs to role {name}|must be owner"
        ):
            place.owner.execute(f"select pgflow.{call}".encode())
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"belongs to role {name}"):
            place.admin.execute(f"select pgflow.{call}".encode())
    place.owner.execute("select pgflow.create_flow('ours')")


def test_what_appears_after_the_installation_never_runs_with_our_rights(place: Place) -> None:
    for installer in (place.owner, place.admin):
        place.admin.execute("drop schema if exists pgflow, pgmq cascade")
        schema.install(installer)
        installer.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 's')")
        installer.execute("select pgflow.track_worker_function('edge')")
        place.attacker.execute((REALTIME + CRON + NET).encode())
        with psycopg.connect(place.owner.info.dsn, autocommit=True) as hears:
            installer.execute("listen pgflow_events; select pgflow.start_run('f', '{}')")
            del hears
        heard = [n.payload for n in installer.notifies(timeout=1, stop_after=1)]
        assert "run:started" in heard[0]
        installer.execute("unlisten *")
        for call in (
            "setup_requeue_stalled_tasks_cron()",
            "setup_ensure_workers_cron()",
            "cleanup_ensure_workers_logs()",
            "ensure_workers()",
        ):
            with pytest.raises(
                psycopg.errors.InsufficientPrivilege, match=f"belongs to role {place.names[1]}"
            ):
                installer.execute(f"select pgflow.{call}".encode())
        place.attacker.execute("drop schema realtime, cron, net, vault cascade")
        assert place.loot() == []


def test_a_schema_that_nobody_may_look_into_stops_no_event(place: Place) -> None:
    """Looking a function up by name is refused without rights on its schema: then no run could start."""
    schema.install(place.owner)
    place.owner.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 's')")
    place.attacker.execute("create schema realtime; create schema cron")
    place.attacker.execute(
        "create function realtime.send(jsonb, text, text, bool) returns void language sql as ''"
    )
    assert place.owner.execute("select pgflow.start_run('f', '{}')").fetchone() is not None


def test_a_function_put_into_a_schema_of_a_superuser_s_is_not_called(place: Place) -> None:
    schema.install(place.owner)
    place.owner.execute("select pgflow.create_flow('f'), pgflow.add_step('f', 's')")
    place.admin.execute("create schema realtime; grant usage, create on schema realtime to public")
    place.attacker.execute(REALTIME.partition("\n")[2].partition("\n")[2].encode())
    place.owner.execute("select pgflow.start_run('f', '{}')")
    place.admin.execute("alter function realtime.send(jsonb, text, text, bool) owner to current_user")
    place.owner.execute("select pgflow.start_run('f', '{}')")
    assert place.loot() == [(place.names[0], "realtime.send")]


# -- a queue that is too old ---------------------------------------------------------------------------------


AS_OF_1_3_3 = """
drop type pgmq.message_record cascade;
create type pgmq.message_record as (msg_id bigint, read_ct int, enqueued_at timestamptz, vt timestamptz,
  message jsonb);
drop function pgmq.drop_queue(text);
"""


LACKING = {
    AS_OF_1_3_3: r"pgmq\.drop_queue\(text\)",
    "alter type pgmq.message_record drop attribute headers cascade": r"pgmq\.message_record\.headers",
    "drop function pgmq.send_batch(text, jsonb[], int)": r"pgmq\.send_batch\(text, jsonb\[\], integer\)",
    "drop function pgmq.archive(text, bigint[])": r"pgmq\.archive\(text, bigint\[\]\)",
    "drop function pgmq.format_table_name(text, text)": r"pgmq\.format_table_name\(text, text\)",
    "drop function pgmq.list_queues()": r"pgmq\.list_queues\(\)",
}


def test_an_older_queue_is_named_with_what_it_lacks(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        schema.install(conn)
        for change, missing in LACKING.items():
            for look in (schema.check, schema.install):
                with conn.transaction(force_rollback=True):
                    conn.execute(change.encode())
                    with pytest.raises(SchemaError, match=f"too old: {missing} is missing.*1.5 or") as caught:
                        look(conn)
                assert "drop schema pgmq cascade" in caught.value.hint
        conn.execute("drop schema pgflow cascade")
        conn.execute(AS_OF_1_3_3)
        with pytest.raises(SchemaError, match="too old"):
            schema.install(conn)
        done = psql(conn, schema.sql_text())
        assert done.returncode == 3
        assert "1.5 or later" in done.stderr
        assert schema.installed(conn) is None


def test_the_version_of_an_older_extension_is_told(server: DatabaseServer, empty_dsn: str) -> None:
    """An extension needs files in the server's directories, so its row in the catalog is made by hand."""
    with psycopg.connect(empty_dsn, autocommit=True) as conn:
        schema.install(conn)
        conn.execute(AS_OF_1_3_3)
        conn.execute("set allow_system_table_mods = on")
        conn.execute(
            "insert into pg_extension "
            "select 99999, 'pgmq', 10, 'pgmq'::regnamespace, false, '1.3.3', null, null"
        )
        with pytest.raises(SchemaError, match=r"it is version 1\.3\.3, and pgflow_mp needs") as caught:
            schema.check(conn)
        assert "alter extension pgmq update" in caught.value.hint
        conn.execute("delete from pg_extension where oid = 99999")
