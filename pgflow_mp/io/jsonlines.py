"""One JSON value a line (JSONL, NDJSON), or one text a line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from pgflow_mp.errors import InputError
from pgflow_mp.io.opening import Opened
from pgflow_mp.io.source import NUL, ElementBatch, ItemSource, Raw, is_storable, joined
from pgflow_mp.values.inputs import check_line

_decode_lines: Final = msgspec.json.Decoder(msgspec.Raw).decode_lines
_EMPTY: Final = re.compile(rb"\n[ \t\r]*\n")
_encode: Final = msgspec.json.Encoder().encode


class OfFile(ItemSource):
    """A source that is one stream of bytes."""

    def __init__(self, opened: Opened) -> None:
        super().__init__(opened.name, opened.size)
        self._opened = opened

    @property
    def position(self) -> int:
        return self._opened.position

    def close(self) -> None:
        self._opened.close()

    def parts(self) -> Iterator[tuple[bytes, int]]:
        return self._opened.blocks()

    def _is_element(self, line: bytes, number: int, column: int = 1) -> bool:
        """Whether a line, or what begins in that column of it, is JSON that can be stored.

        Raises InputError, or tells ``on_bad``.
        """
        try:
            check_line(line, self.name, number, column)
        except InputError as error:
            if self.on_bad is None:
                raise
            place, _, reason = str(error).partition(": ")
            self.bad(place, reason.partition("\n")[0], line.strip(b" \t\r").decode("utf-8", "replace"))
            return False
        return True


class JsonLines(OfFile):
    """Lines of JSON; empty ones are skipped."""

    def batch(self, part: tuple[bytes, int]) -> ElementBatch:
        block, first = part
        try:
            found = _decode_lines(block)
        except (msgspec.MsgspecError, RecursionError):
            return self._line_by_line(block, first)
        body = joined(found)
        if b"\n" in body or len(found) != _count(block) or (found and not is_storable(body)):
            return self._line_by_line(block, first)
        return ElementBatch(found, lambda i: f"{self.name}, line {_numbers(block, first)[i]}")

    def _line_by_line(self, block: bytes, first: int) -> ElementBatch:
        elements: list[Raw] = []
        numbers: list[int] = []
        for number, line in enumerate(block.split(b"\n"), first):
            if (text := line.strip(b" \t\r")) and self._is_element(line, number):
                elements.append(text)
                numbers.append(number)
        return ElementBatch(elements, lambda i: f"{self.name}, line {numbers[i]}")


class TextLines(OfFile):
    """Every line is an element, a string; the empty ones, too."""

    def batch(self, part: tuple[bytes, int]) -> ElementBatch:
        block, first = part
        try:
            lines = block.decode().removesuffix("\n").replace("\r\n", "\n").removesuffix("\r").split("\n")
        except UnicodeDecodeError:
            return self._line_by_line(block, first)
        if b"\0" in block:
            return self._line_by_line(block, first)
        return ElementBatch([*map(_encode, lines)], self._place(range(first, first + len(lines))))

    def _line_by_line(self, block: bytes, first: int) -> ElementBatch:
        elements: list[Raw] = []
        numbers: list[int] = []
        for number, line in enumerate(block.removesuffix(b"\n").split(b"\n"), first):
            try:
                text = line.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                self.bad(*_not_utf8(line, error, self.name, number))
                continue
            if "\0" in text:
                self.bad(f"{self.name}, line {number}, column {text.find(chr(0)) + 1}", NUL, text)
                continue
            elements.append(_encode(text))
            numbers.append(number)
        return ElementBatch(elements, self._place(numbers))

    def _place(self, numbers: range | list[int]) -> Callable[[int], str]:
        return lambda i: f"{self.name}, line {numbers[i]}"


def _count(block: bytes) -> int:
    """How many lines are not empty."""
    ends = block.count(b"\n") + (not block.endswith(b"\n"))
    return ends if _EMPTY.search(b"\n" + block) is None else len(_numbers(block, 0))


def _numbers(block: bytes, first: int) -> list[int]:
    """The numbers of the lines that are not empty."""
    return [number for number, line in enumerate(block.split(b"\n"), first) if line.strip(b" \t\r")]


def _not_utf8(line: bytes, error: UnicodeDecodeError, name: str, number: int) -> tuple[str, str, str, str]:
    column = len(line[: error.start].decode("utf-8", "replace")) + 1
    return (
        f"{name}, line {number}, column {column}",
        f"byte 0x{line[error.start]:02x} is not UTF-8",
        line.decode("utf-8", "replace"),
        "Convert it first, e.g. iconv -f latin1 -t utf-8, or --on-bad-line skip.",
    )
