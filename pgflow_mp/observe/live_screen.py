"""The live picture, line by line, for a terminal of any size. Pure: what is known in, lines out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from rich.text import Text

from pgflow_mp.observe.failure_tally import AlikeAttempts
from pgflow_mp.observe.observer import ProgressSnapshot
from pgflow_mp.observe.sparks import History, spark
from pgflow_mp.observe.step_rows import Glyphs, details, rows, visible
from pgflow_mp.observe.text import brief, clock, plural, shorten, size, waits

KEYS: Final = {
    "f": "failures: alike errors in groups, the first of each",
    "w": "workers: what each process runs, its CPU and memory",
    "p": "pause: claim nothing more here; again: go on",
    "q": "quit: what runs may finish, the rest is handed back",
    "?": "this list",
}
_HINT: Final = "f failures · w workers · p pause · q quit · ? help"
_SHORT_HINT: Final = "? help"
_ASCII: Final = str.maketrans("·…±", "-~~")


@dataclass(slots=True)
class Trends:
    """The last minute of a worker."""

    used: History = field(default_factory=History)
    cpu: History = field(default_factory=History)
    rss: History = field(default_factory=History)

    def add(self, now: float, snapshot: ProgressSnapshot) -> None:
        """It is so now."""
        self.used.add(now, snapshot.utilisation)
        if snapshot.cpu is not None:
            self.cpu.add(now, snapshot.cpu)
        if snapshot.rss is not None:
            self.rss.add(now, snapshot.rss)


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to show. ``panel`` is a key of KEYS, or empty. ``spinner`` is empty once all is over."""

    title: str
    snapshot: ProgressSnapshot | None
    elapsed: float
    spinner: str
    state: str = "running"
    note: str = ""
    names_flows: bool = False
    trends: Trends = field(default_factory=Trends)
    groups: tuple[AlikeAttempts, ...] = ()
    runs: str = ""
    panel: str = ""
    has_keys: bool = False
    is_plain: bool = False


def draw(scene: Scene, width: int, height: int) -> list[Text]:
    """Lines of at most ``width`` columns, fewer than ``height`` of them where that can be."""
    room = max(10, width - 1)
    lines = [Text(shorten(scene.title, room), style="bold")]
    snapshot, glyphs = scene.snapshot, Glyphs(scene.is_plain)
    below = _below(scene, room)
    panel = _panel(scene, room, max(3, height // 2 - 2))
    if snapshot is not None and snapshot.steps:
        left = height - 2 - len(below) - len(panel)
        steps, hidden = visible(snapshot.steps, max(3, left))
        told = [details(step, snapshot.lane_states) for step in steps]
        beside = room >= 140
        drawn = rows(steps, room, glyphs, names_flows=scene.names_flows, beside=told if beside else ())
        spare = left - len(drawn) - bool(hidden)
        for pieces, line in zip(told, drawn, strict=True):
            lines.append(line)
            if not beside and spare > 0 and pieces:
                lines.append(fitted([("    ", "")], pieces, room, "dim"))
                spare -= 1
        if hidden:
            lines.append(Text(f"  ... {hidden} more steps", style="dim"))
    lines += [*panel, *below]
    if scene.is_plain:
        for line in lines:
            line.plain = line.plain.translate(_ASCII)
    return lines


def fitted(start: list[tuple[str, str]], pieces: list[tuple[str, str]], room: int, style: str) -> Text:
    """As many of these pieces, with their styles, as fit in one line."""
    line = Text(style=style, no_wrap=True, overflow="ellipsis")
    for text, own in start:
        line.append(text, style=own)
    is_first = True
    for text, own in pieces:
        more = ("" if is_first else " · ") + text
        if line.cell_len + len(more) > room:
            continue
        line.append(more, style=own)
        is_first = False
    return line


def _below(scene: Scene, room: int) -> list[Text]:
    if not scene.spinner:
        return []
    found = [line for line in (_errors(scene, room), _resources(scene, room)) if line is not None]
    return [*found, _status(scene, room)]


def _errors(scene: Scene, room: int) -> Text | None:
    """The groups of failures in one line, where they are not shown below each other."""
    if not scene.groups or scene.panel == "f":
        return None
    pieces = [(f"{group.attempts:,}x {shorten(group.error, 60)}", "") for group in scene.groups[:3]]
    if len(scene.groups) > 3:
        pieces.append((f"{len(scene.groups) - 3} more kinds", ""))
    line = fitted([("! ", "")], pieces, room, "red")
    if line.plain == "! ":
        line.append(shorten(pieces[0][0], room - 2))
    return line


def _resources(scene: Scene, room: int) -> Text | None:
    snapshot, trends = scene.snapshot, scene.trends
    if snapshot is None or snapshot.cpu is None or snapshot.rss is None:
        return None
    width = 5 if room < 75 else 10 if room < 110 else 30
    most = max([float(snapshot.lanes), snapshot.cpu, *trends.cpu.values(60)])
    peak = max([float(snapshot.rss), *trends.rss.values(60)])

    def drawn(history: History, top: float) -> str:
        return spark(history.values(width), top, plain=scene.is_plain)

    pieces = [
        (f"busy {drawn(trends.used, 1.0)} {snapshot.utilisation:.0%}", ""),
        (f"cpu {drawn(trends.cpu, most)} {snapshot.cpu:.1f}", ""),
        (f"memory {drawn(trends.rss, peak)} {size(snapshot.rss)}", ""),
    ]
    return fitted([("  ", "")], pieces, room, "dim")


def _status(scene: Scene, room: int) -> Text:
    snapshot = scene.snapshot
    start = [(f"{scene.spinner} ", "cyan")]
    if snapshot is not None and snapshot.connection != "connected":
        trouble = re.sub(r"Cannot connect to \S+: ", "", snapshot.connection).partition(" (")[0]
        return fitted(start, [(shorten(trouble, max(10, room - 2)), "yellow")], room, "dim")
    pieces = [(clock(scene.elapsed), "")]
    if scene.note:
        pieces.append((scene.note, "yellow"))
    elif scene.state != "running":
        pieces.append((scene.state, "yellow"))
    if snapshot is not None:
        if snapshot.paused:
            pieces.append(("paused: p goes on" if scene.has_keys else "paused", "yellow"))
        pieces.append((f"{snapshot.lanes_busy}/{snapshot.lanes} workers busy", ""))
        if snapshot.cpu is None:  # else it stands in the line above
            pieces.append((f"used {snapshot.utilisation:.0%}", ""))
        if snapshot.queued:
            pieces.append((f"{snapshot.queued:,} queued", ""))
        if snapshot.unsettled:
            pieces.append((f"{snapshot.unsettled:,} to record", ""))
        if snapshot.waiting and not any(step.waiting for step in snapshot.steps):
            pieces.append((waits(snapshot.waiting, snapshot.next_in), "yellow"))
        if snapshot.other_runs:
            pieces.append((f"{plural(snapshot.other_runs, 'other run')} here", ""))
        if scene.runs:
            pieces.append((scene.runs, ""))
    line = fitted(start, pieces, room, "dim")
    if scene.has_keys:
        for hint in (_HINT, _SHORT_HINT):
            if line.cell_len + len(hint) + 3 <= room:
                line.append(f" · {hint}")
                break
    return line


def _panel(scene: Scene, room: int, most: int) -> list[Text]:
    if not scene.spinner or not scene.panel:
        return []
    if scene.panel == "?":
        return [Text(shorten(f"  {key}  {text}", room), style="cyan") for key, text in KEYS.items()]
    lines = _failures(scene, room) if scene.panel == "f" else _workers(scene, room)
    if len(lines) > most:
        lines = [*lines[: most - 1], Text(f"  ... {len(lines) - most + 1} more", style="dim")]
    return lines


def _failures(scene: Scene, room: int) -> list[Text]:
    if not scene.groups:
        return [Text("  no attempt has failed here", style="dim")]
    lines = []
    for group in scene.groups:
        counts = [f"{group.failed:,} failed"] if group.failed else []
        counts += [f"{group.retried:,} retried"] if group.retried else []
        text = f"  {group.step}  {', '.join(counts)}: {group.error}"
        if group.attempts > 1 or group.glimpse:
            example = f"  e.g. [{group.index}] {group.glimpse}".rstrip()
            text = shorten(text, max(30, room - len(example))) + example
        lines.append(Text(shorten(text, room), style="red" if group.failed else "yellow"))
    return lines


def _workers(scene: Scene, room: int) -> list[Text]:
    snapshot = scene.snapshot
    if snapshot is None or not snapshot.lane_states:
        return [Text("  nothing runs here", style="dim")]
    lines = []
    for lane in snapshot.lane_states:
        what = "idle"
        if lane.step is not None:
            what = f"{lane.step}[{lane.index}]"
            what += f" attempt {lane.attempt}" if lane.attempt not in (None, 1) else ""
            what += f" {brief(lane.seconds or 0.0)}"
        start = f"  {lane.lane:>2} " + (f"pid {lane.pid:<7} " if lane.pid else "")
        used = f"cpu {lane.cpu:.0%} " if lane.cpu is not None else ""
        used += size(lane.rss) if lane.rss is not None else ""
        text = start + shorten(what, max(8, room - len(start) - len(used) - 2))
        if used:
            text = text.ljust(max(len(text), min(room, 110) - len(used) - 1)) + " " + used
        lines.append(Text(shorten(text, room), style="" if lane.step is not None else "dim"))
    return lines
