"""What the texts of a table become by the types that a handler wants: ``7`` fits an int field.

Kinds are those of JSON values: int, float, bool, str, null, json (text that is JSON itself).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from pgflow_mp.values.rows import FieldType, RowTypes

_INT: Final = re.compile(r"[+-]?[0-9]+")
_FLOAT: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BOOLEANS: Final = {"true": True, "t": True, "yes": True, "1": True}
_BOOLEANS.update({"false": False, "f": False, "no": False, "0": False})
_TEXT: Final = FieldType(["str"], "str")
MISSING: Final = msgspec.UNSET
"""In the place of a value: the field is left away, so that its default holds."""

Convert = Callable[[str], Any]


class Misfit(Exception):
    """A text that is not what was expected."""


def field_of(types: RowTypes | None, name: str) -> FieldType:
    """What is wanted of a column; texts where nobody says."""
    if types is None:
        return _TEXT
    return types.fields.get(name) or types.others or _TEXT


def converter(field: FieldType) -> Convert | None:
    """A function from the text to the value; None where the text is the value. It raises Misfit."""
    kinds = set(field.kinds)
    if kinds == {"str"}:
        return None

    def convert(text: str) -> Any:
        stripped = text.strip()
        if not stripped:
            if "null" in kinds:
                return None
            if "str" in kinds:
                return text
            if not field.required:
                return MISSING
            raise Misfit("found nothing")
        found = _value(stripped, kinds)
        if found is not MISSING:
            return found
        if "str" in kinds:
            return text
        raise Misfit(f"found {text[:60]!r}")

    return convert


def columnwise(field: FieldType) -> Callable[[Sequence[str]], list[Any]] | None:
    """The same of a whole column at once, raising ValueError where it has to be looked at one by one."""
    plain = field.kinds
    if plain == ["int"]:
        return _ints
    if plain == ["float"]:
        return _floats
    return None


def _value(text: str, kinds: set[str]) -> Any:
    if "int" in kinds and _INT.fullmatch(text) and len(text) < 4000:
        return int(text)
    if "float" in kinds and _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if "bool" in kinds and (known := _BOOLEANS.get(text.lower())) is not None:
        return known
    if "null" in kinds and text.lower() == "null" and "str" not in kinds:
        return None
    if "json" in kinds:
        try:
            return msgspec.Raw(msgspec.json.decode(text, type=msgspec.Raw))
        except (msgspec.MsgspecError, RecursionError):
            return MISSING
    return MISSING


def _ints(column: Sequence[str]) -> list[Any]:
    _refuse_odd(column)
    return [*map(int, column)]


def _floats(column: Sequence[str]) -> list[Any]:
    _refuse_odd(column)
    found = [*map(float, column)]
    if not all(map(math.isfinite, found)):
        raise ValueError
    return found


def _refuse_odd(column: Sequence[str]) -> None:
    """Python's numbers may have underscores and the digits of other scripts."""
    together = "".join(column)
    if "_" in together or not together.isascii():
        raise ValueError
