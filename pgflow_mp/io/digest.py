"""Digests of what runs are given, by which two starts with one key are told to have been given the same.

Items are the same however they came: as one array or page by page. Their text counts, so that ``1.0`` is
another item than ``1``, and the order of the members of an object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import cast

import msgspec

from pgflow_mp.io.source import ElementBatch


class ItemsDigest:
    """The digest of the items that pass, and of the parameters (raw JSON) that go with them."""

    def __init__(self, params: bytes = b"{}") -> None:
        self._params = msgspec.json.encode(msgspec.json.decode(params), order="sorted")
        self._hash = hashlib.sha256()

    def passing(self, batches: Iterator[ElementBatch]) -> Iterator[ElementBatch]:
        """The batches as they are, having looked at each."""
        for batch in batches:
            self._add(batch.elements)
            yield batch

    def _add(self, elements: object) -> None:
        if elements:
            self._hash.update(b",".join(cast("list[bytes]", elements)) + b",")

    def digest(self) -> bytes:
        """32 bytes, once all have passed."""
        whole = self._hash.copy()
        whole.update(b"\n" + self._params)
        return whole.digest()


def digest_of(json: bytes) -> bytes:
    """The digest of an input that is one value; of an array the one that its elements have as items."""
    text = json.strip(b" \t\r\n")
    if text[:1] != b"[":
        return hashlib.sha256(b"\n" + text).digest()
    items = ItemsDigest()
    items._add(msgspec.json.decode(text, type=list[msgspec.Raw]))
    return items.digest()
