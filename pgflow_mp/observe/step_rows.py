"""The steps of a live picture: a row each, whose columns go where there is no room for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich.text import Text

from pgflow_mp.observe.observer import LaneSnapshot, StepSnapshot
from pgflow_mp.observe.text import brief, clock, percent, rate, shorten, shorten_middle, waits

_MARKS: Final = {
    "created": ("·", ".", "dim"),
    "started": ("▸", ">", "cyan"),
    "completed": ("✓", "+", "green"),
    "failed": ("✗", "x", "red"),
    "skipped": ("-", "-", "dim"),
}
_LEAST_BAR: Final = 8
_LEAST_NAME: Final = 8
_SHORT_NAME: Final = 14
_LONG: Final = 1.0
"""Seconds after which an item that runs is named."""


class Glyphs:
    """What marks and bars are made of; ``plain``: of ASCII."""

    def __init__(self, plain: bool) -> None:
        self._plain = plain

    def mark(self, status: str) -> tuple[str, str]:
        """Of a step, with its style."""
        nice, plain, style = _MARKS.get(status, ("·", ".", ""))
        return (plain if self._plain else nice), style

    def bar(self, step: StepSnapshot, width: int) -> Text:
        """How far it is."""
        if step.status == "skipped":
            return Text("skipped".ljust(width)[:width], style="dim")
        if step.total is None:
            return Text(" " * width)
        share = 1.0 if step.status == "completed" else min(1.0, step.done / max(step.total, 1))
        full = int(share * width)
        style = "green" if share >= 1.0 else "cyan"
        bar = Text(("#" if self._plain else "━") * full, style=style)
        return bar.append(("-" if self._plain else "─") * (width - full), style="dim")


def remark(step: StepSnapshot, *, spread: bool) -> list[tuple[str, str]]:
    """What is left to wait for, and what failed."""
    pieces: list[tuple[str, str]] = []
    if step.only_waits:
        pieces.append((waits(step.waiting, step.next_in), "yellow"))
    elif step.eta is not None and step.rate > 0 and step.status == "started":
        text = f"{clock(step.eta)} left"
        if spread and step.spread is not None and step.spread >= max(1.0, 0.05 * step.eta):
            text += f" ±{clock(step.spread)}"
        pieces.append((text, ""))
    if step.failed:
        pieces.append((f"{step.failed:,} failed", "red"))
    return pieces


def details(step: StepSnapshot, lanes: Sequence[LaneSnapshot]) -> list[tuple[str, str]]:
    """What else is known of a step that is under way."""
    if step.status != "started":
        return []
    pieces: list[tuple[str, str]] = []
    if step.waiting and not step.only_waits:
        pieces.append((waits(step.waiting, step.next_in), "yellow"))
    if step.running:
        pieces.append((f"{step.running:,} running", ""))
    if step.p50 is not None and step.p99 is not None and step.total != 1:
        pieces.append((f"items take {brief(step.p50)}, 99% within {brief(step.p99)}", ""))
    own = [lane for lane in lanes if lane.step == step.slug and lane.flow == step.flow]
    longest = max(own, key=lambda lane: lane.seconds or 0.0, default=None)
    if longest is not None and (longest.seconds or 0.0) >= _LONG:
        pieces.append((f"longest now [{longest.index}] {brief(longest.seconds or 0.0)}", ""))
    return pieces


def rows(
    steps: Sequence[StepSnapshot],
    room: int,
    glyphs: Glyphs,
    *,
    names_flows: bool,
    beside: Sequence[list[tuple[str, str]]] = (),
) -> list[Text]:
    """One line each. ``beside`` are details of each for the end of it."""
    widest = max(12, room - 55)
    names = [f"{s.flow}.{s.slug}" if names_flows else s.slug for s in steps]
    names = [shorten_middle(name, widest) for name in names]
    shares = [percent(s.done, s.total) if s.total and s.status == "started" else "" for s in steps]
    rates = [rate(step.rate) if step.rate > 0 and step.total != 1 else "" for step in steps]
    remarks = [remark(step, spread=room >= 75) for step in steps]
    if beside:
        remarks = [
            own + [(f"· {text}", style) for text, style in more]
            for own, more in zip(remarks, beside, strict=True)
        ]
    last = max((sum(len(text) + 1 for text, _ in pieces) for pieces in remarks), default=0)
    layout = _fitted(
        max(map(len, names), default=0),
        [_counts(step) for step in steps],
        shares,
        rates,
        min(last, room // 2 if room < 140 else room),
        room,
        has_bars=any(step.total is not None or step.status == "skipped" for step in steps),
    )
    lines = []
    for number, (step, name) in enumerate(zip(steps, names, strict=True)):
        texts = [column[number] for column in layout.columns]
        lines.append(_line(step, name, layout, texts, remarks[number], room, glyphs))
    return lines


class _Layout(NamedTuple):
    """How wide names and bars are, and the columns of texts that there is room for."""

    name: int
    bar: int
    """0: there is none."""
    columns: list[list[str]]


def _fitted(
    name: int, counts: list[str], shares: list[str], rates: list[str], last: int, room: int, *, has_bars: bool
) -> _Layout:
    """What fits: a rate is missed least, then the bar, then the share; then names are shortened.

    ``last``: characters of what comes behind the columns.
    """
    nothing = [""] * len(counts)
    columns = [counts, shares, rates]

    def left() -> int:
        needed = sum(max(map(len, column), default=0) + bool(any(column)) for column in columns)
        return room - 2 - needed - last

    if left() - name - 2 < _LEAST_BAR:
        name = max(min(name, _SHORT_NAME), name - _LEAST_BAR + left() - name - 2)
    if left() - name - 2 < _LEAST_BAR:
        columns = [counts, shares, nothing]
    bar = left() - name - 2
    has_bars = has_bars and bar >= _LEAST_BAR
    if not has_bars and name + 1 > left():
        columns = [counts, nothing, columns[2]]
        name = max(_LEAST_NAME, min(name, left() - 1))
    return _Layout(name, (min(bar, 60) if room >= 140 else bar) if has_bars else 0, columns)


def _line(
    step: StepSnapshot,
    name: str,
    layout: _Layout,
    texts: Sequence[str],
    remarks: Sequence[tuple[str, str]],
    room: int,
    glyphs: Glyphs,
) -> Text:
    """A step's row; ``texts`` are its own of the columns."""
    mark, style = glyphs.mark(step.status)
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{mark} ", style=style)
    shown = shorten_middle(name, layout.name).ljust(layout.name)
    line.append(shown, style="" if step.status == "started" else style)
    if layout.bar:
        line.append(" ").append_text(glyphs.bar(step, layout.bar))
    for text, column in zip(texts, layout.columns, strict=True):
        if any(column):
            line.append(" " + text.rjust(max(map(len, column))))
    for text, own in remarks:
        if line.cell_len + 1 + len(text) > room:
            if line.cell_len + 12 <= room:
                line.append(" " + shorten(text, room - line.cell_len - 1), style=own)
            break
        line.append(" " + text, style=own)
    return line


def _counts(step: StepSnapshot) -> str:
    if step.status in ("created", "skipped"):
        return ""
    return f"{step.done:,}" if step.total is None else f"{step.done:,}/{step.total:,}"


def visible(steps: Sequence[StepSnapshot], room: int) -> tuple[list[StepSnapshot], int]:
    """The steps that fit, in their order: those that move or failed first, then those to come."""
    if len(steps) <= room:
        return list(steps), 0
    order = {"started": 1, "failed": 0, "created": 2}

    def rank(number: int) -> tuple[int, int]:
        step = steps[number]
        moving = step.status == "started" and step.done > 0
        return (0 if moving else order.get(step.status, 3)), number

    ranked = sorted(range(len(steps)), key=rank)
    chosen = sorted(ranked[: room - 1])
    return [steps[number] for number in chosen], len(steps) - len(chosen)
