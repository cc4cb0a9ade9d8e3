"""``python -m pgflow_mp``."""

from __future__ import annotations

import sys

from pgflow_mp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
