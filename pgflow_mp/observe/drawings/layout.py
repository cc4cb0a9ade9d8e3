"""Where the steps of a flow lie in a drawing: ranks from top to bottom, few crossings, straight edges.

The method is Sugiyama's: a step is one rank below its last parent; a rank of more than ``PER_ROW`` steps is
broken into several rows; edges over more than a row pass through *ports*, narrow places between the steps,
which all edges from one step (or to one) share. Rows are ordered by medians of their neighbours, then moved
to the means of their neighbours as far as the order and the distances allow.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

BOX_WIDTH: Final = 172.0
BOX_HEIGHT: Final = 58.0
PORT: Final = 14.0
BESIDE: Final = 18.0
BETWEEN: Final = 44.0
PER_ROW: Final = 5
_SWEEPS: Final = 8


class Placed(NamedTuple):
    """A step's box by its middle and its top."""

    middle: float
    top: float


class Layout(NamedTuple):
    """Boxes by step, and of each edge the points from parent to child: (x, top, bottom) of all it passes."""

    width: float
    height: float
    boxes: dict[str, Placed]
    edges: dict[tuple[str, str], list[tuple[float, float, float]]]


_Cell = str | tuple[int, str, str]
"""A step, or the port in a row of the edges ``from`` or ``to`` a step."""


def arrange(parents: Mapping[str, Sequence[str]]) -> Layout:
    """Lay out steps with their parents; parents that are no steps of it are left out."""
    known = {
        step: [each for each in dict.fromkeys(above) if each in parents] for step, above in parents.items()
    }
    rows = _rows(known)
    row_of: dict[str, int] = {step: number for number, row in enumerate(rows) for step in row}
    cells: list[list[_Cell]] = [list(row) for row in rows]
    children = {step: [child for child in known if step in known[child]] for step in known}
    routes: dict[tuple[str, str], list[_Cell]] = {}
    for child, above in known.items():
        for parent in (each for each in above if row_of[each] < row_of[child]):
            route: list[_Cell] = [parent]
            shared = ("from", parent) if len(children[parent]) >= len(above) else ("to", child)
            for row in range(row_of[parent] + 1, row_of[child]):
                port: _Cell = (row, *shared)
                if port not in cells[row]:
                    cells[row].append(port)
                route.append(port)
            routes[parent, child] = [*route, child]
    up: dict[_Cell, list[_Cell]] = {}
    down: dict[_Cell, list[_Cell]] = {}
    for route in routes.values():
        for above_cell, below in itertools.pairwise(route):
            if above_cell not in up.setdefault(below, []):
                up[below].append(above_cell)
                down.setdefault(above_cell, []).append(below)
    _order(cells, up, down)
    middles, width = _places(cells, up, down)
    tops = [BETWEEN / 2 + row * (BOX_HEIGHT + BETWEEN) for row in range(len(cells))]
    boxes = {step: Placed(middles[step], tops[row]) for step, row in row_of.items()}
    edges = {}
    for edge, route in routes.items():
        first = row_of[edge[0]]
        edges[edge] = [
            (middles[cell], tops[first + place], tops[first + place] + BOX_HEIGHT)
            for place, cell in enumerate(route)
        ]
    height = len(cells) * (BOX_HEIGHT + BETWEEN)
    return Layout(width, height, boxes, edges)


def _rows(parents: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Steps by rank, long ranks broken evenly. Of a circle, which no flow has, an edge is left out."""
    rank: dict[str, int] = {}

    def settle(step: str) -> None:
        todo = [step]
        while todo:
            top = todo[-1]
            open_ones = [each for each in parents[top] if each not in rank and each not in todo]
            if open_ones:
                todo.append(open_ones[0])
                continue
            rank[top] = max((rank.get(each, -1) + 1 for each in parents[top]), default=0)
            todo.pop()

    for step in parents:
        if step not in rank:
            settle(step)
    rows: list[list[str]] = []
    for level in range(max(rank.values(), default=-1) + 1):
        steps = [step for step in parents if rank[step] == level]
        if not steps:
            continue
        broken = -(-len(steps) // PER_ROW)
        size = -(-len(steps) // broken)
        rows += [steps[start : start + size] for start in range(0, len(steps), size)]
    return rows


def _order(cells: list[list[_Cell]], up: dict[_Cell, list[_Cell]], down: dict[_Cell, list[_Cell]]) -> None:
    """Sort each row by the medians of its neighbours, down and up, and keep the order of fewest crossings."""
    best, fewest = [list(row) for row in cells], _crossings(cells, down)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        near = up if sweep % 2 == 0 else down
        for row in cells[:: 1 if near is up else -1]:
            place = {
                cell: number / max(1, len(each) - 1) for each in cells for number, cell in enumerate(each)
            }
            row.sort(key=lambda cell: _median([place[other] for other in near.get(cell, [])], place[cell]))
        now = _crossings(cells, down)
        if now < fewest:
            best, fewest = [list(row) for row in cells], now
    cells[:] = best


def _median(values: list[float], otherwise: float) -> float:
    if not values:
        return otherwise
    values.sort()
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _crossings(cells: list[list[_Cell]], down: dict[_Cell, list[_Cell]]) -> int:
    found = 0
    for row, below in itertools.pairwise(cells):
        place = {cell: number for number, cell in enumerate(below)}
        ends = [sorted(place[each] for each in down.get(cell, []) if each in place) for cell in row]
        flat = [end for each in ends for end in each]
        found += sum(1 for at, one in enumerate(flat) for other in flat[at + 1 :] if other < one)
    return found


def _wide(cell: _Cell) -> float:
    return BOX_WIDTH if isinstance(cell, str) else PORT


def _places(
    cells: list[list[_Cell]], up: dict[_Cell, list[_Cell]], down: dict[_Cell, list[_Cell]]
) -> tuple[dict[_Cell, float], float]:
    """The middle of every cell, and the width of all."""
    full = max((sum(_wide(cell) + BESIDE for cell in row) for row in cells), default=BOX_WIDTH + BESIDE)
    middles: dict[_Cell, float] = {}
    for row in cells:
        at = (full - sum(_wide(cell) + BESIDE for cell in row)) / 2
        for cell in row:
            middles[cell] = at + (_wide(cell) + BESIDE) / 2
            at += _wide(cell) + BESIDE
    for sweep in range(2 * _SWEEPS):
        for row in cells[:: 1 if sweep % 2 == 0 else -1]:
            wanted = []
            for cell in row:
                near = [middles[other] for other in (*up.get(cell, ()), *down.get(cell, ()))]
                wanted.append(sum(near) / len(near) if near else middles[cell])
            for cell, middle in zip(row, _spread(row, wanted, full), strict=True):
                middles[cell] = middle
    return middles, full


def _spread(row: list[_Cell], wanted: list[float], full: float) -> list[float]:
    """The places nearest to those wanted that keep the order and the distances (pool adjacent violators)."""
    offsets, at = [], 0.0
    for cell in row:
        offsets.append(at + (_wide(cell) + BESIDE) / 2)
        at += _wide(cell) + BESIDE
    pools: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        mean, size = want - offset, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, size = (before * many + mean * size) / (many + size), size + many
        pools.append((mean, size))
    shifts = [min(max(mean, 0.0), full - at) for mean, size in pools for _ in range(size)]
    return [offset + shift for offset, shift in zip(offsets, shifts, strict=True)]
