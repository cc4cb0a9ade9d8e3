"""Results as one HTML file that needs nothing else: tables, bars, charts, environment."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Final

from pgflow_mp.bench.charts import svg
from pgflow_mp.bench.findings import Bar, SuiteResult, Table

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2937; --paper: #ffffff; --faint: #6b7280; --line: #e5e7eb; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7eb; --paper: #111827; --faint: #9ca3af; --line: #374151; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; }
caption { text-align: left; color: var(--faint); }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.scroll { overflow-x: auto; }
svg { width: 100%; max-width: 640px; display: block; }
svg .title { font-weight: 600; font-size: 14px; fill: var(--ink); }
svg .tick { font-size: 11px; fill: var(--faint); }
svg .mid { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--line); } svg .limit { stroke: var(--faint); stroke-dasharray: 5 4; }
ul.bars { list-style: none; padding: 0; }
.holds { color: #059669; font-weight: 600; } .missed { color: #dc2626; font-weight: 600; }
.unknown, .faint { color: var(--faint); }
"""


def render(environment: dict[str, Any], results: list[SuiteResult]) -> str:
    """The page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>pgflow_mp benchmark</title><style>{_STYLE}</style></head><body>",
        "<h1>pgflow_mp benchmark</h1>",
        (
            f'<p class="faint">{escape(environment["time"])}, {escape(environment["cpu"])}, '
            f"{environment['cores_allowed']} cores, PostgreSQL "
            f"{escape(str(environment['postgresql']['version']))}, Python {escape(environment['python'])}</p>"
        ),
    ]
    for result in results:
        parts.append(f'<h2 id="{result.name}">{escape(result.title)}</h2>')
        parts += [svg(chart) for chart in result.charts]
        parts += [_table(table) for table in result.tables]
        if result.bars:
            parts.append(f'<ul class="bars">{"".join(map(_bar, result.bars))}</ul>')
        parts += [f'<p class="faint">{escape(note)}</p>' for note in result.notes]
    text = escape(json.dumps(environment, indent=2))
    parts.append(f"<h2>Environment</h2><details><summary>all of it</summary><pre>{text}</pre></details>")
    return "\n".join([*parts, "</body></html>", ""])


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>"
    return f'<div class="scroll"><table>{caption}<tr>{head}</tr>{rows}</table></div>'


def _bar(bar: Bar) -> str:
    word = "unknown" if bar.holds is None else "holds" if bar.holds else "missed"
    text = f"{bar.what}: {bar.measured} ({bar.limit})"
    return f'<li><span class="{word}">{word}</span> {escape(text)}</li>'
