"""Maps in ranges of a flow that the caller may not use: nobody leases, sees or settles their items."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from .helpers import Db, run_row, start
from .range_work import claim_work, complete_parts, everything, fail_items, finish, hired, release, results
from .test_flow_grants import OTHER, THEIRS, acting, limited

__all__ = ["limited"]
OWN = uuid.UUID("44444444-4444-4444-4444-444444444444")


@pytest.fixture
def run(limited: Db) -> uuid.UUID:
    """A run of the other flow: items 0 to 5 are leased by a worker of theirs, six more are there."""
    limited.do(
        "select pgflow.set_step_policy(slug, 'm', storage => 'ranges') from unnest('{a,b}'::text[]) slug"
    )
    limited.do("delete from pgflow.step_tasks; delete from pgflow.step_states; delete from pgflow.runs")
    hired(limited, "b", THEIRS)
    hired(limited, "a", OWN)
    run = start(limited, "b", list(range(12)))
    claim_work(limited, 6, THEIRS, slug="b", qty=0)
    return run


def calls(run: uuid.UUID, worker: uuid.UUID) -> dict[str, tuple[str, list[Any]]]:
    return {
        "claim": ("select * from pgflow.claim_work('b', %s, 5, 5)", [worker]),
        "pages": ("select * from pgflow.range_pages(%s, 'm', 0, 12)", [run]),
        "complete": (
            "select (pgflow.complete_ranges(%s, 'm', %s, '{1}', '{0}', '{2}', '{\"[1, 2]\"}')).*",
            [run, worker],
        ),
        "fail": (
            "select (pgflow.fail_range_items(%s, 'm', %s, '{1}', '{3}', '{e}', '{f}')).*",
            [run, worker],
        ),
        "release": ("select pgflow.release_ranges(%s, 'm', %s, '{1}', '{4}', '{2}')", [run, worker]),
        "item": ("select * from pgflow.item(%s, 'm', 0)", [run]),
        "cancel": ("select * from pgflow.cancel_run(%s)", [run]),
    }  # fmt: skip


NAMES = list(calls(OWN, OWN))


@pytest.mark.parametrize("name", NAMES)
def test_a_limited_role_does_nothing_to_another_flow_s_map(limited: Db, run: uuid.UUID, name: str) -> None:
    before = everything(limited, run)
    for worker in (THEIRS, OWN):
        query, params = calls(run, worker)[name]
        with acting(limited):
            if name == "item":
                assert limited.rows(query, *params) == []
            else:
                assert limited.refused(query, *params).sqlstate == "42501"
        assert everything(limited, run) == before


@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_does_something_for_who_is_not_limited(limited: Db, run: uuid.UUID, name: str) -> None:
    before = everything(limited, run)
    query, params = calls(run, THEIRS)[name]
    with acting(limited, OTHER):
        rows = limited.rows(query, *params)
    assert rows
    assert (everything(limited, run) == before) == (name in ("pages", "item"))


def test_a_worker_of_one_flow_settles_nothing_of_another_by_the_name_of_its_own(
    limited: Db, run: uuid.UUID
) -> None:
    """Leases of both flows have the same numbers and places."""
    own, before = start(limited, "a", list(range(12))), everything(limited, run)
    with acting(limited):
        assert claim_work(limited, 6, OWN, slug="a", qty=0).bounds == [(0, 6)]
        assert claim_work(limited, 6, THEIRS, slug="a", qty=0).leases
        assert complete_parts(limited, own, [(1, 0, 3)], worker=OWN).accepted == 3
        assert fail_items(limited, own, [3], worker=OWN).step_status == "failed"
        assert release(limited, own, [(1, 4, 2)], worker=OWN) == 0
        limited.do("select pgflow.retry_failed_tasks(%s)", own)
        for lease in claim_work(limited, 100, OWN, slug="a", qty=0).leases:
            assert finish(limited, lease, worker=OWN) == lease.items
        for row in limited.rows("select * from pgflow.claim_work('a', %s, 9, 0)", OWN):
            limited.do(
                "select pgflow.complete_tasks(%s, %s, array[%s], array['1'::jsonb])",
                *(row.run_id, row.step_slug, row.task_index),
            )
        limited.do("select pgflow.retire_worker(%s)", THEIRS)
        limited.do("select pgflow.stop_workers(array[%s]::uuid[])", THEIRS)
    assert run_row(limited, own).status == "completed"
    assert len(results(limited, own)) == 12
    assert everything(limited, run) == before
    assert limited.value("select stopped_at is null from pgflow.workers where worker_id = %s", THEIRS)
