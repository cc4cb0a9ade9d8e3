"""The conformance suite with MPI: all of it runs in the first of some processes that mpiexec starts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import engine_clusters
import pytest
import start_flows

HERE = Path(__file__).parent
MPIEXEC = shutil.which("mpiexec") or shutil.which("mpiexec", path=os.path.dirname(sys.executable))


@pytest.mark.slow
@engine_clusters.needs("mpi")
@pytest.mark.skipif(MPIEXEC is None, reason="there is no mpiexec")
def test_mpi_does_what_the_worker_relies_on(tmp_path: Path) -> None:
    assert MPIEXEC is not None
    suite = [str(HERE / "test_conformance.py"), str(HERE / "test_conformance_on_start.py")]
    options = ["-k", "mpi", "-m", "slow", "-n0", "-q", "-o", f"cache_dir={tmp_path / 'cache'}"]
    command = [MPIEXEC, "-n", "3", sys.executable, "-m", "mpi4py.futures", "-m", "pytest", *options, *suite]
    environment = {
        **os.environ,
        "PGFLOW_TEST_MPI": "1",
        "PYTEST_ADDOPTS": "",
        start_flows.NOTES: str(tmp_path / "notes"),
    }
    done = subprocess.run(
        command,
        check=False,
        env=environment,
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
