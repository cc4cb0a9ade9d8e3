"""The SQL of the queue is taken from its package as a file: what the package itself needs is not needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pgmq


def queue_script(*path: str) -> subprocess.CompletedProcess[str]:
    """What a new process says that reads the SQL, with only these folders to find it in."""
    code = f"""
import sys
from pgflow_mp.db import queue  # psycopg, and what it needs, from wherever they are
from pgflow_mp.errors import SchemaError
sys.path[:] = {list(path)!r}
try:
    print(len(queue.script(bundled=True)))
except SchemaError as error:
    print(error, "|", error.hint)
print(sorted({{"pgmq", "orjson", "psycopg_pool"}} & sys.modules.keys()))
"""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_package_is_read_and_not_imported(tmp_path: Path) -> None:
    (package := tmp_path / "pgmq").mkdir()
    (package / "__init__.py").write_text("import a_module_without_a_wheel\n")
    (package / "sql").symlink_to(Path(pgmq.__file__).parent / "sql")
    done = queue_script(str(tmp_path))
    size, imported = done.stdout.splitlines() or (done.stderr, "")
    assert int(size) > 10_000, done.stderr
    assert imported == "[]"


def test_where_there_is_no_such_package_it_is_said() -> None:
    done = queue_script()
    said, imported = done.stdout.splitlines() or (done.stderr, "")
    assert said == (
        "The SQL of the queue is not installed (package pgmq), and the server does not offer it | "
        "Install the extension pgmq on the server, or the package here: pip install pgmq"
    )
    assert imported == "[]"
