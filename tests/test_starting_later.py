"""``after`` of what starts runs from Python, and ``until`` of what pauses them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from database_roles import role_with
from test_feeding_from_python import flow_of
from worker_harness import compiled

from pgflow_mp.client import AsyncClient, Client
from pgflow_mp.errors import InputError
from pgflow_mp.observe.wording import sentence_of_run, state_of_run

HOUR = timedelta(hours=1)


def hold(client: Client, run_id: str) -> datetime | None:
    run = client.report(run_id)
    assert (run.state == "paused") == (run.paused_until is not None)
    return run.paused_until


def test_every_way_to_start_a_run_can_start_it_later(dsn: str) -> None:
    chain = flow_of("chain")
    compiled(dsn, "chain")
    at = datetime.now(UTC) + HOUR
    with Client(dsn) as client:
        old = client.start(chain, [1])
        runs = [
            client.start_flow("chain", [1], after=at),
            client.start_flow("chain", [1], after=at.astimezone().replace(tzinfo=None)),
            client.start_flow("chain", [1], key="v", after=at),
            client.start(chain, iter([1]), after=at),
            client.start("chain", [1], key="k", after=at),
            client.start("chain", [1], from_run=old.run_id, reuse=["double"], after=at),
        ]
        assert {hold(client, run.run_id) for run in runs} == {at}
        for again in (
            client.start_flow("chain", [1], key="v"),
            client.start("chain", [1], key="k", after=2 * HOUR),
        ):
            assert hold(client, again.run_id) == at
        far = client.report(client.start_flow("chain", [1], after=at + 48 * HOUR).run_id)
        assert state_of_run(far) == f"starts {at.astimezone() + 48 * HOUR:%Y-%m-%d}"
        assert sentence_of_run(far).startswith(f"starts at {at.astimezone() + 48 * HOUR:%Y-%m-%d %H:%M:%S}; ")
        soon = client.start_flow("chain", [1], after=HOUR)
        found = hold(client, soon.run_id)
        assert found is not None
        assert abs((found - at).total_seconds()) < 30
        for past in (datetime(2020, 1, 1), timedelta(0)):
            assert hold(client, client.start_flow("chain", [1], after=past).run_id) is None
        assert client.pause(soon, until=2 * HOUR)
        assert client.pause(flow="chain", until=at + 3 * HOUR)
        assert hold(client, old.run_id) == at + 3 * HOUR
        with pytest.raises(InputError, match="which has passed"):
            client.pause(old, until=datetime(2020, 1, 1))
        bad: list[Any] = [-HOUR, timedelta(days=40_000), 5, "10m"]
        for odd in bad:
            for call in (
                lambda odd=odd: client.start_flow("chain", [1], after=odd),
                lambda odd=odd: client.start("chain", [1], after=odd),
                lambda odd=odd: client.pause(old, until=odd),
            ):
                with pytest.raises(InputError, match="must be a datetime, or a timedelta"):
                    call()

    with role_with(dsn, "starter") as limited, Client(limited) as client:
        assert hold(client, client.start_flow("chain", [1], after=at + 3 * HOUR).run_id) == at + 3 * HOUR

    async def too() -> None:
        async with AsyncClient(dsn) as client:
            runs = [
                await client.start_flow("chain", [1], after=at + 4 * HOUR),
                await client.start(chain, [1], after=at + 4 * HOUR),
            ]
            await client.pause(old.run_id, until=at + 4 * HOUR)
            with Client(dsn) as plain:
                assert {hold(plain, each) for each in (*(run.run_id for run in runs), old.run_id)} == {
                    at + 4 * HOUR
                }

    asyncio.run(too())
