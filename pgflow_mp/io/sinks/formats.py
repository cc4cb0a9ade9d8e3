"""Which format a file of results has: by its ending, or as somebody says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

from pgflow_mp.errors import InputError
from pgflow_mp.values.jsontext import JSONL_ENDINGS

FORMATS: Final = ("json", "jsonl", "csv", "parquet")
_ENDINGS: Final = {
    **dict.fromkeys(JSONL_ENDINGS, "jsonl"),
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_ENDING: Final = re.compile(r"\.[a-z]\w*")
"""What somebody means as an ending; the .2 of v1.2 is none."""


def _format_of(name: str) -> str | None:
    """The format that the ending of a file's name tells; None where it has none, or one of no format."""
    return _ENDINGS.get(Path(name).suffix.lower())


def check_format(name: str, given: str | None, option: str, choose: str) -> str | None:
    """The format of a file; None where its name tells none, and no format was ``given``.

    ``option`` is what names the file, ``choose`` the option that gives a format. Raises InputError for an
    ending of no format of ours, and where the format needs a package that is not there.
    """
    found = given or _format_of(name)
    if found is None and _ENDING.fullmatch(ending := Path(name).suffix.lower()):
        raise InputError(
            f"{option} {name}: nothing here writes {ending} files",
            hint=f"Give the file the ending .json (one document), .jsonl (an item a line), .csv or .parquet "
            f"(an item a row), or say which of these it is to be: {choose} json.",
        )
    if found == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            f"{option} {name}: Parquet files are written with pyarrow, which is not installed",
            hint="pip install 'pgflow-mp[parquet]', or write .jsonl or .csv.",
        )
    return found
