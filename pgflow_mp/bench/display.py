"""Results on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Column
from rich.table import Table as RichTable

from pgflow_mp.bench.findings import Bar, SuiteResult


def show(console: Console, result: SuiteResult) -> None:
    """Print a suite's tables, bars and notes."""
    console.print(f"\n[bold]{result.title}[/]  [dim]({result.name}, {result.seconds:.0f} s)[/]")
    for table in result.tables:
        grid = RichTable(
            *(
                Column(name, justify="right" if number else "left", no_wrap=not number)
                for number, name in enumerate(table.columns)
            ),
            title=table.title,
            title_style="dim",
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
        )
        for row in table.rows:
            grid.add_row(*row)
        console.print(grid)
    show_bars(console, result.bars)
    for note in result.notes:
        console.print(f"[dim]{note}[/]")


def show_bars(console: Console, bars: list[Bar]) -> None:
    """Print limits and whether they hold."""
    for bar in bars:
        console.print(f"  {verdict(bar)}  {bar.what}: {bar.measured} ({bar.limit})")


def verdict(bar: Bar) -> str:
    """In words and colour."""
    if bar.holds is None:
        return "[yellow]unknown[/]"
    return "[green]holds  [/]" if bar.holds else "[red]missed [/]"


def show_environment(console: Console, environment: dict[str, Any]) -> None:
    """Print what the figures depend on, in two lines."""
    server = environment["postgresql"]
    load = " ".join(f"{value:g}" for value in environment["load_average"])
    console.print(
        f"[dim]{environment['cpu']}, {environment['cores_allowed']} of {environment['cores']} cores, "
        f"{environment['memory_gib']} GiB, load {load}; Python {environment['python']}\n"
        f"PostgreSQL {server['version']}: fsync {server['fsync']}, synchronous_commit "
        f"{server['synchronous_commit']}, shared_buffers {server['shared_buffers']}[/]"
    )
