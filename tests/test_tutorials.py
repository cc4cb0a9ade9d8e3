"""The flows of docs/tutorials/, small and without a database: the item that fails, and its mending.

test_docs.py runs the pages as they are (slow).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pages import PAGES, blocks, files, patched

from pgflow_mp.testing import execute_inline

TUTORIALS = {
    page.stem: page
    for page in PAGES
    if page.parent.name == "tutorials" and any(language == "diff" for language, _ in blocks(page))
}
"""Those in which a function is mended."""
NEEDS = {"texts": "identify.vendor.licenses", "simulation": "numpy"}


class Told(NamedTuple):
    """The module of the flow, its items, one of which fails at first, and what its output is to hold."""

    module: str
    items: list[Any]
    holds: Callable[[dict[str, Any]], bool]


def told(tutorial: str, folder: Path) -> Told:
    if tutorial == "table":
        places = [
            {"zone": zone, "latitude": north, "longitude": 18.96, "year": 2025}
            for zone, north in (("Europe/Berlin", 52.5), ("Europe/Oslo", 69.65))
        ]
        return Told("mornings", places, lambda out: [each["dark"] for each in out["mornings"]] == [0, 127])
    if tutorial == "simulation":
        days = [
            {"agents": agents, "model": "lognormal", "seed": seed} for agents in (18, 0) for seed in (1, 2)
        ]
        return Told("phone", days, lambda out: [row["agents"] for row in out["estimates"]] == [0, 18])
    (folder / "good.py").write_text("import json\n")
    (folder / "bad.py").write_bytes(b"# M\xe4rz\n")
    names = [str(folder / name) for name in ("good.py", "bad.py")]
    return Told("licences", names, lambda out: out["summary"]["files"] == 2)


@pytest.mark.parametrize("tutorial", TUTORIALS)
def test_what_fails_in_a_tutorial_fails_and_is_mended(
    tutorial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(NEEDS.get(tutorial, "zoneinfo"))
    page = TUTORIALS[tutorial]
    for name, text in files(page).items():
        (tmp_path / name).write_text(text)
    small = told(tutorial, tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def goes_well() -> bool:
        sys.modules.pop(small.module, None)
        importlib.invalidate_caches()
        flow = importlib.import_module(small.module).flow
        run = execute_inline(flow, small.items)
        return run.output is not None and small.holds(run.output)

    try:
        if tutorial != "simulation":  # there it would never end
            assert not goes_well()
        for language, text in blocks(page):
            if language == "diff":
                patched(tmp_path, text)
        assert goes_well()
    finally:
        sys.modules.pop(small.module, None)
