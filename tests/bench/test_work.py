"""The work that is measured."""

from __future__ import annotations

import time

import pytest

from pgflow_mp.bench import burning as work
from pgflow_mp.bench.pools import same_chunks
from pgflow_mp.loading.finding import load_flows


def test_the_mix_has_one_long_item_in_a_hundred_at_the_same_places_each_time() -> None:
    items = work.heavy_tail(1000, 1, 1000)
    assert items.count(1000) == 10
    assert items == work.heavy_tail(1000, 1, 1000)


def test_burning_is_work_that_grows_with_its_argument() -> None:
    def ratio() -> float:
        few, many = (min(_seconds(loops) for _ in range(5)) for loops in (2_000, 40_000))
        return many / few

    assert any(8 < ratio() < 50 for _ in range(5))  # others use this machine, too


@pytest.mark.slow
def test_a_calibrated_item_takes_about_its_time() -> None:
    def seconds() -> float:
        loops = round(work.loops_per_second() * 0.01)
        return min(_seconds(loops) for _ in range(10))

    deadline = time.monotonic() + 60  # others use this machine, too
    while not 0.004 < seconds() < 0.03:
        assert time.monotonic() < deadline


def test_the_bare_pool_gets_the_chunks_of_our_dispatcher() -> None:
    assert same_chunks(0.01, 1000, 2) == 20
    assert same_chunks(0.2, 1000, 2) == 1


def test_the_bare_pool_is_not_left_with_an_idle_process_by_its_last_chunk() -> None:
    assert same_chunks(0.001, 1000, 2) == 167  # chunks of 200 would be five for two processes


def test_every_flow_of_the_benchmark_can_be_loaded() -> None:
    assert len(load_flows("pgflow_mp.bench.bench_flows")) == 8


def _seconds(loops: int) -> float:
    began = time.perf_counter()
    work.burn(loops)
    return time.perf_counter() - began
