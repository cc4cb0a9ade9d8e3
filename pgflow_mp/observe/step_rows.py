"""The steps of a live picture: a row each, whose columns go where there is no room for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

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
    counts = [_counts(step) for step in steps]
    shares = [percent(s.done, s.total) if s.total and s.status == "started" else "" for s in steps]
    rates = [rate(step.rate) if step.rate > 0 and step.total != 1 else "" for step in steps]
    remarks = [remark(step, spread=room >= 75) for step in steps]
    if beside:
        remarks = [
            own + [(f"· {text}", style) for text, style in more]
            for own, more in zip(remarks, beside, strict=True)
        ]
    has_bars = any(step.total is not None or step.status == "skipped" for step in steps)
    columns = [counts, shares, rates]
    last = max((sum(len(text) + 1 for text, _ in pieces) for pieces in remarks), default=0)
    last = min(last, room // 2 if room < 140 else room)

    def needed() -> int:
        return sum(max(map(len, column), default=0) + bool(any(column)) for column in columns)

    name_width = max(map(len, names), default=0)
    bar = room - 2 - name_width - needed() - last - 2
    if bar < _LEAST_BAR:
        name_width = max(min(name_width, _SHORT_NAME), name_width - _LEAST_BAR + bar)
        bar = room - 2 - name_width - needed() - last - 2
    if bar < _LEAST_BAR:  # a rate is missed least, then the bar, then the share; then names are shortened
        columns = [counts, shares, [""] * len(steps)]
        bar = room - 2 - name_width - needed() - last - 2
    if bar < _LEAST_BAR or not has_bars:
        has_bars = False
    if not has_bars and 2 + name_width + needed() + last + 1 > room:
        columns = [counts, [""] * len(steps), columns[2]]
        name_width = max(_LEAST_NAME, min(name_width, room - 2 - needed() - last - 1))
    bar = min(bar, 60 if room >= 140 else bar)
    lines = []
    for number, step in enumerate(steps):
        mark, style = glyphs.mark(step.status)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{mark} ", style=style)
        name = shorten_middle(names[number], name_width).ljust(name_width)
        line.append(name, style="" if step.status == "started" else style)
        if has_bars:
            line.append(" ").append_text(glyphs.bar(step, bar))
        for column in columns:
            if any(column):
                line.append(" " + column[number].rjust(max(map(len, column))))
        for text, own in remarks[number]:
            if line.cell_len + 1 + len(text) > room:
                if line.cell_len + 12 <= room:
                    line.append(" " + shorten(text, room - line.cell_len - 1), style=own)
                break
            line.append(" " + text, style=own)
        lines.append(line)
    return lines


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
