"""Importing the flows of a target, and finding the target of a flow that is at hand.

Lanes load by text, so everything that a flow needs has to be reachable by importing a module or
running a file: flows are module-level variables.
"""

from __future__ import annotations

import inspect
import os
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from pgflow_mp.errors import FlowDefinitionError, FlowNotFound
from pgflow_mp.flows import handlers
from pgflow_mp.flows.flow import Flow
from pgflow_mp.installed import pip_install
from pgflow_mp.loading.importing import FILE_PREFIX, import_target, place_first, place_of
from pgflow_mp.loading.targets import Target, bundled_examples, here, resolve_app

__all__ = ["Target", "bundled_examples", "load_app", "load_flows", "resolve_app", "target_for"]


def load_flows(
    target: Target | str, *, main_path: str | None = None, may_be_main: bool = False
) -> list[Flow]:
    """Import a target and return its flows: the one that it names, or all module-level ones.

    ``main_path`` is the script to run for the target ``__main__`` (under the name ``__mp_main__``, as
    multiprocessing does); a file that cannot be imported by its name ``may_be_main`` likewise. The flow must
    have steps, and the handlers' annotations are checked.
    Raises FlowNotFound, or FlowDefinitionError as the module raised it.
    """
    if isinstance(target, str):
        target = Target.parse(target)
    if target.is_data:
        return [_of_file(target)]
    module = import_target(target, main_path, may_be_main=may_be_main)
    flows = _collect(module, str(target.module or target.file))
    if target.flow is not None:
        flows = {target.flow: _choose(module, flows, target)}
    if not flows:
        raise FlowNotFound(
            f"{place_first(target)} has no flow",
            hint='A flow is a module-level variable: flow = Flow("name").',
        )
    chosen = list(flows.values())
    for flow in chosen:
        handlers.check(flow)
    return chosen


def _of_file(target: Target) -> Flow:
    from pgflow_mp.loading import flow_files  # few processes load such flows

    flow = flow_files.load(target)
    if target.flow not in (None, flow.slug):
        raise FlowNotFound(
            f'{place_first(target)} has no flow "{target.flow}"',
            hint=f"The flow of this file is {flow.slug}.",
        )
    handlers.check(flow)
    return flow


def load_app(targets: Iterable[Target]) -> list[Flow]:
    """The flows of several targets; two of them must not have the same slug."""
    flows = {id(flow): flow for target in targets for flow in load_flows(target)}
    _check_slugs(flows.values())
    return list(flows.values())


def target_for(flow: Flow) -> Target:
    """The target by which another process finds ``flow``. Raises FlowNotFound if there is none.

    Raises ConfigError where the working directory is gone.
    """
    here()
    if flow.module == "__mp_main__":
        raise FlowNotFound(
            f'Flow "{flow.slug}" was started while a worker process was importing its script',
            hint="Start it under: if __name__ == '__main__':",
        )
    if flow.is_data:
        from pgflow_mp.loading import flow_files

        if (place := flow_files.target_of(flow)) is not None:
            return place
    for name, namespace in _namespaces(flow):
        if any(value is flow for value in namespace.values()):
            return target_in(flow.slug, name, namespace)
    if flow.file is None or flow.file.startswith("<"):
        raise _not_in_a_file(flow.slug)
    raise FlowNotFound(
        f'Flow "{flow.slug}" is not a module-level variable of {flow.file}',
        hint="Worker processes import flows: assign it at the top level of a module.",
    )


def _namespaces(flow: Flow) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where the flow may be a variable: (name, contents) of modules.

    Not all are in sys.modules: programs that run another one (profilers, debuggers) are ``__main__``
    themselves. Its handlers know where they were defined.
    """
    for name in (flow.module, *list(sys.modules)):
        module = sys.modules.get(name)
        if isinstance(module, types.ModuleType):
            yield name, vars(module)
    for step in flow.steps.values():
        namespace = getattr(inspect.unwrap(step.handler), "__globals__", None)
        if isinstance(namespace, dict):
            yield str(namespace.get("__name__")), namespace


def target_in(slug: str, name: str, namespace: dict[str, Any]) -> Target:
    """The target of what has this slug, or name, in a module.

    Raises FlowNotFound where that is in no file.
    """
    spec, file = namespace.get("__spec__"), namespace.get("__file__")
    if not isinstance(file, str) or not _is_there(file):
        raise _not_in_a_file(slug)
    if name in ("__main__", "__mp_main__"):
        if spec is not None and spec.name not in ("__main__", "__mp_main__"):  # python -m package.module
            return Target(module=spec.name, flow=slug)
        return Target(module="__main__", file=os.path.abspath(file), flow=slug)
    if spec is None or name.startswith(FILE_PREFIX) or name not in sys.modules:
        return Target(file=os.path.abspath(file), flow=slug)
    return Target(module=name, flow=slug)


def _is_there(file: str) -> bool:
    """Whether it is a file, or in an archive that Python imports from."""
    while file and not os.path.lexists(file):
        file = os.path.dirname(file)
    return os.path.isfile(file)


def _not_in_a_file(slug: str) -> FlowNotFound:
    return FlowNotFound(
        f'Flow "{slug}" is defined in a notebook, at a prompt or on standard input; '
        "worker processes cannot import it",
        hint="Put the flow and its functions into a file, as flows.py, and import it here. Or give "
        f'ship="cloudpickle", which sends it to them, and install that: {pip_install("notebook")}',
    )


def _collect(module: types.ModuleType, place: str) -> dict[str, Flow]:
    flows: dict[int, Flow] = {}
    for value in list(vars(module).values()):
        if isinstance(value, Flow):
            flows.setdefault(id(value), value)
    _check_slugs(flows.values(), f" in {place}")
    return {flow.slug: flow for flow in flows.values()}


def _check_slugs(flows: Iterable[Flow], where: str = "") -> None:
    seen: dict[str, Flow] = {}
    for flow in flows:
        other = seen.setdefault(flow.slug.lower(), flow)
        if other is flow:
            continue
        files = " and ".join(sorted({str(other.file), str(flow.file)}))
        if other.slug == flow.slug:
            raise FlowDefinitionError(
                f'Two flows{where} have the slug "{flow.slug}"', hint=f"They are defined in {files}."
            )
        raise FlowDefinitionError(
            f'Flows "{other.slug}" and "{flow.slug}"{where} differ only in case',
            hint=f"They would share one queue; rename one. They are defined in {files}.",
        )


def _choose(module: types.ModuleType, flows: dict[str, Flow], target: Target) -> Flow:
    name = target.flow or ""
    value = vars(module).get(name)
    if isinstance(value, Flow):
        return value
    if name in flows:
        return flows[name]
    if value is not None:
        raise FlowNotFound(
            f'"{name}" in {place_of(target)} is a {type(value).__name__}, not a flow',
            hint=f"Flows there: {', '.join(flows) or 'none'}.",
        )
    import difflib

    close = difflib.get_close_matches(name, flows, 1)
    guess = f"Did you mean {close[0]}? " if close else ""
    raise FlowNotFound(
        f'{place_first(target)} has no flow "{name}"',
        hint=f"{guess}Flows there: {', '.join(flows) or 'none'}.",
    )
