"""Several parents on one database: a map's items are shared to the last, so that no box sits on the tail."""

from __future__ import annotations

import pytest

from pgflow_mp.bench.stage import Stage
from pgflow_mp.flows.options import STORAGES

pytestmark = pytest.mark.benchmark

LANES = 4
NAP = 50.0  # milliseconds
PER_LANE = 160
"""Items for each lane of four parents: 8 s of them."""
LEAST = 3.7


@pytest.mark.parametrize("storage", STORAGES)
def test_four_parents_are_nearly_four_times_one_at_sleeping_items(stage: Stage, storage: str) -> None:
    naps = [NAP] * (4 * LANES * PER_LANE)
    seconds = {}
    for parents in (4, 1):
        with stage.arena("bench_nap", storage=storage, lanes=LANES, workers=parents) as arena:
            arena.warm_up("bench_nap", naps[: 40 * parents], 2)
            seconds[parents] = min(arena.run("bench_nap", naps).total for _ in range(2 if parents > 1 else 1))
    ratio = seconds[1] / seconds[4]
    ideal = len(naps) * NAP / 1000 / (4 * LANES)
    print(
        f"\n{storage}: {seconds[1]:.2f} s by one parent, {seconds[4]:.2f} s by four (ideal {ideal:.2f} s): "
        f"{ratio:.2f} times"
    )
    assert ratio >= LEAST
