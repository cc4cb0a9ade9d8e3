"""The style of all drawings: one sheet, light and dark, in colour and on paper.

A page that lets its reader choose sets ``data-theme`` to ``light`` or ``dark`` on its root; without it the
reader's system decides. A page may set the variables to colours of its own. Step hues are those of Okabe
and Ito, which people who do not see all colours can tell apart; states have words besides.
"""

from __future__ import annotations

from typing import Final, get_args

from pgflow_mp.observe.run_reports import StepState

HUES: Final = 8
"""Different colours of steps: ``pgd-hue0`` and so on."""

KNOWN_STATES: Final = get_args(StepState)
"""Each has a class: ``is-running`` and so on."""

_LIGHT: Final = """
  --pgd-ink: #1f2937; --pgd-faint: #6b7280; --pgd-line: #d1d5db; --pgd-box: #ffffff; --pgd-track: #e5e7eb;
  --pgd-done: #15803d; --pgd-run: #1d4ed8; --pgd-wait: #b45309; --pgd-fail: #b91c1c; --pgd-none: #9ca3af;
  --pgd-hue0: #0072b2; --pgd-hue1: #e69f00; --pgd-hue2: #009e73; --pgd-hue3: #cc79a7; --pgd-hue4: #56b4e9;
  --pgd-hue5: #d55e00; --pgd-hue6: #7c5cbf; --pgd-hue7: #8a8d00;
"""
_DARK: Final = """
  --pgd-ink: #e5e7eb; --pgd-faint: #9ca3af; --pgd-line: #4b5563; --pgd-box: #1f2937; --pgd-track: #374151;
  --pgd-done: #4ade80; --pgd-run: #60a5fa; --pgd-wait: #fbbf24; --pgd-fail: #f87171; --pgd-none: #6b7280;
  --pgd-hue0: #4aa8e0; --pgd-hue1: #f0b429; --pgd-hue2: #2fc79a; --pgd-hue3: #e09cc2; --pgd-hue4: #8fd0f5;
  --pgd-hue5: #f0814a; --pgd-hue6: #a990e0; --pgd-hue7: #c4c747;
"""
_RULES: Final = """
.pgd-scroll { overflow-x: auto; max-width: 100%; }
.pgd { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif;
  font-variant-numeric: tabular-nums; }
.pgd text { fill: var(--pgd-ink); }
.pgd .faint { fill: var(--pgd-faint); font-size: 11px; }
.pgd .strong { font-weight: 600; }
.pgd .mid { text-anchor: middle; } .pgd .end { text-anchor: end; }
.pgd .grid { stroke: var(--pgd-line); stroke-width: 1; fill: none; }
.pgd .mark { stroke: var(--pgd-ink); stroke-width: 1.2; stroke-dasharray: 4 3; }
.pgd .edge { stroke: var(--pgd-faint); stroke-width: 1.3; fill: none; }
.pgd .edge.idle { stroke: var(--pgd-none); stroke-dasharray: 5 4; }
.pgd .tip { fill: var(--pgd-faint); } .pgd .tip.idle { fill: var(--pgd-none); }
.pgd .box { fill: var(--pgd-box); stroke: var(--pgd-none); stroke-width: 1.5; }
.pgd .track { fill: var(--pgd-track); }
.pgd .done { fill: var(--pgd-done); } .pgd .run { fill: var(--pgd-run); }
.pgd .wait { fill: var(--pgd-wait); } .pgd .fail { fill: var(--pgd-fail); }
.pgd .condition { fill: var(--pgd-box); stroke: var(--pgd-wait); stroke-width: 1.5; }
.pgd .is-completed .box { stroke: var(--pgd-done); }
.pgd .is-running .box { stroke: var(--pgd-run); stroke-width: 2.5; }
.pgd .is-waiting .box, .pgd .is-paused .box, .pgd .is-completed_with_failures .box
  { stroke: var(--pgd-wait); stroke-width: 2; }
.pgd .is-failed .box { stroke: var(--pgd-fail); stroke-width: 2.5; }
.pgd .is-skipped .box, .pgd .is-cancelled .box { stroke-dasharray: 5 4; }
.pgd .is-skipped text, .pgd .is-cancelled text { fill: var(--pgd-faint); }
.pgd a:hover .box, .pgd a:focus .box { fill: var(--pgd-track); }
.pgd .bar { fill: var(--pgd-hue0); } .pgd .bar.tail { fill: var(--pgd-hue5); }
.pgd .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.pgd .area { opacity: .15; stroke: none; }
.pgd .full1 { opacity: .3; } .pgd .full2 { opacity: .55; } .pgd .full3 { opacity: .8; }
"""


def _hues() -> str:
    return "".join(
        f".pgd .hue{hue} {{ fill: var(--pgd-hue{hue}); }} "
        f".pgd .curve.hue{hue}, .pgd .lane.hue{hue} {{ fill: none; stroke: var(--pgd-hue{hue}); }}\n"
        for hue in range(HUES)
    )


def _widths() -> str:
    return "".join(
        f".pgd-w{hundreds} {{ min-width: {hundreds * 62}px; max-width: {hundreds * 125}px; }}\n"
        for hundreds in range(1, 21)
    )


STYLE: Final = (
    f":root {{{_LIGHT}}}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{{_DARK}}} }}\n"
    f':root[data-theme="light"] {{{_LIGHT}}}\n'
    f'@media screen {{ :root[data-theme="dark"] {{{_DARK}}} }}\n'
    f"{_RULES}{_hues()}{_widths()}"
    "@media print { .pgd { min-width: 0; print-color-adjust: exact; -webkit-print-color-adjust: exact; } "
    ".pgd-scroll { overflow: visible; break-inside: avoid; } }\n"
)
"""Put it once into the page that embeds drawings."""
