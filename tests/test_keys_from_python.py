"""Keys from Python: what is called with one starts a run once, and compares what it is given."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from database_roles import role_with
from psycopg.conninfo import conninfo_to_dict
from test_feeding_from_python import drawn, failing, flow_of, stored
from worker_harness import compiled

from pgflow_mp.client import Client
from pgflow_mp.db.run_keys import keys_of
from pgflow_mp.errors import FlowNotFound, InputError, RunFailed
from pgflow_mp.runner import run


def test_run_with_a_key_computes_once_whatever_form_the_same_items_have(dsn: str) -> None:
    chain = flow_of("chain")
    for items in ([1, 2], iter([1, 2]), drawn(), (1, 2)):
        assert run(chain, items, dsn=dsn, workers=1, key="a/b: 1") == {"joined": "#2 #4"}
    assert stored(dsn) == (1, 0, 0)
    for other in ([2, 1], iter([1]), iter([])):
        with pytest.raises(InputError, match='has the key "a/b: 1", and was started with another input'):
            run(chain, other, dsn=dsn, workers=1, key="a/b: 1")
    with pytest.raises(InputError, match="another input"):
        run(chain, [1, 2], params={"rate": 1}, dsn=dsn, workers=1, key="a/b: 1")
    assert run(chain, iter([3]), dsn=dsn, workers=1, key="2") == {"joined": "#6"}
    assert run(chain, [3], dsn=dsn, workers=1, key="2") == {"joined": "#6"}
    with pytest.raises(LookupError):
        run(chain, failing(), dsn=dsn, workers=1, key="3")
    assert stored(dsn) == (2, 1, 1)
    with pytest.raises(InputError, match="cannot be used together"):
        run(chain, [3], dsn=dsn, key="2", run_id="x")
    with pytest.raises(InputError, match="is a text, not int"):
        run(chain, [3], dsn=dsn, key=7)  # type: ignore[call-overload]


def test_a_run_of_a_key_that_failed_is_only_read(dsn: str) -> None:
    chain = flow_of("chain")
    with Client(dsn) as client:
        compiled(dsn, "chain")
        found = client.start(chain, [1], key="k").cancel("no more")
        assert found.key == "k"
        assert client.start_flow("chain", [1], key="k").status == "failed"
        assert client.start("chain", [1]).key is None
    with pytest.raises(RunFailed, match="no more"):
        run(chain, [1], dsn=dsn, workers=1, key="k")


def test_a_client_finds_the_run_of_a_key_and_refuses_another_input(dsn: str) -> None:
    compiled(dsn, "chain")
    compiled(dsn, "single")
    with Client(dsn) as client:
        first = client.start("chain", range(30_000), params={"b": 1, "a": 2}, key="k")
        again = client.start("chain", iter(range(30_000)), params={"a": 2, "b": 1}, key="k")
        assert again.run_id == first.run_id
        for items, params in ((range(30_001), {"a": 2, "b": 1}), (range(30_000), {"a": 2}), ([], None)):
            with pytest.raises(InputError, match="another input"):
                client.start("chain", items, params=params, key="k")
        value = client.start_flow("single", {"a": [1, 2.50]}, key="k")
        assert value.run_id != first.run_id
        assert client.start_flow("single", {"a": [1, 2.5]}, key="k").run_id == value.run_id
        with pytest.raises(InputError, match="another input"):
            client.start_flow("single", {"a": [1]}, key="k")
        for slug in ("start", "start_flow"):
            with pytest.raises(FlowNotFound, match='There is no flow "nowhere"'):
                getattr(client, slug)("nowhere", [1], key="k")
            with pytest.raises(InputError, match="whole number of 32 bits"):
                getattr(client, slug)("chain", [1], key="p", priority=2**31)
        with pytest.raises(InputError, match="cannot be used together"):
            client.start("chain", [1], key="k", run_id=first.run_id)
        with pytest.raises(InputError, match="is not an array"):
            client.start_flow("chain", {}, key="new")
    assert stored(dsn) == (2, 1, 30_000)


def test_roles_use_the_keys_of_their_flows_and_see_no_others(dsn: str) -> None:
    compiled(dsn, "chain")
    compiled(dsn, "single")
    with Client(dsn) as owner:
        theirs = owner.start_flow("single", {"a": 1}, key="k")
    with role_with(dsn, "starter") as limited:
        with psycopg.connect(dsn, autocommit=True) as admin:
            user = conninfo_to_dict(limited)["user"]
            admin.execute("select pgflow.grant_access(%s, 'starter', array['chain'])", (user,))
        with Client(limited) as client:
            mine = client.start("chain", range(3), key="k")
            assert client.start_flow("chain", [0, 1, 2], key="k").run_id == mine.run_id != theirs.run_id
            assert mine.key == "k"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.start_flow("single", {"a": 1}, key="k")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.start("single", [1], key="k")
        with psycopg.connect(limited, autocommit=True) as conn:
            assert keys_of(conn, [mine.run_id, theirs.run_id]) == {mine.run_id: "k"}


@pytest.mark.parametrize("loaded", [False, True])
def test_threads_that_start_one_key_at_once_get_one_run(dsn: str, loaded: bool) -> None:
    compiled(dsn, "chain")
    gate = threading.Barrier(4)
    found: list[str] = []

    def late() -> Iterator[int]:
        yield from range(3)
        gate.wait(10)  # all of them are loading
        yield 3

    def start() -> None:
        with Client(dsn) as client:
            if loaded:
                found.append(client.start("chain", late(), key="k").run_id)
            else:
                gate.wait(10)
                found.append(client.start_flow("chain", [1, 2, 3], key="k").run_id)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4
    assert len(set(found)) == 1
    assert stored(dsn) == ((1, 1, 4) if loaded else (1, 0, 0))
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from pgflow.run_keys").fetchone() == (1,)
