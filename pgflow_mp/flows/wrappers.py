"""What a handler can be called with, where decorators stand around it.

A decorator that passes on all it is given (``*args``, ``**kwargs``) has the parameters of what it wraps, but
may give some of them itself: a session, a generator of random numbers. Those it mentions by name, or puts
in front of the others; what they are is read from its code, since no signature tells.
"""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_CONTEXTS: Final = ("ctx", "context")
_READS: Final = ("BINARY_SUBSCR", "CONTAINS_OP", "DELETE_SUBSCR")
_READERS: Final = ("get", "pop")
_CALLS: Final = ("CALL_FUNCTION_EX",)


@dataclass(frozen=True, slots=True)
class Calling:
    """The parameters by which a handler is called, and how.

    ``given`` are names that a decorator seems to give itself; ``may_give`` says that it gives something, and
    ``in_front`` that it puts something before what it was called with.
    Arguments can be passed by position or by name if ``by_position`` or ``by_name`` says so.
    """

    parameters: tuple[inspect.Parameter, ...]
    given: frozenset[str] = frozenset()
    may_give: bool = False
    in_front: bool = False
    by_position: bool = True
    by_name: bool = True


def calling_of(handler: Callable[..., Any]) -> Calling:
    """How ``handler`` is called. Raises TypeError or ValueError for builtins that do not tell."""
    layer: Any = handler
    given: set[str] = set()
    may_give, in_front, by_position, by_name = False, False, True, True
    asked: list[inspect.Parameter] = []
    while (wrapped := getattr(layer, "__wrapped__", None)) is not None:
        parameters = _own_parameters(layer)
        if parameters is not None:
            kinds = {parameter.kind for parameter in parameters}
            if not kinds.intersection(_VARIADIC):
                break
            by_position = by_position and inspect.Parameter.VAR_POSITIONAL in kinds
            by_name = by_name and inspect.Parameter.VAR_KEYWORD in kinds
            asked += _asked_for(parameters, wrapped)
            names, more, front = _gives(layer)
            given |= names
            may_give, in_front = may_give or more, in_front or front
        layer = wrapped
    own = inspect.signature(layer, follow_wrapped=False).parameters.values()
    return Calling((*asked, *own), frozenset(given), may_give, in_front, by_position, by_name)


def _own_parameters(layer: Any) -> list[inspect.Parameter] | None:
    """Those of a decorator itself; None for one that is not written in Python, and passes on all."""
    if isinstance(layer, functools._lru_cache_wrapper):
        return None
    try:
        return list(inspect.signature(layer, follow_wrapped=False).parameters.values())
    except (TypeError, ValueError):
        return None


def _asked_for(parameters: list[inspect.Parameter], wrapped: Any) -> list[inspect.Parameter]:
    """What a decorator asks for besides the parameters of what it wraps: the context, as a rule."""
    inner = inspect.signature(wrapped).parameters
    return [
        parameter
        for parameter in parameters
        if parameter.name not in inner
        and (parameter.kind is inspect.Parameter.KEYWORD_ONLY or parameter.name in _CONTEXTS)
    ]


def _gives(layer: Any) -> tuple[set[str], bool, bool]:
    """The names that a decorator's code mentions, whether it may give anything at all, and in front."""
    function = layer if isinstance(layer, types.FunctionType) else vars(type(layer)).get("__call__")
    if not isinstance(function, types.FunctionType):
        return set(), not isinstance(layer, functools._lru_cache_wrapper), False
    code = list(dis.get_instructions(function.__code__))
    names: set[str] = set()
    for before, here, after in zip([None, *code], code, [*code[1:], None], strict=False):
        if here.opname not in ("LOAD_CONST", "KW_NAMES"):
            continue
        value = here.argval if here.opname == "LOAD_CONST" else function.__code__.co_consts[here.arg or 0]
        if isinstance(value, tuple):
            names.update(name for name in value if isinstance(name, str))
        elif isinstance(value, str):
            is_read = (after is not None and after.opname in _READS) or (
                before is not None and before.argval in _READERS
            )
            if not is_read:
                names.add(value)
    calls = [instruction.opname for instruction in code]
    more = (
        "LIST_EXTEND" in calls  # f(session, *args)
        or "DICT_UPDATE" in calls  # f(*args, **{**kwargs, **more})
        or "update" in function.__code__.co_names
        or not set(calls).intersection(_CALLS)  # called elsewhere
    )
    in_front = "LIST_EXTEND" in calls
    if in_front:
        names.update(function.__code__.co_varnames)
        names.update(function.__code__.co_cellvars)
    return names, more or bool(names), in_front
