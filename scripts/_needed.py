"""Imported first by the scripts: what they lack is told on a line, not by a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

_SCRIPTS = Path(__file__).resolve().parent


def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say of a module that is not there how it gets there; all else as Python does."""
    if isinstance(error, ModuleNotFoundError):
        print(f"{error.name} is not installed: pip install -e '{_SCRIPTS.parent}[dev]'", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if Path(sys.argv[0]).resolve().parent == _SCRIPTS:  # not where tests import a script
    sys.excepthook = tell
