"""JSON: an array, or an element a line."""

from __future__ import annotations

from typing import IO


class LinesSink:
    """Each element on a line of its own, as it is."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, element: bytes) -> None:
        self._file.write(element + b"\n")

    def finish(self) -> None:
        self._file.flush()


class ArraySink:
    """One array of all elements, and a line's end."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._before = b"["

    def write(self, element: bytes) -> None:
        self._file.write(self._before + element)
        self._before = b", "

    def finish(self) -> None:
        self._file.write(b"]\n" if self._before == b", " else b"[]\n")
        self._file.flush()
