"""Contexts of variables for items, each its own; and that of decimals, which is one object in all of them.

Where the target has left that alone when it was loaded, items run without it: decimal makes one for each that
asks. Else it is shared, as the target wants it, looked at after every item, and put back.
"""

from __future__ import annotations

import contextvars
import decimal
from collections.abc import Callable
from typing import Any, Final

_FIELDS: Final = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp", "traps")
_NAME: Final = "decimal_context"


class Decimals:
    """How it is when this is made."""

    def __init__(self) -> None:
        self._default = _fields(decimal.DefaultContext)
        self.number: decimal.Context = decimal.DefaultContext
        """What items can change: its precision is to be looked at after every one of them."""
        self.is_changed: Callable[[], bool] | None = None
        """To be asked, too, if there is anything to ask. mend() looks at all."""
        known = contextvars.copy_context()
        numbers = next((var for var in known if var.name == _NAME), None)
        if numbers is None or _fields(known[numbers]) == self._default:
            base = contextvars.Context()
            for variable, value in known.items():
                if variable is not numbers:
                    base.run(variable.set, value)
            self.contexts: Callable[[], contextvars.Context] = base.copy
        else:
            self.number = known[numbers]
            self.contexts = contextvars.copy_context
            self.is_changed = _watch(self.number)
        self._before = _fields(self.number)

    def mend(self) -> None:
        """Put back what is not as it was."""
        _put(self.number, self._before)
        _put(decimal.DefaultContext, self._default)


def _watch(shared: decimal.Context) -> Callable[[], bool]:
    """A function that says whether rounding or traps are not as they were."""
    before = shared.copy()  # its traps are a view of it, which does not keep it alive
    rounding = before.rounding

    def is_changed() -> bool:
        return bool(shared.rounding != rounding or shared.traps != before.traps)

    return is_changed


def _fields(context: Any) -> list[Any]:
    return [dict(context.traps) if name == "traps" else getattr(context, name) for name in _FIELDS]


def _put(context: decimal.Context, fields: list[Any]) -> None:
    for name, value, now in zip(_FIELDS, fields, _fields(context), strict=True):
        if now != value:
            setattr(context, name, value)
