"""Items that have ended, as Python sees them: what went in and what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from pgflow_mp.db.reads.finished import EndedItems
from pgflow_mp.flows.finished_item import FinishedItem


def finished_items(
    ended: EndedItems, decode: Callable[[bytes], Any] = msgspec.json.decode
) -> Iterator[FinishedItem]:
    """Each of them; ``decode`` makes a list of a JSON array of outputs."""
    outputs = decode(ended.outputs)
    inputs = None if ended.inputs is None else msgspec.json.decode(ended.inputs)
    seconds = ended.seconds
    for begin, end in ended.spans:
        for at in range(begin - ended.first_index, end - ended.first_index):
            yield FinishedItem(
                ended.first_index + at,
                None if inputs is None else inputs[at],
                outputs[at],
                ended.error,
                seconds,
                ended.status,
                ended.attempts,
            )
