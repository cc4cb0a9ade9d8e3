"""Commands of ours with the flow of extended_flows.py as it is at some age."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import warm_python

FLOWS = Path(__file__).with_name("extended_flows.py")


def command(dsn: str, age: int, *arguments: str, storage: str = "ranges", **options: Any) -> Any:
    """Start a command of ours with the flow as it is at this age."""
    env = {**os.environ, "PGFLOW_TEST_AGE": str(age), "PGFLOW_TEST_STORAGE": storage}
    return warm_python.Process(
        [sys.executable, "-m", "pgflow_mp", *arguments, "--dsn", dsn],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def done(dsn: str, age: int, *arguments: str, storage: str = "ranges") -> tuple[int, str, str]:
    """Run a command to its end; its exit status and what it printed."""
    process = command(dsn, age, *arguments, storage=storage)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
