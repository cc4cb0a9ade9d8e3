"""Medians, ratios, slopes, and the order of interleaved measurements."""

from __future__ import annotations

import pytest

from pgflow_mp.bench.measure import Samples, interleave, percentile, ratio, slope


def test_variants_take_turns_and_every_second_round_runs_backwards() -> None:
    order: list[str] = []

    def variant(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = interleave({"a": lambda: variant("a"), "b": lambda: variant("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found["a"].values == (1.0, 4.0, 5.0)


def test_a_ratio_compares_neighbours_in_time() -> None:
    noisy = ratio(Samples((2.0, 20.0, 4.0)), Samples((1.0, 10.0, 2.0)))
    assert noisy.values == (2.0, 2.0, 2.0)


def test_spread_is_relative_to_the_median() -> None:
    assert Samples((1.0, 2.0, 3.0)).spread == 1.0


def test_the_slope_of_a_proportional_cost_is_one() -> None:
    assert slope([(100, 0.5), (1000, 5.0), (10_000, 50.0)]) == pytest.approx(1.0)


def test_the_slope_of_a_quadratic_cost_is_two() -> None:
    assert slope([(100, 1.0), (1000, 100.0)]) == pytest.approx(2.0)


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_percentiles_are_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(i) for i in range(100, 0, -1)], share) == value
