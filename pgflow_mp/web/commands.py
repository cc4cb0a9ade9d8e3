"""Command lines to copy from a page: what to type to do the same in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command_line(*words: str, options: Sequence[str] = ()) -> str:
    """A command of ours that can be pasted into a shell."""
    return " ".join(["python -m pgflow_mp", *(shlex.quote(word) for word in (*words, *options))])
