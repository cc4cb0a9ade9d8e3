"""Resolves what signatures and docstrings name: a class of the package by its last name, wherever it lies."""

from __future__ import annotations

import builtins
from typing import Any

from docutils.nodes import Element, TextElement
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import ObjectEntry
from sphinx.environment import BuildEnvironment
from sphinx.errors import NoUri
from sphinx.util import logging
from sphinx.util.nodes import make_refnode

from docsite.reference.python_api import classes, is_made_by_users

_log = logging.getLogger(__name__)
_KINDS = {"func": "function", "meth": "method"}


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, shown: TextElement) -> Element | None:
    """What is documented under another module's name. Warns about what is ours and documented nowhere."""
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"])
    known = env.domains.python_domain.objects
    if kind := _KINDS.get(str(node.get("reftype"))):
        known = {name: entry for name, entry in known.items() if entry.objtype == kind}
    found = _found(known, target)
    if found is not None:
        name, entry = found
        return make_refnode(app.builder, str(node["refdoc"]), entry.docname, entry.node_id, [shown], name)
    where, _, last = target.rpartition(".")
    ours = where.partition(".")[0] in ("", "pgflow_mp", *classes())
    if (
        ours
        and not hasattr(builtins, last)
        and (last in classes() or node.get("reftype") in ("meth", "func", "attr", "exc"))
    ):
        _log.warning("%s is named here and documented nowhere", target, location=node)
    raise NoUri


def leave_out_constructors(
    _app: Sphinx,
    what: str,
    _name: str,
    value: Any,
    _options: object,
    _signature: str | None,
    _answer: str | None,
) -> tuple[str, None] | None:
    """Shows no constructor of what is not for users to make."""
    return ("", None) if what == "class" and not is_made_by_users(value) else None


def _found(objects: dict[str, ObjectEntry], target: str) -> tuple[str, ObjectEntry] | None:
    last = target.rpartition(".")[2]
    ours = target.startswith("pgflow_mp.") and last in classes()
    ends = (f".{target}", *([f".{last}"] if ours else ()))
    names = sorted((name for name in objects if name == target or name.endswith(ends)), key=len)
    return (names[0], objects[names[0]]) if names else None
