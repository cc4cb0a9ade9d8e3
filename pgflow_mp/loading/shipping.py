"""Flows that no other process can import, sent to the worker's processes as what they are made of.

By cloudpickle, an extra, and only where the user says so. It goes from this process to those that it
starts, with what they are started with: never through the database, so that nobody who can write there has
code executed here.
"""

from __future__ import annotations

import io
import pickle
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from pgflow_mp.errors import ConfigError, FlowDefinitionError
from pgflow_mp.flows import handlers
from pgflow_mp.flows.flow import Flow
from pgflow_mp.installed import pip_install
from pgflow_mp.loading import reentry
from pgflow_mp.loading.targets import Target, here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

WAYS: Final = ("cloudpickle",)
_CACHE: Final = "__msgspec_cache__"  # what msgspec knows of a class
_NAME: Final = re.compile(r"[A-Za-z_]\w*")


def check_way(ship: str | None) -> bool:
    """Whether a flow is to be shipped. Raises ConfigError for a way that there is not."""
    if ship is not None and ship not in WAYS:
        raise ConfigError(
            f"ship must be 'cloudpickle' or None, not {ship!r}", hint='Give ship="cloudpickle".'
        )
    return ship is not None


def shipped_target() -> Target:
    """Stands for what is sent, which imports what is in the working directory."""
    return Target(module="shipped", directory=here())


def pack(flow: Flow) -> bytes:
    """The flow with its functions, and all of ``__main__`` that they use.

    Raises ConfigError where cloudpickle is missing, and FlowDefinitionError for what cannot be pickled.
    """
    try:
        import cloudpickle
    except ImportError:
        raise ConfigError(
            "Flows are sent to the worker processes with cloudpickle, which is not installed",
            hint=f"Install it: {pip_install('notebook')}",
        ) from None
    try:
        return _dumped(cloudpickle, (flow, _annotated(flow)))
    except Exception as error:
        raise FlowDefinitionError(
            f'Flow "{flow.slug}" cannot be sent to the worker processes: {type(error).__name__}: {error}',
            hint="Its functions use something that belongs to this process (a connection, a lock, an open "
            "file): make it in them, or with @flow.on_start.",
        ) from error


def _dumped(cloudpickle: Any, value: Any) -> bytes:
    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, type) and _CACHE in vars(obj):
                delattr(obj, _CACHE)  # it is made again when it is needed, and cannot be pickled
            return super().reducer_override(obj)

    buffer = io.BytesIO()
    Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(value)
    return buffer.getvalue()


def unpack(data: bytes) -> Flow:
    """The flow, in another process. Raises FlowDefinitionError."""
    with reentry.importing("a flow that was sent by cloudpickle"):
        try:
            import cloudpickle

            flow, names = cloudpickle.loads(data)
        except Exception as error:
            raise FlowDefinitionError(
                f"The flow that was sent cannot be loaded here: {type(error).__name__}: {error}",
                hint="Modules that it uses have to be importable by worker processes.",
            ) from error
        main = sys.modules["__main__"]
        for name, value in names.items():
            if not hasattr(main, name):
                setattr(main, name, value)
        for function in _functions(flow):
            for name, value in names.items():
                getattr(function, "__globals__", {}).setdefault(name, value)
        handlers.check(flow)
        found: Flow = flow
        return found


def _functions(flow: Flow) -> Iterable[Callable[..., Any]]:
    starting = [start.function for start in flow.start_functions.values()]
    return [*starting, *(step.handler for step in flow.steps.values())]


def _annotated(flow: Flow) -> dict[str, Any]:
    """What annotations of ``__main__`` name that are texts: cloudpickle looks into code only."""
    main = vars(sys.modules["__main__"])
    names: dict[str, Any] = {}
    todo: list[Any] = [*_functions(flow)]
    while todo:
        for text in getattr(todo.pop(), "__annotations__", {}).values():
            for name in _NAME.findall(text) if isinstance(text, str) else ():
                if name in main and name not in names:
                    names[name] = main[name]
                    todo.append(main[name])
    return names
