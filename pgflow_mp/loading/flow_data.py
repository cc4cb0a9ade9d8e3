"""Flows that are data: an object of slugs, options and import paths becomes a Flow (docs/flow-files.md)."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from types import FrameType, SimpleNamespace
from typing import Any, Final, NamedTuple, cast

import msgspec

from pgflow_mp.errors import FlowDefinitionError, PgflowError
from pgflow_mp.flows import slugs, validation
from pgflow_mp.flows.file_format import FLOW_KEYS, KINDS, START_KEYS, STEP_KEYS, VERSION
from pgflow_mp.flows.flow import Flow
from pgflow_mp.flows.options import FLOW, names
from pgflow_mp.loading.handler_list import HandlerList
from pgflow_mp.values.yamltext import DEPTH

_MOST: Final = 1_000_000
_NOWHERE: Final = cast(FrameType, SimpleNamespace(f_locals={}, f_globals={}))
"""Defines steps: no name is in sight of annotations but those of the handler's own module."""

Way = tuple[str | int, ...]


class Misplaced(Exception):
    """``error`` is about the part of the data at ``place``."""

    def __init__(self, error: PgflowError, place: Way) -> None:
        super().__init__(str(error))
        self.error = error
        self.place = place


def flow_of(data: object, handlers: HandlerList) -> Flow:
    """The flow that ``data`` describes: a mapping, or a struct (msgspec, dataclass) that becomes one.

    Its handlers are import paths, of which ``handlers`` are allowed, or functions. Raises Misplaced with the
    FlowDefinitionError or FlowNotFound.
    """
    return _Builder(handlers).flow(data)


class _Part(NamedTuple):
    """A step or on_start function at ``place``, which ``define`` adds to the flow, given its function."""

    place: Way
    given: dict[str, Any]
    handler: Any
    what: str
    define: Callable[[Callable[..., Any]], None]


class _Builder:
    def __init__(self, handlers: HandlerList) -> None:
        self._handlers = handlers
        self._count = 0
        self._place: Way = ()

    def flow(self, data: object) -> Flow:
        try:
            return self._flow(data)
        except PgflowError as error:
            raise Misplaced(error, self._place) from None

    def _flow(self, data: object) -> Flow:
        if isinstance(data, msgspec.Struct):
            data = msgspec.structs.asdict(data)
        elif dataclasses.is_dataclass(data) and not isinstance(data, type):
            data = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
        if not isinstance(data, Mapping):
            raise FlowDefinitionError(
                f"A flow must be an object, not {_kind(data)}",
                hint="It has a slug and steps: {slug: my_flow, steps: [{handler: app.steps:count}]}.",
            )
        given: dict[str, Any] = self._plain(data, ())
        slug = given.get("slug")
        named = f'Flow "{slug}"' if isinstance(slug, str) and slug else "A flow"
        self._check_known(given, FLOW_KEYS, named, ())
        if "slug" not in given:
            raise FlowDefinitionError("A flow has no slug", hint="It names the flow: slug: my_flow.")
        self._check_version(given)
        self._place = ("slug",)
        slugs.check_flow_slug(slug, former=True)
        self._place = ()
        steps, starts = (self._list(given, name, named) for name in ("steps", "on_start"))
        how = {name: given[name] for name in ("queues", "former_slugs") if given.get(name) is not None}
        options = {name: given[name] for name in names(FLOW) if name in given}
        flow: Flow = self._at((), given, lambda: Flow(slug or "", **how, **options))
        parts = [self._start(start, flow, ("on_start", number)) for number, start in enumerate(starts)]
        parts += [self._step(step, flow, ("steps", number)) for number, step in enumerate(steps)]
        for part in parts:  # all of them are on the list: now something may be imported
            self._place = (*part.place, "handler")
            function = (
                part.handler if callable(part.handler) else self._handlers.load(part.handler, part.what)
            )
            self._at(part.place, part.given, functools.partial(part.define, function))
        self._place = ()
        return flow

    def _check_version(self, given: Mapping[str, Any]) -> None:
        self._place = ("version",)
        version = given.get("version")
        if version is not None and (version != VERSION or isinstance(version, bool | float)):
            raise FlowDefinitionError(
                f"A flow of version {version!r} cannot be read", hint=f"This pgflow_mp reads {VERSION}."
            )
        self._place = ("$schema",)
        if not isinstance(given.get("$schema"), str | None):
            raise FlowDefinitionError("$schema must be a text: it is for editors")
        self._place = ()

    def _list(self, given: Mapping[str, Any], name: str, named: str) -> list[Any]:
        self._place = (name,)
        found = given.get(name)
        if found is None and name == "steps":
            self._place = ()
            raise FlowDefinitionError(
                f"{named} has no steps", hint="A list: steps: [{handler: app.steps:count}]."
            )
        if found is not None and not isinstance(found, list):
            raise FlowDefinitionError(f"{name} of a flow must be a list, not {_kind(found)}")
        self._place = ()
        return found or []

    def _start(self, start: Any, flow: Flow, place: Way) -> _Part:
        named = f'An on_start function of flow "{flow.slug}"'
        given = self._object(start, named, place)
        self._check_known(given, START_KEYS, named, place)
        what = f"{named}: its handler"
        self._check_handler(given.get("handler"), what, place)

        def define(function: Callable[..., Any]) -> None:
            flow._add_start(given.get("name"), function, _NOWHERE)

        return _Part(place, given, given.get("handler"), what, define)

    def _step(self, step: Any, flow: Flow, place: Way) -> _Part:
        slug = step.get("slug") if isinstance(step, dict) else None
        named = f'step "{slug}"' if isinstance(slug, str) and slug else f"{_where(place)}"
        named = f'{named} of flow "{flow.slug}"'
        given = self._object(step, named.replace("step ", "Step ", 1), place)
        kind = given.get("kind") or KINDS[0]
        if not isinstance(kind, str) or kind not in KINDS:
            self._place = (*place, "kind")
            kinds = ", ".join(map(repr, KINDS))
            raise FlowDefinitionError(f"kind of {named} must be one of {kinds}, not {kind!r}")
        title = f'{kind.capitalize()} "{slug}"' if slug else f"{kind.capitalize()} {_where(place)}"
        self._check_known(given, (*STEP_KEYS, *names(kind)), title, place)
        if slug is not None:
            former = flow._steps.former_slugs
            self._at(place, {"slug": slug}, lambda: slugs.check_slug(slug, former=former))
        options = {name: value for name, value in given.items() if name not in STEP_KEYS}
        parents = "over" if kind == "map" else "depends_on"
        if not _are_slugs(options.get(parents), one=kind == "map"):
            self._place = (*place, parents)
            what = "a slug" if kind == "map" else "a slug, or a list of slugs"
            raise FlowDefinitionError(f"{parents} of {named} must be {what}, not {_kind(options[parents])}")
        what = f"Handler of {named}"
        self._check_handler(given.get("handler"), what, place)

        def define(function: Callable[..., Any]) -> None:
            flow._add(kind, slug, function, options, _NOWHERE)

        return _Part(place, given, given.get("handler"), what, define)

    def _check_handler(self, handler: object, what: str, place: Way) -> None:
        self._place = (*place, "handler")
        if not callable(handler):
            self._handlers.check(handler, what)

    def _object(self, given: Any, named: str, place: Way) -> dict[str, Any]:
        self._place = place
        if not isinstance(given, dict):
            raise FlowDefinitionError(
                f"{named} must be an object, not {_kind(given)}",
                hint="For example: {slug: count, handler: app.steps:count}",
            )
        return given

    def _check_known(self, given: Mapping[str, Any], known: tuple[str, ...], named: str, place: Way) -> None:
        self._at(
            place,
            given,
            lambda: validation.check_unknown([name for name in given if name not in known], known, named),
        )

    def _at(self, place: Way, given: Mapping[str, Any], do: Callable[[], Any]) -> Any:
        """Do what may say that something is wrong at ``place``, with one of the options that are given."""
        self._place = place
        try:
            return do()
        except FlowDefinitionError as error:
            self._place = (*place, error.option) if error.option in given else place
            raise

    def _plain(self, value: Any, place: Way) -> Any:
        """A copy in dicts and lists. Raises FlowDefinitionError for what JSON cannot say, handlers aside."""
        self._place = place
        self._count += 1
        where = _where(place)
        if self._count > _MOST:
            raise FlowDefinitionError(f"A flow must not have more than {_MOST:,} values")
        if len(place) > DEPTH:
            raise FlowDefinitionError(f"{where} is nested more than {DEPTH} levels deep")
        if isinstance(value, str):
            if not _is_text(value):
                raise FlowDefinitionError(f"{where} has half of a surrogate pair, which is not a character")
            return value
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            if not math.isfinite(value):
                raise FlowDefinitionError(f"{where} is {value}, which JSON does not have")
            return value
        if isinstance(value, Mapping):
            copy: dict[str, Any] = {}
            for key, item in value.items():
                if not isinstance(key, str) or not _is_text(key):
                    raise FlowDefinitionError(f"{where} has the key {key!r}, which is not a text")
                copy[key] = self._plain(item, (*place, key))
            self._place = place
            return copy
        if isinstance(value, list | tuple):
            return [self._plain(item, (*place, position)) for position, item in enumerate(value)]
        if callable(value) and len(place) == 3 and place[2] == "handler":
            return value
        if isinstance(value, msgspec.Struct):
            return self._plain(msgspec.structs.asdict(value), place)
        raise FlowDefinitionError(f"{where} is a {type(value).__name__}, which JSON does not have")


def _are_slugs(value: object, *, one: bool) -> bool:
    if isinstance(value, str | None):
        return True
    return not one and isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _where(place: Way) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place[:6])
    return text.removeprefix(".").encode(errors="replace").decode()[:100] or "A flow"


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", type(None): "nothing", bool: "true or false"}
    return kinds.get(type(value), f"a {type(value).__name__}")
