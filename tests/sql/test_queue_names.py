"""Names of queues and route maps (contract 0.17 section 3)."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.types.json import Jsonb

from .helpers import Db, flow

RULES = (
    "Slugs are 1-128 characters of letters, digits, and single underscores, must start with a letter,"
    " cannot end with an underscore, cannot contain '__', and cannot be the reserved word 'run'."
)


def resolve(flow_slug: str, step_slug: str, index: int) -> str:
    return f"select pgflow._resolve_step_queue_name('{flow_slug}', '{step_slug}', {index})"


def derive(db: Db, flow_slug: str, *slugs: str, mode: str | None = "step") -> Any:
    steps = {"steps": [{"slug": slug} for slug in slugs]}
    return db.value("select pgflow._derive_queue_routes(%s, %s, %s)", flow_slug, Jsonb(steps), mode)


def told(db: Db, query: str, *params: Any) -> tuple[str | None, str, str | None, str | None]:
    """SQLSTATE, message, detail and hint of a refusal."""
    refusal = db.refused(query, *params)
    diag = refusal.error.diag
    return refusal.sqlstate, refusal.message, diag.message_detail, diag.message_hint


def refused_routes(db: Db, flow_slug: str, *slugs: str, mode: str = "step") -> tuple[str | None, ...]:
    steps = {"steps": [{"slug": slug} for slug in slugs]}
    state, *texts = told(db, "select pgflow._derive_queue_routes(%s, %s, %s)", flow_slug, Jsonb(steps), mode)
    assert state == "P0001"
    return tuple(texts)


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a", True),
        ("x" * 47, True),
        ("a b", True),
        ("", False),
        (None, False),
        ("A", False),
        ("x" * 48, False),
    ],
)
def test_a_queue_name_is_lower_case_and_fits(plain_db: Db, name: str | None, valid: bool) -> None:
    assert plain_db.value("select pgflow.is_valid_queue_name(%s)", name) is valid


@pytest.mark.parametrize(
    ("flow_slug", "step_slug", "index", "queue"),
    [
        ("communityThreadsV1", "classify", 0, "communitythreadsv1__classify"),
        ("f", "S" * 44, 7, "f__" + "s" * 44),
        ("f", "s" * 45, 7, "f__7"),
        ("F" * 44, "step", 9, "f" * 44 + "__9"),
    ],
)
def test_a_step_s_queue_is_readable_or_numbered(
    plain_db: Db, flow_slug: str, step_slug: str, index: int, queue: str
) -> None:
    assert plain_db.value(resolve(flow_slug, step_slug, index)) == queue


def test_a_flow_too_long_for_any_step_queue_says_so(plain_db: Db) -> None:
    slug = "F" * 45
    assert told(plain_db, resolve(slug, "a", 0)) == (
        "P0001",
        f'Flow "{slug}" cannot use per-step queues.',
        f'The shortest required queue "{slug.lower()}__0" is 48 characters; PGMQ allows at most 47.',
        "Shorten the concrete flow slug or use the default single queue.",
    )


def test_a_step_too_far_back_for_a_number_says_so(plain_db: Db) -> None:
    slug = "f" * 44
    assert told(plain_db, resolve(slug, "Step", 10)) == (
        "P0001",
        f'Cannot derive a queue for step "Step" at index 10 in flow "{slug}".',
        "The readable name is 50 characters and the index fallback is 48; PGMQ allows at most 47.",
        (
            "Shorten the concrete flow slug, shorten the step slug enough for the readable name,"
            " or use the default single queue."
        ),
    )


def test_routes_come_in_shape_order(plain_db: Db) -> None:
    assert derive(plain_db, "myFlow", "b", "A") == [
        {"stepSlug": "b", "queueName": "myflow__b"},
        {"stepSlug": "A", "queueName": "myflow__a"},
    ]
    for mode in ("flow", None):
        assert derive(plain_db, "myFlow", "b", "A", mode=mode) == [
            {"stepSlug": "b", "queueName": "myflow"},
            {"stepSlug": "A", "queueName": "myflow"},
        ]
    assert derive(plain_db, "f", mode="flow") == []


def test_what_is_wrong_is_told_in_the_contract_s_order(plain_db: Db) -> None:
    assert refused_routes(plain_db, "1", mode="odd") == (
        'Unknown queue mode "odd".',
        None,
        "Queue mode must be 'flow' or 'step'.",
    )
    assert refused_routes(plain_db, "1") == (
        'Flow "1" cannot use per-step queues: it has no steps.',
        "Per-step queue mode requires at least one step.",
        "Add a step or keep the flow on the default single queue.",
    )
    assert refused_routes(plain_db, "a__b", "_x") == (
        'Flow slug "a__b" is not valid.',
        RULES,
        "Fix the flow slug in the flow definition.",
    )
    for mode in ("flow", "step"):
        assert refused_routes(plain_db, "f", "a", "A", "x_", mode=mode) == (
            'Step slug "x_" in flow "f" is not valid.',
            RULES,
            "Fix the step slug in the flow definition.",
        )
        assert refused_routes(plain_db, "f", "a", "b", "A", mode=mode) == (
            'Steps "a" and "A" in flow "f" conflict case-insensitively.',
            "Step slugs must be unique case-insensitively.",
            "Rename one of the colliding steps.",
        )
    long = "s" * 60
    assert refused_routes(plain_db, "f", long, long.upper())[0] == (
        f'Steps "{long}" and "{long.upper()}" in flow "f" conflict case-insensitively.'
    )
    assert refused_routes(plain_db, "f" * 46, "a", "A")[0] == f'Flow "{"f" * 46}" cannot use per-step queues.'


def test_a_number_that_another_step_is_named_by_is_refused(plain_db: Db) -> None:
    """No valid slug is a number, so only a stored old one can be in the way."""
    plain_db.do("alter table pgflow.steps drop constraint steps_step_slug_check")
    flow(plain_db, "f", "1")
    assert refused_routes(plain_db, "f", "1", "s" * 60) == (
        f'Steps "1" and "{"s" * 60}" in flow "f" both resolve to queue "f__1".',
        "Generated queue names must be unique per flow.",
        "Step slugs must be unique case-insensitively; rename one of the colliding steps.",
    )


def test_the_listed_spelling_of_a_queue_is_found(plain_db: Db) -> None:
    plain_db.do("select pgmq.create('LegacyCase'), pgmq.create('ambcase'), pgmq.create('AmbCase')")
    listed = "select pgflow._listed_queue_name(%s)"
    assert plain_db.value(listed, "legacycase") == "LegacyCase"
    assert plain_db.value(listed, "Absent") == "Absent"
    for name in ("ambcase", "AmbCase", "AMBCASE"):
        refusal = plain_db.refused(listed, name)
        assert refusal.sqlstate == "42P09"
        assert refusal.message == (
            f'queue name "{name}" is ambiguous: it matches listed queues {{ambcase,AmbCase}}'
        )
