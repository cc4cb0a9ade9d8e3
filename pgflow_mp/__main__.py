"""``python -m pgflow_mp``."""

from __future__ import annotations

import sys

from pgflow_mp import paths

paths.demote(0)  # the working directory: its files hide no module of Python's from us

from pgflow_mp.cli.main import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
