"""Finding, reaching and losing a database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from database_server import DatabaseServer, room_in_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from pgflow_mp.db.connection import (
    Backoff,
    connect,
    discover_dsn,
    is_connection_lost,
    is_transient,
    redact,
    retrying,
)
from pgflow_mp.embedded.server import EmbeddedServer
from pgflow_mp.errors import ConfigError, DatabaseError, DatabaseUnavailable

PASSWORD = "s3cr3t/pass"


@pytest.fixture(autouse=True)
def _no_libpq_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith("PG") and not name.startswith("PGFLOW"):
            monkeypatch.delenv(name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def tcp() -> Iterator[dict[str, str]]:
    """A throw-away server that also listens on TCP and wants passwords there."""
    port = str(free_port())
    configuration = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "max_connections": "6",
        "superuser_reserved_connections": "3",
    }
    with EmbeddedServer(room_in_memory(), throwaway=True, settings=configuration) as server:
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute("create role bob login password 's3cr3t/pass'")
            conn.execute("create role locked password 's3cr3t/pass'")
        yield {"host": "127.0.0.1", "port": port, "user": "bob", "password": PASSWORD, "dbname": "pgflow"}


# -- discovery ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "env", "expected"),
    [
        (None, {}, None),
        (None, {"HOME": "/root", "PGUSER": "bob"}, None),
        ("host=a", {"PGFLOW_DATABASE_URL": "host=b", "DATABASE_URL": "host=c", "PGHOST": "d"}, "host=a"),
        (None, {"PGFLOW_DATABASE_URL": "host=b", "DATABASE_URL": "host=c", "PGHOST": "d"}, "host=b"),
        (None, {"PGFLOW_DATABASE_URL": " ", "DATABASE_URL": "host=c", "PGHOST": "d"}, "host=c"),
        (None, {"PGHOST": "d"}, ""),
        (None, {"PGSERVICE": "prod"}, ""),
        (None, {"PGDATABASE": "jobs"}, ""),
        ("", {"DATABASE_URL": "host=c"}, ""),
        (None, {"DATABASE_URL": "postgresql+psycopg://u@h/d"}, "postgresql://u@h/d"),
        (None, {"DATABASE_URL": "postgres://u@h/d"}, "postgres://u@h/d"),
    ],
)
def test_the_first_source_that_names_a_database_is_taken(
    dsn: str | None, env: Mapping[str, str], expected: str | None
) -> None:
    assert discover_dsn(dsn, env) == expected


def test_a_url_of_another_product_is_refused_by_its_source_and_without_its_password() -> None:
    with pytest.raises(ConfigError, match="DATABASE_URL names a 'mysql'") as caught:
        discover_dsn(env={"DATABASE_URL": f"mysql://bob:{PASSWORD}@h/d"})
    assert PASSWORD not in str(caught.value)
    assert "postgresql://" in caught.value.hint


# -- redaction ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://bob:s3cr3t@host:5432/db",
        "postgresql://bob:s3cr3t@host/db?password=s3cr3t&sslmode=require",
        "postgresql://host/db?sslpassword=s3cr3t",
        "postgresql://bob:s3cr3t/with@and?all@host/db",
        "host=a password=s3cr3t dbname=b",
        "host=a password = 's3cr3t s3cr3t' dbname=b",
        r"password='it\'s s3cr3t' host=a",
        r"password=a\ s3cr3t host=a",
        "password='s3cr3t never closed",
        "PASSWORD=s3cr3t",
        'error: invalid URI "postgresql://bob:s3cr3t@host" given',
    ],
)
def test_no_form_of_a_password_survives_redaction(text: str) -> None:
    assert "s3cr3t" not in redact(text)
    assert "***" in redact(text)


def test_redaction_leaves_everything_else_readable() -> None:
    assert redact("postgresql://bob:x@db.example:5433/jobs?sslmode=require") == (
        "postgresql://bob:***@db.example:5433/jobs?sslmode=require"
    )
    assert redact("host=a user=bob password='x y' dbname=jobs") == "host=a user=bob password=*** dbname=jobs"
    assert redact("postgresql://bob@h/jobs") == "postgresql://bob@h/jobs"


@settings(max_examples=60)
@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=6).filter(lambda t: t.strip("*"))
)
def test_any_password_that_libpq_can_quote_is_hidden(password: str) -> None:
    shown = redact(make_conninfo(host="h", password=password, dbname="zzz"))
    assert shown == "host=h password=*** dbname=zzz"


# -- connecting --------------------------------------------------------------------------------------


def test_a_connection_is_alive_named_and_in_autocommit(server: DatabaseServer) -> None:
    with connect(server.dsn, application_name="somebody") as conn:
        assert conn.autocommit
        assert conn.execute("show application_name").fetchone() == ("somebody",)
        assert conn.info.encoding == "utf-8"
        parameters = conn.info.get_parameters()
    assert parameters["tcp_user_timeout"] == "30000"
    assert parameters["keepalives_idle"] == "15"


def test_the_connection_string_wins_over_our_defaults(server: DatabaseServer) -> None:
    dsn = make_conninfo(server.dsn, application_name="mine", keepalives_idle=99, connect_timeout=3)
    with connect(dsn) as conn:
        parameters = conn.info.get_parameters()
        assert conn.execute("show application_name").fetchone() == ("mine",)
    assert (parameters["keepalives_idle"], parameters["connect_timeout"]) == ("99", "3")


def test_statements_are_not_prepared_for_a_transaction_pooler(server: DatabaseServer) -> None:
    with connect(server.dsn) as conn:
        for _ in range(8):
            conn.execute("select %s::int", (1,))
        assert conn.execute("select count(*) from pg_prepared_statements").fetchone() == (0,)


@pytest.mark.parametrize(
    ("change", "kind", "says", "hint"),
    [
        ({"password": "wrong-one"}, DatabaseError, "password is wrong for user bob", "PGPASSWORD"),
        ({"password": None}, DatabaseError, "asks for a password", "PGPASSWORD"),
        ({"dbname": "nowhere"}, DatabaseError, "database does not exist", "createdb"),
        ({"user": "locked"}, DatabaseError, "may not log in", "grant"),
        ({"sslmode": "require"}, DatabaseError, "offers no TLS", "sslmode"),
        ({"port": "1"}, DatabaseUnavailable, "nothing accepts connections there", "embedded server"),
        ({"host": "no-such-host.invalid"}, DatabaseUnavailable, "host name is unknown", "Check the host"),
        ({"host": "/nonexistent"}, DatabaseUnavailable, "no server has its socket there", "Start the server"),
        ({"service": "nonesuch"}, DatabaseError, "in no service file", "PGSERVICE"),
        ({"port": "abc"}, DatabaseError, "impossible value", "Correct"),
    ],
)
def test_a_refused_connection_says_what_where_and_what_to_do(
    tcp: dict[str, str], change: dict[str, str | None], kind: type[DatabaseError], says: str, hint: str
) -> None:
    parameters = {key: value for key, value in {**tcp, **change}.items() if value is not None}
    with pytest.raises(DatabaseError, match=says) as caught:
        connect(make_conninfo("", **parameters))
    assert type(caught.value) is kind
    assert hint in caught.value.hint
    if "service" not in change:
        assert f"{parameters['user']}@{parameters['host']}:{parameters['port']}" in str(caught.value)
    assert PASSWORD not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_an_unknown_role_is_named(server: DatabaseServer) -> None:
    with pytest.raises(DatabaseError, match="user nobody_here does not exist"):
        connect(make_conninfo(server.dsn, user="nobody_here"))


def test_a_full_server_is_unavailable_and_the_hint_names_max_connections(tcp: dict[str, str]) -> None:
    dsn = make_conninfo("", **tcp)
    held = [connect(dsn) for _ in range(3)]
    try:
        with pytest.raises(DatabaseUnavailable, match="no connection left") as caught:
            connect(dsn)
        assert "max_connections" in caught.value.hint
    finally:
        for conn in held:
            conn.close()


def test_a_server_that_speaks_another_protocol_is_recognised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(100)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DatabaseError, match="not a PostgreSQL server"):
            connect(f"host=127.0.0.1 port={listener.getsockname()[1]} user=u")
        thread.join()


def test_a_server_that_says_nothing_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="no answer in time") as caught:
            connect(f"host=127.0.0.1 port={listener.getsockname()[1]} user=u", connect_timeout=2)
        assert time.monotonic() - began < 4
        assert "firewall" in caught.value.hint


def old_server(listener: socket.socket) -> None:
    """Answer one client as a PostgreSQL 14 would."""
    client, _ = listener.accept()
    with client:
        client.recv(1000)
        answer = b"R\0\0\0\x08\0\0\0\0"
        for name, value in (("server_version", "14.9"), ("client_encoding", "UTF8")):
            body = f"{name}\0{value}\0".encode()
            answer += b"S" + (len(body) + 4).to_bytes(4, "big") + body
        client.sendall(answer + b"Z\0\0\0\x05I")
        client.recv(1000)


def test_a_server_older_than_15_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=old_server, args=(listener,))
        thread.start()
        dsn = f"host=127.0.0.1 port={listener.getsockname()[1]} user=u sslmode=disable gssencmode=disable"
        with pytest.raises(DatabaseError, match="is PostgreSQL 14, too old: 15 is needed"):
            connect(dsn)
        thread.join()


@pytest.mark.parametrize(
    "dsn",
    [
        f"host=h {PASSWORD}",
        f"host=h password={PASSWORD} oops",
        "postgresql://bob:s3cr3t@pass@h/db",
        "postgresql://bob:s3cr3t/pass@h:5432/db",
        "postgresql://bob:s3cr3t@[::1/db",
    ],
)
def test_a_broken_connection_string_is_a_config_error_that_keeps_the_password_back(dsn: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connect(dsn)
    error = caught.value
    assert error.hint
    assert error.__cause__ is None
    assert "s3cr3t" not in str(error)


# -- losing it ---------------------------------------------------------------------------------------


def test_a_terminated_backend_is_a_lost_connection(server: DatabaseServer) -> None:
    with connect(server.dsn) as victim, connect(server.dsn) as killer:
        killer.execute("select pg_terminate_backend(%s)", (victim.info.backend_pid,))
        with pytest.raises(psycopg.Error) as caught:
            victim.execute("select pg_sleep(5)")
        assert is_connection_lost(caught.value)
        assert is_transient(caught.value)
        with pytest.raises(psycopg.OperationalError) as caught:
            victim.execute("select 1")
        assert is_connection_lost(caught.value)


def test_a_connection_whose_socket_was_cut_is_lost(server: DatabaseServer) -> None:
    conn = connect(server.dsn)
    wire = socket.socket(fileno=os.dup(conn.fileno()))
    wire.shutdown(socket.SHUT_RDWR)
    wire.close()
    with pytest.raises(psycopg.OperationalError) as caught:
        conn.execute("select 1")
    assert is_connection_lost(caught.value)
    conn.close()


def test_errors_of_a_statement_are_not_lost_connections(server: DatabaseServer) -> None:
    with connect(server.dsn) as conn:
        for statement in ("select 1/0", "select nonsense", "select 'a'::int"):
            with pytest.raises(psycopg.Error) as caught:
                conn.execute(statement)
            assert not is_connection_lost(caught.value)
            assert not is_transient(caught.value)


def test_a_cancelled_statement_is_not_transient(server: DatabaseServer) -> None:
    with connect(server.dsn) as conn:
        conn.execute("set statement_timeout = 20")
        with pytest.raises(psycopg.errors.QueryCanceled) as caught:
            conn.execute("select pg_sleep(5)")
        assert not is_transient(caught.value)


def test_a_deadlock_and_a_serialization_failure_are_transient_but_no_loss(empty_dsn: str) -> None:
    with connect(empty_dsn) as one, connect(empty_dsn) as two:
        one.execute("create table public.t (a int); insert into public.t values (1)")
        one.execute("begin isolation level serializable; select * from public.t")
        two.execute("update public.t set a = 2")
        with pytest.raises(psycopg.errors.SerializationFailure) as caught:
            one.execute("update public.t set a = 3")
        one.execute("rollback")
    assert is_transient(caught.value)
    assert not is_connection_lost(caught.value)


def test_a_write_on_a_read_only_server_is_transient(empty_dsn: str) -> None:
    dsn = make_conninfo(empty_dsn, options="-c default_transaction_read_only=on")
    with connect(dsn) as conn, pytest.raises(psycopg.errors.ReadOnlySqlTransaction) as caught:
        conn.execute("create table public.t (a int)")
    assert is_transient(caught.value)


# -- coming back -------------------------------------------------------------------------------------


def test_pauses_grow_to_the_cap_stay_jittered_and_begin_again_after_a_reset() -> None:
    backoff = Backoff(initial=1.0, cap=5.0, factor=2.0)
    for upper in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert upper / 2 <= backoff.next() <= upper
    assert backoff.tries == 5
    backoff.reset()
    assert backoff.next() <= 1.0
    assert len({Backoff().next() for _ in range(20)}) > 1
    with pytest.raises(ConfigError):
        Backoff(initial=0)


@pytest.mark.slow
def test_retrying_connects_as_soon_as_the_server_is_there(tmp_path: Path) -> None:
    script = """
import sys, time
from pgflow_mp.embedded.server import EmbeddedServer
with EmbeddedServer(throwaway=True, settings={"listen_addresses": "127.0.0.1", "port": sys.argv[1]}):
    sys.stdin.read()
"""
    port = str(free_port())
    failures: list[DatabaseError] = []
    helper = subprocess.Popen([sys.executable, "-c", script, port], stdin=subprocess.PIPE)
    try:
        with pytest.raises(DatabaseError, match="asks for a password"):
            retrying(
                f"host=127.0.0.1 port={port} user=postgres dbname=pgflow",
                give_up_after=30,
                report=lambda error, pause: failures.append(error),
            )
        assert failures
    finally:
        helper.communicate()
    assert helper.returncode == 0


def test_retrying_gives_up_in_time_and_raises_the_last_error() -> None:
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="nothing accepts"):
        retrying("host=127.0.0.1 port=1", give_up_after=0.5)
    assert 0.4 < time.monotonic() - began < 2.0


def test_retrying_stops_when_told_to() -> None:
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(DatabaseUnavailable):
        retrying("host=127.0.0.1 port=1", stop=stop, backoff=Backoff(initial=20, cap=20))
