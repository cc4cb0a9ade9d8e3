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
from docsite.docstrings import link_names
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
    module: str = "pgflow_mp"


AREAS = (
    Area(
        "flows",
        "Flows and steps",
        "What a flow is made of. Writing one: :doc:`/flows`; what its steps can be told: :doc:`/options`.",
        ("Flow", "StepFunction", "Context", "Artifact", "Failed"),
    ),
    Area(
        "run",
        "Running here",
        "A run in this process, to its end. More in :doc:`/python`.",
        ("run", "FinishedItem"),
    ),
    Area(
        "client",
        "Client",
        "Starts runs, follows and steers them, whoever works on them. More in :doc:`/client`.",
        ("Client",),
    ),
    Area("async-client", "AsyncClient", "The same for programs with an event loop.", ("AsyncClient",)),
    Area(
        "jobs",
        "Background jobs",
        "Plain jobs of a queue. More in :doc:`/jobs`.",
        ("QueueWorker", "Exponential", "Fixed"),
    ),
    Area(
        "testing",
        "Testing",
        "What tests of flows need. More in :doc:`/python`.",
        tuple(testing.__all__),
        "pgflow_mp.testing",
    ),
    Area(
        "exceptions",
        "Exceptions",
        "All are a :exc:`PgflowError`, whose ``hint`` says what to do.",
        tuple(
            name
            for name, value in vars(pgflow_mp).items()
            if inspect.isclass(value) and issubclass(value, BaseException) and name in pgflow_mp.__all__
        ),
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
_HERE = "scripts/docsite/reference/python_api.py"


def complaints() -> list[str]:
    """Public names without a page, and what people could not read there."""
    placed = {name for area in AREAS for name in area.names}
    wrong = [
        f"pgflow_mp.{name} has no page: add it to an area of AREAS in {_HERE}"
        for name in sorted(set(pgflow_mp.__all__) - placed)
    ]
    many = [
        f"{name}.{member}"
        for name in pgflow_mp.__all__
        if inspect.isclass(value := getattr(pgflow_mp, name))
        for part in value.__mro__
        for member, it in vars(part).items()
        if _has_many_forms(it)
    ]
    wrong += [
        f"{name} has more than {MANY} overloads: add to FORMS in {_HERE} how it is called"
        for name in many
        if name not in FORMS
    ]
    return wrong


def _has_many_forms(member: object) -> bool:
    return inspect.isfunction(member) and len(get_overloads(member)) > MANY


def write(stage: Stage) -> str:
    """Write the pages; the place of their overview."""
    documented: set[str] = {name for area in AREAS for name in area.names}
    overview = [heading("Python"), "Everything here is imported ``from pgflow_mp``, if not said otherwise.\n"]
    for area in AREAS:
        objects = [getattr(importlib.import_module(area.module), name) for name in area.names]
        found = list(types_of(objects, documented))
        stage.write(f"{FOLDER}/{area.slug}.rst", "\n".join(_page(area, found)))
        overview += [f":doc:`{area.title} <{area.slug}>`", f"   {', '.join(area.names)}", ""]
    overview += [".. toctree::", "   :hidden:", "", *(f"   {area.title} <{area.slug}>" for area in AREAS), ""]
    stage.write(f"{FOLDER}/index.rst", "\n".join(overview))
    return f"{FOLDER}/index.rst"


def _page(area: Area, found: list[type]) -> Iterator[str]:
    yield heading(area.title)
    yield f".. py:currentmodule:: {area.module}\n"
    yield f"{area.about}\n"
    if area.module != "pgflow_mp":
        yield f"Imported ``from {area.module}``.\n"
    for name in area.names:
        yield from _documented(getattr(importlib.import_module(area.module), name), f"{area.module}.{name}")
    if found:
        yield heading("What these take and answer", "-")
        for each in found:
            yield from _documented(each, f"{each.__module__}.{each.__qualname__}", "~")


def _documented(value: Any, path: str, line: str = "-") -> Iterator[str]:
    name = path.rpartition(".")[2]
    yield heading(name, line)
    if not inspect.isclass(value):
        yield f".. autofunction:: {path}\n"
        return
    if is_typeddict(value):
        yield from _keys(value, path)
        return
    groups = list(_groups(value))
    yield f".. autoclass:: {path}"
    if len(groups) < 2:
        yield "   :members:\n   :undoc-members:\n"
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
    forms = [f"{name}{form}" for form in FORMS.get(name, ())]
    yield "   .. py:method:: " + "\n                  ".join(forms) + "\n"
    lines = (inspect.getdoc(member) or "").splitlines()
    link_names(None, "", "", None, None, lines)
    yield textwrap.indent("\n".join(lines), "      ") + "\n"


def _keys(value: type, path: str) -> Iterator[str]:
    """What a TypedDict may have: the options of a call."""
    yield f".. py:class:: {path}\n"
    yield textwrap.indent(inspect.getdoc(value) or "", "   ") + "\n"
    told = {option.name: option for option in OPTIONS}
    for name, kind in value.__annotations__.items():
        yield f"   .. py:attribute:: {name}"
        yield f"      :type: {getattr(kind, '__forward_arg__', kind)}\n"
        option = told[name]
        takes = f"{prose(option.takes)}; default: {prose(option.default)}"
        yield f"      {prose(option.help)} ({takes})\n"


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
        texts += [str(kind) for kind in value.__annotations__.values()]
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
