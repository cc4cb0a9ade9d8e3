"""A picture that is drawn over itself, also on a terminal that has been made narrower meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable

from rich.console import Console, ConsoleDimensions
from rich.control import Control
from rich.live_render import LiveRender


class Picture(LiveRender):
    """Follows the terminal's ``size``, which the console learns at every drawing."""

    def __init__(self, console: Console, size: Callable[[], os.terminal_size]) -> None:
        super().__init__("")
        self._console = console
        self._size = size
        self._console.size = ConsoleDimensions(*size())  # until told otherwise it would look by itself

    def position_cursor(self) -> Control:
        """To the beginning of what was drawn last, erasing it.

        In a narrower terminal that covers nobody knows which lines: some terminals break lines that have
        become too long, others cut them. All is scrolled out of sight then, and kept.
        """
        columns, lines = self._size()
        narrower = columns < self._console.width
        if (columns, lines) != self._console.size:
            self._console.size = ConsoleDimensions(columns, lines)
        if narrower and self._shape is not None:
            self._shape = None
            self._console.file.write(f"\x1b[{lines};1H" + "\n" * lines + "\x1b[H")
        return super().position_cursor()
