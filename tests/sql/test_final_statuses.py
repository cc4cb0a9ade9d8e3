"""What else looks at tasks knows those that ended with their step or run (contract addendum section 1)."""

from __future__ import annotations

from pgflow_mp.testing.audit import audit_run

from .helpers import Db, claim, fail, flow, map_step, start, state, step


def test_an_audit_takes_a_failed_run_s_other_steps_as_they_were(db: Db) -> None:
    flow(db, "f", step("a", max_attempts=1), map_step("m"), "b", step("c", "b"))
    run = start(db, "f", [1, 2])
    claim(db, "f", 3)
    fail(db, run, "a")
    assert (state(db, run, "m").status, state(db, run, "b").status) == ("started", "started")
    assert audit_run(db.conn, str(run)) == []
    db.do("update pgflow.step_tasks set status = 'started' where step_slug = 'm'")
    assert "m: 2 tasks under way in a run that is failed" in audit_run(db.conn, str(run))
