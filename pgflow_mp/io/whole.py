"""A JSON array that is in memory already, as a source."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pgflow_mp.io.source import ElementBatch, ItemSource
from pgflow_mp.values.inputs import RunInput


class Whole(ItemSource):
    """The elements of an input that was read and checked as one value."""

    def __init__(self, given: RunInput) -> None:
        super().__init__(given.source)
        self._json = given.json

    def parts(self) -> Iterator[list[msgspec.Raw]]:
        yield msgspec.json.decode(self._json, type=list[msgspec.Raw])

    def batch(self, part: list[msgspec.Raw]) -> ElementBatch:
        return ElementBatch(part, lambda i: f"{self.name}, item {i}")
