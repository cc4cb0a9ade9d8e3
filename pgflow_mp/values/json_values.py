"""The type of what JSON says, where no annotation says what it means.

What a program is answered by the name of a step alone is this: dicts, lists, texts, numbers, booleans, None.
Checkers narrow it by ``isinstance`` and ``match``. What a program gives is ``object`` instead: anything that
a handler could return, and lists of one type are no lists of another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

__all__ = ["Json"]

if TYPE_CHECKING:
    Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
else:
    Json = Any  # in a handler's annotations it says nothing
