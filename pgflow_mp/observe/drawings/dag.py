"""A flow's steps as boxes with their states and counts, the edges between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from pgflow_mp.observe.drawings.layout import BETWEEN, BOX_HEIGHT, BOX_WIDTH, Placed, arrange
from pgflow_mp.observe.drawings.palette import KNOWN_STATES
from pgflow_mp.observe.drawings.svg import count, drawing, element, label, places, title
from pgflow_mp.observe.text import plural, shorten_middle

_SHOWN: Final = 19
"""Characters of a slug that fit a box."""
_BAR: Final = BOX_WIDTH - 20
_IDLE: Final = ("skipped", "cancelled")


class StepNode(NamedTuple):
    """A step to draw. ``items`` is None while it is not known how many there will be.

    ``waiting`` items are to be tried again; ``failed`` includes what was tolerated. ``condition`` says in
    words when it runs or is skipped; ``note`` is one more line of what is shown where one points at it.
    """

    slug: str
    parents: Sequence[str] = ()
    state: str = "created"
    is_map: bool = False
    items: int | None = None
    completed: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    condition: str = ""
    note: str = ""


def dag(steps: Sequence[StepNode], name: str = "Steps", link: Callable[[str], str] | None = None) -> str:
    """Draw the steps; ``link`` gives the address that a step's box leads to."""
    if not steps:
        return drawing("dag", BOX_WIDTH, 40, name, "no steps", [label(8, 24, "no steps", "faint")])
    at = arrange({step.slug: step.parents for step in steps})
    states = {step.slug: step.state for step in steps}
    parts = [
        _edge(points, states[child] in _IDLE or states[parent] in _IDLE)
        for (parent, child), points in at.edges.items()
    ]
    for step in steps:
        box = _box(step, at.boxes[step.slug])
        parts.append(element("a", box, href=link(step.slug)) if link else box)
    told = {state: sum(each.state == state for each in steps) for state in dict.fromkeys(states.values())}
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


def _box(step: StepNode, place: Placed) -> str:
    left, top = place.middle - BOX_WIDTH / 2, place.top
    state = step.state if step.state in KNOWN_STATES else "other"
    parts = [
        title(_told(step)),
        element("rect", class_="box", x=left, y=top, width=BOX_WIDTH, height=BOX_HEIGHT, rx=6),
        label(left + 10, top + 19, shorten_middle(step.slug, _SHOWN), "strong"),
        label(left + 10, top + 36, step.state, "faint"),
        label(left + BOX_WIDTH - 10, top + 36, _counts(step), "faint end"),
    ]
    parts += _bar(step, left + 10, top + 44)
    if step.condition:
        x, y = left + BOX_WIDTH - 16, top
        diamond = f"M{places(x)} {places(y - 7)}l8 7l-8 7l-8 -7z"
        parts.append(element("path", title(step.condition), class_="condition", d=diamond))
    return element("g", "".join(parts), class_=f"is-{state}")


def _counts(step: StepNode) -> str:
    done = step.completed + step.failed
    if not step.is_map and step.items in (None, 1):
        return ""
    if step.items is None:
        return f"{count(done)} of ?" if done else "map"
    text = f"{done:,} / {step.items:,}"
    text = text if len(text) <= 17 else f"{count(done)} / {count(step.items)}"
    return f"{count(step.failed)} failed · {count(step.items)}" if step.failed else text


def _bar(step: StepNode, left: float, top: float) -> list[str]:
    parts = [element("rect", class_="track", x=left, y=top, width=_BAR, height=5, rx=2.5)]
    whole = max(step.items or 1, step.completed + step.failed + step.running + step.waiting)
    at = left
    for kind, many in (
        ("done", step.completed),
        ("fail", step.failed),
        ("run", step.running),
        ("wait", step.waiting),
    ):
        if many > 0:
            wide = max(2.0, _BAR * many / whole)
            wide = min(wide, left + _BAR - at)
            parts.append(element("rect", class_=kind, x=at, y=top, width=wide, height=5))
            at += wide
    return parts


def _told(step: StepNode) -> str:
    """All that is known of a step, for who points at it and for who has it read out."""
    told = [f"{step.slug}: {step.state}"]
    if step.items is not None:
        told.append(plural(step.items, "item"))
    for many, word in (
        (step.completed, "completed"),
        (step.failed, "failed"),
        (step.running, "running"),
        (step.waiting, "waiting for a retry"),
    ):
        if many:
            told.append(f"{many:,} {word}")
    if step.parents:
        told.append("after " + ", ".join(step.parents))
    return "; ".join([*told, *(each for each in (step.condition, step.note) if each)])
