"""What an annotation means where its function was defined."""

from __future__ import annotations

import builtins
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any


def resolve(annotation: Any, handler: Callable[..., Any], names: Mapping[str, Any] | None = None) -> Any:
    """The type behind ``annotation``; strings are looked up where the handler was defined.

    ``names`` are further names in sight. Raises what evaluating the annotation raises (NameError, ...).
    """
    if annotation is inspect.Parameter.empty:
        return Any
    if type(annotation) is type:  # a plain class is what it is, and most are
        return annotation
    function = _function(handler)
    scope = dict(names or {})
    if isinstance(function, types.FunctionType):
        scope.update(_closure(function))
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    space = getattr(function, "__globals__", None) or (vars(module) if module else {})
    if isinstance(annotation, str) and annotation.isidentifier():  # a name, of a plain class mostly
        for names_in_sight in (scope, space, vars(builtins)):
            if annotation in names_in_sight:
                found = names_in_sight[annotation]
                if type(found) is type:
                    return found
                break
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, globalns=space, localns=scope, include_extras=True)["it"]


def _function(handler: Any) -> Any:
    """The plain function behind a wrapper, a partial, a method or a callable object."""
    target = inspect.unwrap(handler)
    while hasattr(target, "func") and not isinstance(target, types.FunctionType):
        target = inspect.unwrap(target.func)
    if isinstance(target, types.MethodType):
        return target.__func__
    if isinstance(target, type):
        return target
    if not isinstance(target, types.FunctionType | types.BuiltinFunctionType):
        call = type(target).__call__
        return call if isinstance(call, types.FunctionType) else target
    return target


def _closure(function: types.FunctionType) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return names
