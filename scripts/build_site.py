#!/usr/bin/env python
"""Build the documentation site: static pages that work offline, opened as files, with their search.

    python scripts/build_site.py              into site/
    python scripts/build_site.py -o /tmp/x    elsewhere

Needs the extra ``docs``. The pages are those of docs/, in the order of the lists in docs/README.md; the
reference is made from the package, its parsers and its SQL. A warning is an error: exit status 1.
"""

from __future__ import annotations

import _needed  # noqa: F401  # isort: skip
import argparse
import sys
from pathlib import Path

from docsite.building import BuildFailed, build

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the documentation site.")
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "site", help="a folder; what is in it goes"
    )
    arguments = parser.parse_args()
    try:
        pages = build(ROOT, arguments.output.resolve())
    except BuildFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{pages} pages in {arguments.output}; open {arguments.output / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
