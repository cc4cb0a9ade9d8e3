"""What a run's output becomes for who called ``run()``: each leaf's as its handler annotates it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pgflow_mp.flows.checks import result_type
from pgflow_mp.flows.flow import Flow
from pgflow_mp.values import reading


def typed_output(flow: Flow, output: bytes | None) -> Any:
    """The object of the leaves' outputs, of their raw JSON; None if there is none."""
    if output is None:
        return None
    leaves: dict[str, msgspec.Raw] = msgspec.json.decode(output, type=dict[str, msgspec.Raw])
    return {slug: typed_leaf(flow, slug, raw) for slug, raw in leaves.items()}


def typed_leaf(flow: Flow, slug: str, raw: bytes | msgspec.Raw) -> Any:
    """A leaf's output; of a map, a list of as many: None for items whose failure was tolerated.

    Annotations are for people, too: what does not fit is what JSON gives, of a map that item alone.
    """
    step = flow.steps.get(slug)
    if step is None or any(slug in other.dependencies for other in flow.steps.values()):
        return msgspec.json.decode(raw)
    wanted = result_type(step.handler, batch=step.batch > 0)
    if step.step_type != "map":
        return _decoded(wanted, raw)
    try:
        return reading.decoder(list.__class_getitem__(wanted))(raw)
    except (msgspec.DecodeError, TypeError):
        pass
    try:
        decode = reading.decoder(wanted)
        items = msgspec.json.decode(raw, type=list[msgspec.Raw])
    except (msgspec.DecodeError, TypeError):
        return msgspec.json.decode(raw)
    return [_item(decode, item) for item in items]


def _decoded(wanted: Any, raw: bytes | msgspec.Raw) -> Any:
    try:
        return reading.decoder(wanted)(raw)
    except (msgspec.DecodeError, TypeError):
        return msgspec.json.decode(raw)


def _item(decode: Callable[[Any], Any], raw: msgspec.Raw) -> Any:
    try:
        return decode(raw)
    except (msgspec.DecodeError, TypeError):
        return msgspec.json.decode(raw)
