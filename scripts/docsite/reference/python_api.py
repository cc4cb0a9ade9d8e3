"""Pages of the Python API: every public name with its signature and docstring, read by Sphinx's autodoc.

What signatures name of this package is documented beside it, found from one to the next.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_overloads, is_typeddict

import msgspec

import pgflow_mp
from docsite.docstrings import render
from docsite.reference.commands import helps
from docsite.rst import heading, prose
from docsite.staging import Stage
from pgflow_mp import testing
from pgflow_mp.flows.options import OPTIONS

FOLDER = "reference/python"


class Area(NamedTuple):
    """A page: public names of a module that belong together."""

    slug: str
    title: str
    about: str
    names: tuple[str, ...]
    home: str
    """Beginning of the modules whose other public names are here, too."""
    module: str = "pgflow_mp"


AREAS = (
    Area(
        "flows",
        "Flows and steps",
        "What a flow is made of. Writing one: :doc:`/flows`; what its steps can be told: :doc:`/options`.",
        ("Flow", "Context", "Artifact", "Failed"),
        "pgflow_mp.flows",
    ),
    Area(
        "run",
        "Running here",
        "A run in this process, to its end. More in :doc:`/python`.",
        ("run", "FinishedItem"),
        "pgflow_mp.run",
    ),
    Area(
        "client",
        "Client",
        "Starts runs, follows and steers them, whoever works on them. More in :doc:`/client`.",
        ("Client",),
        "pgflow_mp.client",
    ),
    Area(
        "async-client",
        "AsyncClient",
        "The same for programs with an event loop.",
        ("AsyncClient",),
        "pgflow_mp.client.async_",
    ),
    Area(
        "jobs",
        "Background jobs",
        "Plain jobs of a queue. More in :doc:`/jobs`.",
        ("QueueWorker", "Exponential", "Fixed"),
        "pgflow_mp.client.job",
    ),
    Area(
        "testing",
        "Testing",
        "What tests of flows need. More in :doc:`/python`.",
        tuple(testing.__all__),
        "pgflow_mp.testing",
        "pgflow_mp.testing",
    ),
    Area(
        "exceptions",
        "Exceptions",
        "All are a :exc:`PgflowError`, whose ``hint`` says what to do.",
        ("PgflowError",),
        "pgflow_mp.errors",
    ),
)


FORMS: dict[str, tuple[str, ...]] = {
    "Flow.step": (
        "(handler, /)",
        "(slug=None, **options: Unpack[StepOptions])",
        "(slug, handler, **options)",
    ),
    "Flow.array": (
        "(handler, /)",
        "(slug=None, **options: Unpack[StepOptions])",
        "(slug, handler, **options)",
    ),
    "Flow.map": ("(handler, /)", "(slug=None, **options: Unpack[MapOptions])", "(slug, handler, **options)"),
}
"""How to call what has many overloads, which are for type checkers and tell people nothing."""
MANY = 4


def names_of(area: Area) -> list[str]:
    """The public names of an area: those that it names, then others that come from there."""
    if area.module != "pgflow_mp":
        return list(area.names)
    placed = {name for each in AREAS for name in each.names}
    others = [name for name in pgflow_mp.__all__ if name not in placed]
    return [*area.names, *(name for name in others if _home(name) is area)]


def _home(name: str) -> Area:
    """The area of a public name that none names: the first one whose package it comes from."""
    module = pgflow_mp._LAZY.get(name, "pgflow_mp.errors")
    return next((area for area in AREAS if module.startswith(area.home)), AREAS[0])


def _has_many_forms(member: object) -> bool:
    return inspect.isfunction(member) and len(get_overloads(member)) > MANY


def write(stage: Stage) -> str:
    """Write the pages; the place of their overview."""
    documented: set[str] = {name for area in AREAS for name in names_of(area)}
    overview = [heading("Python"), "Everything here is imported ``from pgflow_mp``, if not said otherwise.\n"]
    for area in AREAS:
        objects = [getattr(importlib.import_module(area.module), name) for name in names_of(area)]
        found = list(types_of(objects, documented))
        stage.write(f"{FOLDER}/{area.slug}.rst", "\n".join(_page(area, found)))
        overview += [f":doc:`{area.title} <{area.slug}>`", f"   {', '.join(names_of(area))}", ""]
    overview += [".. toctree::", "   :hidden:", "", *(f"   {area.title} <{area.slug}>" for area in AREAS), ""]
    stage.write(f"{FOLDER}/index.rst", "\n".join(overview))
    return f"{FOLDER}/index.rst"


def _page(area: Area, found: list[type]) -> Iterator[str]:
    yield heading(area.title)
    yield f".. py:currentmodule:: {area.module}\n"
    yield f"{area.about}\n"
    if area.module != "pgflow_mp":
        yield f"Imported ``from {area.module}``.\n"
    for name in names_of(area):
        yield from _documented(getattr(importlib.import_module(area.module), name), f"{area.module}.{name}")
    if found:
        yield heading("What these take and answer", "-")
        for each in found:
            yield from _documented(each, f"{each.__module__}.{each.__qualname__}", "~")


def _documented(value: Any, path: str, line: str = "-") -> Iterator[str]:
    name = path.rpartition(".")[2]
    yield heading(name, line)
    if not inspect.isroutine(value) and (not inspect.isclass(value) or value.__name__ != name):
        about = inspect.getdoc(importlib.import_module(pgflow_mp._LAZY[name])) or ""
        yield f".. py:type:: {path}\n\n{textwrap.indent(about, '   ')}\n"
        return
    if not inspect.isclass(value):
        yield f".. autofunction:: {path}\n"
        return
    if is_typeddict(value):
        yield from _keys(value, path)
        return
    groups = list(_groups(value))
    yield f".. autoclass:: {path}"
    if len(groups) < 2:
        data = is_dataclass(value) or issubclass(value, msgspec.Struct | tuple)
        yield "   :members:\n" + ("   :undoc-members:\n" if data else "")
        return
    yield ""
    for part, members in groups:
        if not (title := first_sentence(part)).startswith("``") and part is not value:
            yield f"   .. rubric:: {title}\n"
        for member in members:
            if _has_many_forms(inspect.getattr_static(value, member)):
                yield from _forms(getattr(value, member), f"{name}.{member}")
                continue
            kind = (
                "autoproperty"
                if isinstance(inspect.getattr_static(value, member), property)
                else "automethod"
            )
            yield f"   .. {kind}:: {path}.{member}\n"


def _forms(member: Any, name: str) -> Iterator[str]:
    """A method of many overloads, as it is called."""
    forms = [f"{name}{form}" for form in FORMS.get(name, (str(inspect.signature(member)),))]
    yield "   .. py:method:: " + "\n                  ".join(forms) + "\n"
    lines = (inspect.getdoc(member) or "").splitlines()
    render(None, "", "", None, None, lines)
    yield textwrap.indent("\n".join(lines), "      ") + "\n"


def _keys(value: type, path: str) -> Iterator[str]:
    """What a TypedDict may have: the options of a call."""
    module, _, name = path.rpartition(".")
    yield f".. py:class:: {name}\n   :module: {module}\n"
    yield textwrap.indent(inspect.getdoc(value) or "", "   ") + "\n"
    told, like = {option.name: option for option in OPTIONS}, helps()
    for name, kind in value.__annotations__.items():
        yield f"   .. py:attribute:: {name}"
        yield f"      :type: {getattr(kind, '__forward_arg__', kind)}\n"
        if option := told.get(name):
            takes = f"{prose(option.takes)}; default: {prose(option.default)}"
            yield f"      {prose(option.help)} ({takes})\n"
        elif name in like:
            yield f"      {like[name]}\n"


def _groups(value: type) -> Iterator[tuple[type, list[str]]]:
    """The parts that a class is put together of, with the public methods that each brings."""
    for part in (*value.__mro__[1:], value):
        if part.__module__.startswith("pgflow_mp.") and not issubclass(value, BaseException):
            members = [name for name, it in vars(part).items() if not name.startswith("_") and _is_method(it)]
            if members:
                yield part, members


def _is_method(value: object) -> bool:
    return inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod)


def first_sentence(value: Any) -> str:
    """The first sentence of a docstring, without its full stop."""
    return re.split(r"[.:](?:\s|$)", inspect.getdoc(value) or "", maxsplit=1)[0]


def is_made_by_users(value: type) -> bool:
    """Whether its constructor is for users; what is plain data shows its fields there."""
    public = value.__name__ in pgflow_mp.__all__ or value.__name__ in testing.__all__
    return public or is_dataclass(value) or issubclass(value, msgspec.Struct)


# -- which types belong to the public names ------------------------------------------------------------


@cache
def classes() -> dict[str, str]:
    """The module of each class of the package; no two have one name (tests/test_hygiene.py)."""
    package = Path(pgflow_mp.__file__).parent
    found = {}
    for path in sorted(package.rglob("*.py")):
        module = ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name] = module
    return found


def types_of(objects: Iterable[Any], documented: set[str]) -> Iterator[type]:
    """The classes of the package that public signatures name, and those that these name, and so on.

    They are added to ``documented``, what is documented already.
    """
    waiting = list(objects)
    while waiting:
        for name in _named_in(waiting.pop(0)):
            if name in classes() and name not in documented:
                documented.add(name)
                found = getattr(importlib.import_module(classes()[name]), name)
                waiting.append(found)
                yield found


def _named_in(value: Any) -> list[str]:
    """The names in capitals of its annotations."""
    texts = []
    for part in value.__mro__ if inspect.isclass(value) else ():
        if part.__module__.startswith("pgflow_mp."):
            texts += [str(base) for base in vars(part).get("__orig_bases__", ())]
            fields = inspect.get_annotations(part)
            texts += [str(kind) for name, kind in fields.items() if not name.startswith("_")]
            texts += [
                str(kind)
                for name, member in vars(part).items()
                if not name.startswith("_") and _is_method(member)
                for kind in _annotations(member)
            ]
    if inspect.isclass(value) and is_made_by_users(value):
        texts += [str(kind) for kind in _annotations(value.__init__)]
    if inspect.isfunction(value):
        texts += [str(kind) for kind in _annotations(value)]
    parts = {part.__name__ for part in getattr(value, "__mro__", ())}
    return [name for text in texts for name in re.findall(r"\b[A-Z]\w+", text) if name not in parts]


def _annotations(member: Any) -> list[Any]:
    if isinstance(member, property):
        member = member.fget
    member = getattr(member, "__func__", member)
    if _has_many_forms(member):
        return ["StepOptions", "MapOptions"]
    overloads = get_overloads(member) if inspect.isfunction(member) else []
    return [kind for each in (member, *overloads) for kind in getattr(each, "__annotations__", {}).values()]
