#!/usr/bin/env python3
"""Print the shell commands of a section of README.md, so that CI runs them word for word.

bash -euxo pipefail <(scripts/readme_commands.py Start)
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def blocks(text: str, language: str) -> list[str]:
    """The contents of the fenced blocks in ``language``, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def main() -> int:
    found = sections(README.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", choices=list(found), metavar="SECTION", help=f"one of: {', '.join(found)}")
    section: str = parser.parse_args().section
    print("".join(blocks(found[section], "sh")), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
