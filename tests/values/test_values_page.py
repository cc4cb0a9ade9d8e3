"""docs/values.md tells the truth: each row of its table is written and read as it says."""

from __future__ import annotations

import importlib
import re
import typing
from pathlib import Path
from typing import Any

import pytest

from pgflow_mp.values.outputs import encode_output
from pgflow_mp.values.reading import decoder

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "values.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## Both ways")[2].partition("\n\n|")[2].partition("\n\n")[0]
ROWS = [re.findall(r"`([^`]+)`", row.replace("\\|", "|")) for row in TABLE.splitlines()[2:]]


def evaluated(text: str) -> Any:
    names: dict[str, Any] = {}
    for name in re.findall(r"\b([a-z]+)\.", text):
        names[name] = pytest.importorskip(name)
    names["typing"] = typing
    if "numpy.typing" in text:
        importlib.import_module("numpy.typing")
    return eval(text, names)


def test_the_table_is_found() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize(("value", "json", "kinds"), [(row[0], row[1], row[2:]) for row in ROWS])
def test_a_row_is_written_and_read_as_the_page_says(value: str, json: str, kinds: list[str]) -> None:
    given = evaluated(value)
    assert encode_output(given).decode() == json
    for kind in kinds:
        wanted = evaluated(kind)
        back = decoder(wanted)(json)
        origin = getattr(wanted, "__origin__", wanted)
        assert isinstance(back, typing.get_origin(origin) or origin)
        assert encode_output(back).decode() == json or "timedelta" in value or "pandas" in value
