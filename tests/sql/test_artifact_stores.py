"""What the database knows of artifacts: the places of a flow, and which runs are gone."""

from __future__ import annotations

import uuid

from .helpers import Db, flow, map_step, start

NOBODY = uuid.UUID("33333333-3333-4333-8333-333333333333")


def test_places_are_known_once_by_flow_and_stay_when_the_flow_goes(db: Db) -> None:
    flow(db, "a", map_step("m"))
    for url in ("/x", "/x", "s3://y"):
        db.do("select pgflow.use_artifact_store('a', %s)", url)
    db.do("select pgflow.use_artifact_store('b', '/x')")
    known = "select flow_slug || ' ' || url from pgflow.known_artifact_stores(%s)"
    assert db.column(known, None) == ["a /x", "b /x", "a s3://y"]
    assert db.column(known, ["b"]) == ["b /x"]
    db.do("select pgflow.delete_flow_and_data('a')")
    assert len(db.column(known, ["a"])) == 2
    assert db.refused("select pgflow.use_artifact_store('a', '')").sqlstate == "23514"


def test_runs_that_are_not_there_are_gone(db: Db) -> None:
    flow(db, "a", map_step("m"))
    run = start(db, "a", [1])
    assert db.column("select * from pgflow.gone_runs('a', %s)", [run, NOBODY]) == [NOBODY]
    assert db.column("select * from pgflow.gone_runs('a', '{}')") == []


def test_each_database_has_an_id_of_its_own_and_one(db: Db) -> None:
    assert db.value("select pgflow.installation_id()") == db.value("select id from pgflow.installation")
    assert db.refused("insert into pgflow.installation default values").sqlstate == "23505"
