"""The documentation site and its generator, which lies in scripts/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as scripts/build_site.py builds it, or the built one that is named."""
    if built := os.environ.get("PGFLOW_TEST_SITE"):
        return Path(built)
    pytest.importorskip("furo")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, str(SCRIPTS / "build_site.py"), "-o", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder
