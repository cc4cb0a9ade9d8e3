"""Which format a file of results has: by its ending, or as somebody says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Final

from pgflow_mp.errors import InputError
from pgflow_mp.installed import pip_install
from pgflow_mp.io.sinks.compression import COMPRESSIONS, compression_of, is_missing
from pgflow_mp.values.jsontext import JSONL_ENDINGS

FORMATS: Final = ("json", "jsonl", "csv", "parquet")
_ENDINGS: Final = {
    **dict.fromkeys(JSONL_ENDINGS, "jsonl"),
    ".json": "json",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_ENDING: Final = re.compile(r"(\.[a-z]\w*)+")
"""What somebody means as an ending; the .2 of v1.2 is none."""


def _format_of(name: str) -> str | None:
    """The format that the ending of a file's name tells; None where it has none, or one of no format."""
    inner = Path(name).stem if compression_of(name) else name
    return _ENDINGS.get(Path(inner).suffix.lower())


def _endings(name: str) -> str:
    """The ending that somebody means, with what comes before a compression's."""
    packed = compression_of(name)
    if packed is None:
        return Path(name).suffix.lower()
    inner = Path(Path(name).stem).suffix.lower()
    return inner + packed if _ENDING.fullmatch(inner) else packed


def check_format(name: str, given: str | None, option: str, choose: str) -> str | None:
    """The format of a file; None where its name tells none, and no format was ``given``.

    ``option`` is what names the file, ``choose`` the option that gives a format. Raises InputError for an
    ending of no format of ours, and where the format needs a package that is not there.
    """
    found = given or _format_of(name)
    if found is None and _ENDING.fullmatch(ending := _endings(name)):
        raise InputError(
            f"{option} {name}: nothing here writes {ending} files",
            hint=f"Give the file the ending .json (one document), .jsonl (an item a line), .csv or .parquet "
            f"(an item a row), all but the last also with {' or '.join(COMPRESSIONS)} behind it"
            + (f", or say which of these it is to be: {choose} json." if choose else "."),
        )
    packed = compression_of(name)
    if packed and found == "parquet":
        raise InputError(
            f"{option} {name}: Parquet files are compressed inside, and none can be read through {packed}",
            hint=f"Leave {packed} out.",
        )
    if packed and is_missing(packed):
        raise InputError(
            f"{option} {name}: {packed} files are written with zstandard, which is not installed",
            hint=f"Give the file the ending .gz, or install it: {pip_install('zstd')}",
        )
    if found == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(
            f"{option} {name}: Parquet files are written with pyarrow, which is not installed",
            hint=f"Write .jsonl or .csv, or install it: {pip_install('parquet')}",
        )
    return found
