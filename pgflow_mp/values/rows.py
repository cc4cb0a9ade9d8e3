"""What a handler wants of the rows of a table: the kinds of JSON values by column."""

from __future__ import annotations

import msgspec


class FieldType(msgspec.Struct):
    """``kinds``: int, float, bool, str, null, json (lists and objects); ``expected`` says them in words."""

    kinds: list[str]
    expected: str
    required: bool = True


class RowTypes(msgspec.Struct):
    """The fields of a row; ``others`` is what all further ones are, None: texts."""

    fields: dict[str, FieldType] = {}
    others: FieldType | None = None
