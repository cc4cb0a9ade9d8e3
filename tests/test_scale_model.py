"""scripts/simulate_scale.py reproduces what was measured, and docs/beyond.md shows what it prints."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
WITHIN = {"seconds": 0.12, "server, CPU s": 0.3, "parents, CPU s": 0.4, "log, MB": 0.15, "pairs/s": 0.3}
"""How far the simulation may be off, by what it tells."""


@pytest.fixture(scope="module")
def model() -> Iterator[ModuleType]:
    pytest.importorskip("simpy")
    spec = importlib.util.spec_from_file_location("simulate_scale", ROOT / "scripts" / "simulate_scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "scripts")
        spec.loader.exec_module(module)
        yield module


@pytest.mark.slow
def test_the_simulation_reproduces_the_measured_points(model: ModuleType) -> None:
    off = [
        (name, measured, simulated)
        for name, measured, simulated in model.compared(json.loads(model.POINTS.read_text()))
        if abs(simulated / measured - 1) > WITHIN[name.rpartition(": ")[2]]
    ]
    assert off == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lanes", "seconds", "maps", "cores", "longer"), [(4, 0.05, 1, 4, 30.0), (4, 1.0, 200, 1, 1.0)]
)
def test_half_of_what_the_formula_says_is_carried_and_more_than_that_is_not(
    model: ModuleType, lanes: int, seconds: float, maps: int, cores: int, longer: float
) -> None:
    """``longer``: so much longer it takes to record a stretch, so that few boxes fill one run's lock."""
    costs = replace(model.COSTS, part=longer * model.COSTS.part)
    of = model.limits(seconds, lanes, cores, costs=costs)
    run = min(of["claims of one map"], of["completions of one run"])
    assert (run < of["cores"]) is (maps == 1)
    boxes = int(min(of["cores"], run) if maps == 1 else of["cores"])
    shares = [
        model.steady(model.Setting(part, lanes, seconds, 0, min(maps, part), cores), costs)
        for part in (boxes // 2, boxes * 2)
    ]
    assert shares[0] >= 0.93
    assert shares[1] <= 0.8


def test_the_page_shows_what_the_model_says(model: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    model.print_carried(4, 64)
    page = (ROOT / "docs" / "beyond.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out in page
    costs = model.COSTS
    for text in (
        f"however many items | {costs.claim * 1000:g} ms | {costs.wal_claim / 1000:g} kB |",
        f"the transaction | {costs.complete * 1000:g} ms | {costs.wal_complete / 1000:g} kB |",
        f"in 0.2 s | {costs.part * 1000:g} ms | {costs.wal_part / 1000:g} kB |",
        f"in and out | {costs.item * 1e6:g} µs | {costs.wal_item + costs.wal_element:g} B |",
        f"a look for work | {costs.box * 1000:g} ms |",
        f"spends {costs.chunk * 1000:g} ms of its own box",
        f"a commit takes {costs.commit * 1000:g} ms",
        f"the second transaction: {costs.wait * 1000:g} ms",
    ):
        assert text in page


@pytest.mark.parametrize(
    "options",
    [
        *("--boxes=0", "--cores=0", "--lanes=-1", "--item=nan", "--item=inf"),
        *("--commit=nan", "--commit=-1", "--boxes=1 --payload=-5"),
    ],
)
def test_what_no_model_can_be_played_with_is_refused(
    model: ModuleType, options: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate_scale.py", *options.split()])
    with pytest.raises(SystemExit) as ended:
        model.main()
    assert (ended.value.code, "simulate_scale.py: error: " in capsys.readouterr().err) == (2, True)
