"""The keys of a flow that is data, and the JSON Schema of such files: from the table of options."""

from __future__ import annotations

import json
from typing import Any, Final

from pgflow_mp.flows.options import ANY_STEP, FLOW, OPTIONS, OptionSpec, names
from pgflow_mp.flows.slugs import MAX_FLOW_SLUG_LENGTH, MAX_SLUG_LENGTH
from pgflow_mp.flows.validation import MODES

VERSION: Final = 1
"""Of the format."""
KINDS: Final = ANY_STEP
FLOW_KEYS: Final = ("slug", "steps", "on_start", "queues", "former_slugs", *names(FLOW), "version", "$schema")
STEP_KEYS: Final = ("slug", "kind", "handler")
"""Of any step, besides the options of its kind."""
START_KEYS: Final = ("name", "handler")
_LARGEST: Final = 2_147_483_647
_HANDLER: Final = {
    "type": "string",
    "pattern": r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$",
    "description": "the function, by import path: module:function",
}
_SLUG: Final = {"type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}
_ONE_OR_MORE: Final = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "uniqueItems": True}]
}
_TYPES: Final[dict[str, dict[str, Any]]] = {
    "when": {"type": "object"},
    "unless": {"type": "object"},
    "when_unmet": {"enum": list(MODES)},
    "when_exhausted": {"enum": list(MODES)},
    "depends_on": _ONE_OR_MORE,
    "over": {"type": "string"},
    "tolerate": {"type": "number", "minimum": 0},
    "barrier": {"type": "boolean"},
    "rate": {"type": ["string", "number"]},
    "requires": _ONE_OR_MORE,
    "artifacts": {"type": "string"},
}
"""Of options that are neither integers nor one of some words."""


def schema() -> dict[str, Any]:
    """The JSON Schema of a flow file, for editors and for programs that write flows."""
    start = {"name": {"type": "string", "description": "what its value is called"}, "handler": _HANDLER}
    kinds = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": [] if kind == "step" else ["kind"]},
            "then": {"propertyNames": {"enum": [*STEP_KEYS, *names(kind)]}},
        }
        for kind in KINDS
    ]
    step: dict[str, Any] = {
        "slug": _SLUG | {"maxLength": MAX_SLUG_LENGTH, "description": "the step's name, else the function's"},
        "kind": {"enum": list(KINDS), "default": KINDS[0], "description": "what the step is"},
        "handler": _HANDLER,
    }
    step |= {spec.name: _option(spec) for spec in OPTIONS if set(spec.kinds) & set(KINDS)}
    flow: dict[str, Any] = {
        "$schema": {"type": "string", "description": "where this schema is, for editors"},
        "version": {"const": VERSION, "description": "of the format"},
        "slug": _SLUG | {"maxLength": MAX_FLOW_SLUG_LENGTH, "description": "the flow's name"},
        "queues": {"enum": ["flow", "step"], "default": "flow", "description": "one queue, or one a step"},
        "former_slugs": {"type": "boolean", "default": False, "description": "for slugs of older flows"},
    }
    flow |= {spec.name: _option(spec) for spec in OPTIONS if FLOW in spec.kinds}
    flow["on_start"] = {
        "type": "array",
        "description": "functions that each process runs once, before its first item",
        "items": _object(start, ["handler"]),
    }
    flow["steps"] = {
        "type": "array",
        "description": "parents come before what depends on them",
        "items": {**_object(step, ["handler"]), "allOf": kinds},
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A flow of pgflow_mp",
        **_object(flow, ["slug", "steps"]),
    }


def schema_text() -> str:
    """The schema as it is published: docs/flow-files.schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _option(spec: OptionSpec) -> dict[str, Any]:
    if spec.choices:
        wanted: dict[str, Any] = {"enum": list(spec.choices)}
    elif spec.minimum is not None:
        wanted = {"type": "integer", "minimum": spec.minimum, "maximum": _LARGEST}
    else:
        wanted = dict(_TYPES[spec.name])
    return {**wanted, "description": spec.help.partition(" ([")[0]}
