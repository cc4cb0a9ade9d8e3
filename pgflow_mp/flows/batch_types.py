"""What the handler of a map with ``batch=`` may say that it receives and answers: lists, an element an item.

In doubt (a TypeVar, a protocol, a class that is none of a known kind where any of it may be meant) an
annotation passes.
"""

from __future__ import annotations

import collections
import collections.abc
import inspect
import types
import typing
from typing import Any, Final

from pgflow_mp.errors import FlowDefinitionError
from pgflow_mp.flows.annotations import plain
from pgflow_mp.values import frames

_ORDERED: Final = (
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Reversible,
    collections.abc.Collection,
    collections.abc.Container,
    collections.abc.Sized,
    collections.abc.Iterable,
    collections.abc.Iterator,
    collections.abc.Generator,
    object,
    Any,
)
_FAILURE: Final = "Failed"
"""Our class of results that say that their item failed."""


def check_received(wanted: Any, name: str, where: str) -> None:
    """Refuse a parameter that cannot hold a batch. ``where`` names the handler."""
    if not holds_items(wanted):
        raise FlowDefinitionError(
            f'{where}: parameter "{name}" receives a list of items, since the map has batch=, yet it is '
            f"annotated {inspect.formatannotation(wanted)}",
            hint=f"Annotate it {_list_of(wanted)} or numpy.ndarray, or remove batch=.",
        )


def check_answered(wanted: Any, where: str) -> None:
    """Refuse a result that is not one for each item of a batch."""
    if wanted is None or not holds_items(wanted):
        raise FlowDefinitionError(
            f"{where} returns {inspect.formatannotation(wanted)} by its annotation, yet the map has batch=: "
            "a batch is answered with a list, a result an item",
            hint=f"Return {_list_of(wanted)}, or remove batch=.",
        )


def refuse_members(name: str, where: str) -> FlowDefinitionError:
    """The error about ``**row``, which receives the members of one object."""
    return FlowDefinitionError(
        f"{where}: parameter **{name} receives the members of an item, yet the map has batch=, whose items "
        "come as one list",
        hint="Take the list by a parameter of its own, or remove batch=.",
    )


def holds_items(annotation: Any) -> bool:
    """Whether an annotation is a list of items in their order, or may be one."""
    annotation = plain(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return any(map(holds_items, args))
    if annotation is None or origin is typing.Literal:
        return False
    kind = origin or annotation
    if not isinstance(kind, type) or kind in _ORDERED or getattr(kind, "_is_protocol", False):
        return True
    if issubclass(kind, tuple):
        return kind is tuple and (not args or args[-1] is Ellipsis)
    if frames.shape_of(kind) or frames.library_of(kind) == "numpy":
        return bool(frames.shape_of(kind)) or kind.__name__ == "ndarray"
    is_sequence = issubclass(kind, collections.abc.Sequence | collections.deque)
    return is_sequence and not issubclass(kind, str | bytes | bytearray | memoryview)


def item_of(annotation: Any) -> Any:
    """The type of one item's result, of what a handler of batches returns; Any where it does not say."""
    annotation = plain(annotation)
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        found = [item_of(arg) for arg in args if holds_items(arg)]
        return found[0] if len(found) == 1 else Any
    kind = origin or annotation
    if not args or not isinstance(kind, type) or frames.library_of(kind) in frames.LIBRARIES:
        return Any
    return _stored(args[0]) if holds_items(annotation) else Any


def _stored(item: Any) -> Any:
    """Without what stands for a failure: none of it is an output."""
    if typing.get_origin(plain(item)) not in (typing.Union, types.UnionType):
        return item
    kept = tuple(arg for arg in typing.get_args(plain(item)) if not _is_failure(arg))
    return typing.Union[kept] if kept else Any  # noqa: UP007 - of a tuple


def _is_failure(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    ours = kind.__module__ == "pgflow_mp.flows.failures" and kind.__name__ == _FAILURE
    return ours or issubclass(kind, BaseException)


def _list_of(wanted: Any) -> str:
    wanted = plain(wanted)
    return f"list[{inspect.formatannotation(wanted)}]" if isinstance(wanted, type) else "list[...]"
