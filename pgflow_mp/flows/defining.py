"""What the decorators of a flow have in common: who is defining, and what becomes of what they are given."""

from __future__ import annotations

import sys
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Generic

from pgflow_mp.flows.typed import In

_NOT_THEIRS: Final = ("pgflow_mp.flows.", "typing")


class Defining(Generic[In]):
    """A flow that is being defined, whose runs are given an In."""

    if TYPE_CHECKING:

        @property
        def _input(self) -> In: ...

    def _define(self, kind: str, slug: Any, handler: Any, options: dict[str, Any]) -> Any:
        """Add a step, at once or when the decorator that is returned is called."""
        if callable(slug) and handler is None:
            self._add(kind, None, slug, options, calling_frame())
            return slug
        if handler is not None:
            self._add(kind, slug, handler, options, calling_frame())
            return self

        def decorate(function: Any) -> Any:
            self._add(kind, slug, function, options, calling_frame())
            return function

        return decorate

    def _add(self, kind: str, slug: Any, handler: Any, options: dict[str, Any], caller: FrameType) -> None:
        raise NotImplementedError


def calling_frame() -> FrameType:
    """The frame of the user's code that is defining something."""
    frame = sys._getframe(1)
    while _is_ours(frame.f_globals.get("__name__")) and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _is_ours(module: object) -> bool:
    return isinstance(module, str) and module.startswith(_NOT_THEIRS)
