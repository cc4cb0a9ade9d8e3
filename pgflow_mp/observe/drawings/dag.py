"""A flow's steps as boxes with their states and counts, the edges between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from pgflow_mp.db.reads.lists import Setting
from pgflow_mp.observe.drawings.layout import BETWEEN, BOX_HEIGHT, BOX_WIDTH, Placed, arrange
from pgflow_mp.observe.drawings.palette import KNOWN_STATES
from pgflow_mp.observe.drawings.svg import count, drawing, element, label, places, title
from pgflow_mp.observe.run_reports import StepReport
from pgflow_mp.observe.text import plural, shorten, shorten_middle

_SHOWN: Final = 19
"""Characters of a slug that fit a box."""
_BAR: Final = BOX_WIDTH - 20
_IDLE: Final = ("skipped", "cancelled")
_UNMET: Final = {"fail": "fails", "skip-cascade": "is skipped with all that depends on it"}
_NONE: Final[Mapping[str, str]] = MappingProxyType({})


def conditions_of(settings: Iterable[Setting]) -> dict[str, str]:
    """When a step runs and what happens else, in words, of each step that has conditions."""
    found: dict[str, dict[str, str]] = {}
    for each in settings:
        if each.step_slug is not None and each.option in ("when", "unless", "when_unmet"):
            found.setdefault(each.step_slug, {})[each.option] = shorten(each.value, 200)
    return {slug: _condition(given) for slug, given in found.items() if given.keys() & {"when", "unless"}}


def _condition(given: Mapping[str, str]) -> str:
    told = [f"has {given['when']}"] if "when" in given else []
    told += [f"has not {given['unless']}"] if "unless" in given else []
    unmet = _UNMET.get(given.get("when_unmet", ""), "is skipped")
    return f"runs if its input {' and '.join(told)}, else {unmet}"


def dag(
    steps: Sequence[StepReport],
    name: str = "Steps",
    *,
    conditions: Mapping[str, str] = _NONE,
    link: Callable[[str], str] | None = None,
) -> str:
    """Draw the steps of a run; ``link`` gives the address that a step's box leads to.

    ``conditions`` say in words of some steps when they are run.
    """
    if not steps:
        return drawing("dag", BOX_WIDTH, 40, name, "no steps", [label(8, 24, "no steps", "faint")])
    at = arrange({step.step_slug: step.depends_on for step in steps})
    states = {step.step_slug: step.state for step in steps}
    parts = [
        _edge(points, states[child] in _IDLE or states[parent] in _IDLE)
        for (parent, child), points in at.edges.items()
    ]
    for step in steps:
        box = _box(step, at.boxes[step.step_slug], conditions.get(step.step_slug, ""))
        parts.append(element("a", box, href=link(step.step_slug)) if link else box)
    told = Counter(_state(step) for step in steps)
    description = f"{plural(len(steps), 'step')}: " + ", ".join(
        f"{many} {state}" for state, many in told.items()
    )
    return drawing("dag", at.width, at.height, name, description, parts)


def _edge(points: list[tuple[float, float, float]], idle: bool) -> str:
    """From the parent's lower side through the ports to the child's upper side, with a tip."""
    x, _, y = points[0]
    path = [f"M{places(x)} {places(y)}"]
    for number, (to_x, top, bottom) in enumerate(points[1:], 1):
        last = number == len(points) - 1
        end = top - 6 if last else top
        bend = BETWEEN * 0.55
        corners = (x, y + bend, to_x, end - bend, to_x, end)
        path.append("C" + " ".join(map(places, corners)))
        if not last:
            path.append(f"V{places(bottom)}")
        x, y = to_x, bottom
    to_x, top, _ = points[-1]
    tip = f"M{places(to_x - 4)} {places(top - 8)}H{places(to_x + 4)}L{places(to_x)} {places(top)}z"
    more = " idle" if idle else ""
    return element("path", class_=f"edge{more}", d="".join(path)) + element(
        "path", class_=f"tip{more}", d=tip
    )


def _state(step: StepReport) -> str:
    return step.state.replace("_", " ")


def _box(step: StepReport, place: Placed, condition: str) -> str:
    left, top = place.middle - BOX_WIDTH / 2, place.top
    state = step.state if step.state in KNOWN_STATES else "other"
    counts, said = _counts(step), _state(step)
    parts = [
        title(_told(step, condition)),
        element("rect", class_="box", x=left, y=top, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6),
        label(left + 10, top + 19, shorten_middle(step.step_slug, _SHOWN), "strong"),
        label(left + 10, top + 36, said.removesuffix(" with failures") if counts else said, "faint"),
        label(left + BOX_WIDTH - 10, top + 36, counts, "faint end"),
    ]
    parts += _bar(step, left + 10, top + 44)
    if condition:
        x, y = left + BOX_WIDTH - 16, top
        diamond = f"M{places(x)} {places(y - 7)}l8 7l-8 7l-8 -7z"
        parts.append(element("path", title(condition), class_="condition", d=diamond))
    return element("g", "".join(parts), class_=f"is-{state}")


def _items(step: StepReport) -> int | None:
    """How many there are, None as long as nobody knows."""
    return step.counts.items if step.started_at is not None else step.initial_tasks


def _counts(step: StepReport) -> str:
    items = _items(step)
    if step.step_type != "map" and items in (None, 1):
        return ""
    if items is None:
        return "map"
    if step.counts.failed:
        return f"{count(step.counts.failed)} failed · {count(items)}"
    text = f"{step.counts.done:,} / {items:,}"
    return text if len(text) <= 17 else f"{count(step.counts.done)} / {count(items)}"


def _bar(step: StepReport, left: float, top: float) -> list[str]:
    parts = [element("rect", class_="track", x=left, y=top, width=_BAR, height=5, rx=2.5)]
    now = step.counts
    whole, at = max(now.items, now.done + now.running + now.waiting, 1), left
    for kind, many in (
        ("done", now.completed),
        ("fail", now.failed),
        ("run", now.running),
        ("wait", now.waiting),
    ):
        if many > 0:
            wide = max(2.0, _BAR * many / whole)
            wide = min(wide, left + _BAR - at)
            parts.append(element("rect", class_=kind, x=at, y=top, width=wide, height=5))
            at += wide
    return parts


def _told(step: StepReport, condition: str) -> str:
    """All that is known of a step, for who points at it and for who has it read out."""
    told, now, items = [f"{step.step_slug}: {_state(step)}"], step.counts, _items(step)
    tolerated = f" ({now.tolerated:,} tolerated)" if now.tolerated else ""
    if items is not None:
        told.append(plural(items, "item"))
    for many, word in (
        (now.completed, "completed"),
        (now.failed, "failed"),
        (now.running, "running"),
        (now.waiting, "waiting for a retry"),
        (now.queued, "queued"),
        (now.cancelled, "cancelled"),
        (now.skipped, "skipped"),
    ):
        if many:
            told.append(f"{many:,} {word}" + (tolerated if word == "failed" else ""))
    if step.depends_on:
        told.append("after " + ", ".join(step.depends_on))
    more = (condition, step.skip_reason and f"skip reason: {step.skip_reason}")
    return "; ".join([*told, *(each for each in more if each)])
