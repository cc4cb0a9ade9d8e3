"""Elements that are small as stored and longer as text than PostgreSQL can say: no worker could have them."""

from __future__ import annotations

import pytest

from .helpers import Db, start
from .range_work import claim_work, mapped

pytestmark = pytest.mark.slow  # each makes a text of 1 GB

DIGITS = "(select to_jsonb(array_agg('1e131071'::numeric)) from generate_series(1, %s))"


def test_elements_that_nobody_could_be_answered_are_refused_before_their_run_starts(db: Db) -> None:
    run = mapped(db, 3)
    load = db.value("select pgflow.open_load('f')")
    refused = db.refused(f"select pgflow.add_pages(%s, '{{0}}', '{{9000}}', array[{DIGITS}])", load, 9000)
    assert refused.sqlstate == "54000"
    assert "Items 0 to 8999 are too long to be read" in refused.message
    refused = db.refused(f"select pgflow.start_run('f', jsonb_build_array(1, {DIGITS}))", 9000)
    assert refused.sqlstate == "54000"
    assert "Items 0 to 1 are too long" in refused.message or "Items 1 to 1 are too long" in refused.message
    assert {lease.run for lease in claim_work(db).leases} == {run}


def test_large_elements_that_can_be_are(db: Db) -> None:
    mapped(db, 3)
    large = start(db, "f", ["x" * 300_000, 1])
    load = db.value("select pgflow.open_load('f')")
    db.do("select pgflow.add_pages(%s, '{0}', '{1}', array[to_jsonb(array[repeat('y', 300000)])])", load)
    db.do("select pgflow.start_loaded_run(%s)", load)
    assert {large, load} <= {lease.run for lease in claim_work(db).leases}
