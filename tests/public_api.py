"""All that users can reach from what the package exports, and the types that it says there."""

from __future__ import annotations

import ast
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

MODULES: Final = ("pgflow_mp", "pgflow_mp.client", "pgflow_mp.testing")
OURS: Final = "pgflow_mp"
_SPECIAL: Final = ("__init__", "__call__", "__getitem__", "__iter__", "__next__", "__enter__", "__exit__")
_ASYNC: Final = ("__aiter__", "__anext__", "__aenter__", "__aexit__", "__await__", "__contains__", "__len__")


class JsonValue:
    """What Json is to checkers; at run time it is Any, so that it may stand in annotations of handlers."""


class Place(NamedTuple):
    """Something that has a type: a parameter, an answer, an attribute."""

    name: str
    hint: Any


def reachable() -> tuple[list[type], list[Place]]:
    """The classes of ours that users get to see, beginning with those exported, and all their types."""
    waiting: list[tuple[str, Any]] = []
    for module in MODULES:
        loaded = import_module(module)
        waiting += [(name, getattr(loaded, name)) for name in loaded.__all__]
    classes: dict[type, None] = {}
    places: list[Place] = []
    seen: set[int] = set()
    while waiting:
        name, thing = waiting.pop(0)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        found = []
        if isinstance(thing, type):
            classes[thing] = None
            found = list(_of_class(thing))
        elif callable(thing):
            found = list(_of_function(name, thing))
        places += found
        for place in found:
            waiting += [(each.__name__, each) for each in _classes_in(place.hint)]
    return list(classes), places


def _of_class(owner: type) -> Iterator[Place]:
    for base in owner.__mro__:
        if not base.__module__.startswith(OURS):
            continue
        for name, hint in _hints(base).items():
            if not name.startswith("_"):
                yield Place(f"{owner.__name__}.{name}", hint)
        for name, value in vars(base).items():
            if name.startswith("_") and name not in (*_SPECIAL, *_ASYNC):
                continue
            function = value
            for inner in ("__func__", "fget", "func"):  # methods of classes, properties, cached properties
                function = getattr(function, inner, function)
            if isinstance(function, types.FunctionType) and function.__module__.startswith(OURS):
                yield from _of_function(f"{owner.__name__}.{name}", function)


def _of_function(name: str, function: Callable[..., Any]) -> Iterator[Place]:
    function = inspect.unwrap(function)
    for each in typing.get_overloads(function) or [function]:
        for parameter, hint in _hints(each).items():
            yield Place(f"{name}({parameter})", hint)


def _hints(thing: Any) -> dict[str, Any]:
    """The annotations that it has itself, evaluated where it is defined."""
    own = vars(thing).get("__annotations__", {}) if isinstance(thing, type) else thing.__annotations__
    names = {
        **_for_checkers(thing.__module__),
        **vars(sys.modules.get(thing.__module__, typing)),
        "Json": JsonValue,
    }
    texts = {name: getattr(hint, "__forward_arg__", hint) for name, hint in own.items()}
    return {name: eval(hint, names) if isinstance(hint, str) else hint for name, hint in texts.items()}


_KNOWN: Final[dict[str, dict[str, Any]]] = {}


def _for_checkers(module: str) -> dict[str, Any]:
    """What a module imports or defines for type checkers only: all of it where nothing else can import it."""
    if module in _KNOWN:
        return _KNOWN[module]
    names = _KNOWN[module] = {}
    scope: dict[str, Any] = {"__name__": module, "TYPE_CHECKING": True}
    body = _source(module).body
    if _loads(module):
        scope |= vars(sys.modules[module])
        body = [line for node in body if _is_for_checkers(node) for line in node.body]
    for line in body:
        found: dict[str, Any] = {}
        if isinstance(line, ast.ImportFrom) and str(line.module).startswith(OURS):
            found = {each.asname or each.name: _named(str(line.module), each.name) for each in line.names}
        else:
            before = dict(scope)
            exec("from __future__ import annotations\n" + ast.unparse(line), scope)
            found = {name: value for name, value in scope.items() if before.get(name) is not value}
        scope |= found
        names |= found
    return names


def _is_for_checkers(node: ast.stmt) -> typing.TypeGuard[ast.If]:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _source(module: str) -> ast.Module:
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text(encoding="utf-8"))


def _loads(module: str) -> bool:
    try:
        import_module(module)
    except ImportError:  # it imports what is there for type checkers only
        return False
    return True


def _named(module: str, name: str) -> Any:
    found = getattr(sys.modules[module], name, None) if _loads(module) else None
    return _for_checkers(module)[name] if found is None else found


def parts(hint: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield hint
    inner = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    if isinstance(hint, typing.TypeVar):
        inner = (*hint.__constraints__, *([hint.__bound__] if hint.__bound__ is not None else []))
    if typing.get_origin(hint) is typing.Literal:
        return
    for each in inner:
        yield from parts(each)


def _classes_in(hint: Any) -> Iterator[type]:
    for part in parts(hint):
        origin = typing.get_origin(part) or part
        if isinstance(origin, type) and origin.__module__.startswith(OURS):
            yield origin


def holds_any(hint: Any) -> bool:
    return any(part is Any for part in parts(hint))
