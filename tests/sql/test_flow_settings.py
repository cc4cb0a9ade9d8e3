"""What is set for a flow and its steps, as reports tell it."""

from __future__ import annotations

from .helpers import Db


def test_what_is_set_is_told_in_words_and_in_definition_order(db: Db) -> None:
    db.do("select pgflow.create_flow('f', max_attempts => 4, base_delay => 7, timeout => 90)")
    db.do("select pgflow.add_step('f', 'm', step_type => 'map', timeout => 5)")
    db.do(
        "select pgflow.add_step('f', 'a', array['m'], required_input_pattern => '{\"m\": 1}',"
        " when_unmet => 'skip-cascade', when_exhausted => 'skip')"
    )
    db.do("select pgflow.set_step_policy('f', 'm', tolerated_failures => 3, storage => 'ranges', batch => 8)")
    db.do("select pgflow.create_flow('other')")
    found = db.rows("select * from pgflow.flow_settings('f')")
    assert [(row.step_slug, row.option, row.value) for row in found] == [
        (None, "max_attempts", "4"),
        (None, "base_delay", "7 s"),
        (None, "timeout", "90 s"),
        ("m", "timeout", "5 s"),
        ("m", "tolerate", "3"),
        ("m", "storage", "ranges"),
        ("m", "batch", "8"),
        ("m", "barrier", "true"),
        ("a", "when", '{"m": 1}'),
        ("a", "when_unmet", "skip-cascade"),
        ("a", "when_exhausted", "skip"),
    ]
    assert db.rows("select * from pgflow.flow_settings('none')") == []
