"""How the report looks: light and dark, on a desk, on a phone, on paper."""

from __future__ import annotations

from typing import Final

from pgflow_mp.observe.drawings.palette import STYLE

PAGE_STYLE: Final = (
    STYLE
    + """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f3f4f6; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #111827; --card: #1f2937; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--pgd-ink); background: var(--paper);
  max-width: 66rem; margin: 0 auto; padding: 1rem 1.25rem 3rem; }
h1 { font-size: 1.6rem; margin: .5rem 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--pgd-line); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; overflow-wrap: anywhere; }
a { color: var(--pgd-run); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0; }
.faint, caption { color: var(--pgd-faint); }
.state { font-weight: 600; }
.is-completed { color: var(--pgd-done); } .is-failed { color: var(--pgd-fail); }
.is-running { color: var(--pgd-run); } .is-queued, .is-pending { color: var(--pgd-faint); }
.is-waiting, .is-paused, .is-completed_with_failures, .is-cancelled, .is-skipped { color: var(--pgd-wait); }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .6rem; padding: 0;
  margin: 1rem 0; }
.cards div { background: var(--card); border-radius: .5rem; padding: .5rem .75rem; }
.cards dt { color: var(--pgd-faint); font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; margin: .5rem 0 1rem; min-width: 20rem; }
caption { text-align: left; padding: .25rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--pgd-line); }
th { color: var(--pgd-faint); font-weight: 500; white-space: nowrap; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font: 13px/1.45 ui-monospace, monospace; }
code { overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; overflow-x: auto;
  margin: .4rem 0; }
details { margin: .35rem 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
.group { border-left: 3px solid var(--pgd-fail); padding: .1rem 0 .1rem .8rem; margin: 1rem 0; }
.group.tolerated, .group.skipped { border-color: var(--pgd-wait); }
@media (max-width: 40rem) { body { padding: .5rem .75rem 2rem; } h1 { font-size: 1.3rem; } }
@media print {
  body { max-width: none; font-size: 11px; padding: 0; } nav { display: none; }
  section, .group, tr { break-inside: auto; } h2, h3 { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; } .scroll { overflow: visible; }
}
"""
)
