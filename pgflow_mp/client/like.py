"""Classes that mirror others: what is said of a method there is said here, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

C = TypeVar("C", bound=type)


def like(other: type) -> Callable[[C], C]:
    """Give methods and properties without a docstring that of the same name in ``other``."""

    def documented(made: C) -> C:
        for name, member in vars(made).items():
            text = getattr(getattr(other, name, None), "__doc__", None)
            if name.startswith("_") or member.__doc__ or not text:
                continue
            if isinstance(member, property):
                setattr(made, name, property(member.fget, doc=text))
            else:
                member.__doc__ = text
        return made

    return documented
