"""The soak of scripts/soak.py, in short: what CI runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "soak.py"


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["tasks", "ranges"])
def test_minutes_of_random_faults_leave_a_clean_audit(storage: str) -> None:
    minutes = os.environ.get("PGFLOW_SOAK_MINUTES", "2")
    command = [sys.executable, str(SOAK), "--minutes", minutes, "--seed", "1", "--json", "--storage", storage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["problems"] == []
    assert sum(told["faults"].values()) >= 10 * float(minutes)
    assert told["items"] > 0
