"""The regression gate's verdict, and the yardstick that must not change."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pgflow_mp.bench.measure import Samples

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gate", BENCHMARKS / "gate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.mark.parametrize(("found", "bad"), [(0.76, False), (0.74, True), (1.5, False)])
def test_a_loss_of_more_than_a_quarter_fails(gate: ModuleType, found: float, bad: bool) -> None:
    assert bool(gate.losses({"r": Samples((found,))}, {"r": 1.0})) is bad


@pytest.mark.parametrize(("found", "bad"), [(0.86, False), (0.84, True)])
def test_a_share_of_the_pool_may_fall_by_less(gate: ModuleType, found: float, bad: bool) -> None:
    name = "ranges: 1 ms run / pool, same chunks"
    assert bool(gate.losses({name: Samples((found,))}, {name: 1.0})) is bad
    assert set(gate.TOLERANCE) <= set(gate.RATIOS)


def test_one_bad_round_of_three_does_not_fail(gate: ModuleType) -> None:
    assert gate.losses({"r": Samples((1.0, 0.2, 0.9))}, {"r": 1.0}) == []


def test_every_ratio_has_a_stored_value(gate: ModuleType) -> None:
    stored = json.loads((BENCHMARKS / "gate.json").read_text(encoding="utf-8"))
    assert set(stored) == set(gate.RATIOS)


def test_the_pinned_baseline_is_what_the_stored_ratios_were_measured_with() -> None:
    digest = hashlib.sha256((BENCHMARKS / "baseline.sql").read_bytes()).hexdigest()
    assert digest == "612f767cc8a1c18a66bfa91c2df2de6247e00836ec8be8ed3a156e32483411a3", (
        "a changed yardstick needs new ratios: gate.py --update"
    )
