"""From the names of suites to results on screen and in files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pgflow_mp.bench import burning, display, environment, page, suites
from pgflow_mp.bench.arena import connected
from pgflow_mp.bench.findings import SuiteResult
from pgflow_mp.bench.stage import Stage, open_server
from pgflow_mp.executors.cpus import available_cpus


def default_suites() -> list[str]:
    """Those that run unless others are named."""
    return [name for name, suite in suites.SUITES.items() if not suite.asked]


def run(
    names: Sequence[str],
    *,
    dsn: str | None,
    lanes: int | None,
    quick: bool,
    storages: Sequence[str],
    items: int | None,
    json_file: Path | None,
    html_file: Path | None,
    console: Console,
) -> list[SuiteResult]:
    """Run suites and report. Files are written after every suite: an interrupted benchmark is not lost."""

    def say(text: str) -> None:
        console.print(f"[dim]  {text} ...[/]")

    results: list[SuiteResult] = []
    with open_server(dsn, say) as server:
        with connected(server) as conn:
            facts = environment.describe(conn)
        display.show_environment(console, facts)
        before = environment.CpuTimes.now()
        stage = Stage(
            server,
            lanes or available_cpus(),
            quick,
            burning.loops_per_second(),
            say,
            tuple(storages),
            items,
        )
        facts |= {
            "lanes": stage.lanes,
            "quick": quick,
            "storages": list(storages),
            "burn_loops_per_second": round(stage.loops),
        }
        for name in names:
            result = suites.run(name, stage)
            results.append(result)
            display.show(console, result)
            facts |= {
                "during": environment.CpuTimes.now().since(before),
                "peers": environment.versions(),
            }
            write(facts, results, json_file, html_file)
    bars = [bar for result in results for bar in result.bars]
    if len(results) > 1 and bars:
        console.print("\n[bold]Bars[/]")
        display.show_bars(console, bars)
    during = facts["during"]
    console.print(f"[dim]CPUs busy {during['busy']:.0%}, stolen by the host {during['steal']:.1%}[/]")
    return results


def write(
    facts: dict[str, Any], results: list[SuiteResult], json_file: Path | None, html_file: Path | None
) -> None:
    """Write what there is so far."""
    if json_file is not None:
        document = {
            "environment": facts,
            "suites": [dataclasses.asdict(result) for result in results],
        }
        json_file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if html_file is not None:
        html_file.write_text(page.render(facts, results), encoding="utf-8")
